"""Folders put back from before a rotation: of the hub, which follows what has happened since, and of an agent, which
cannot, and says so. No request fails meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509

from federation.demo.asking import ask, until
from federation.demo.clusters import Cluster
from federation.demo.processes import Process
from federation.demo.world import World, world
from tests.scenarios.changes import REMOTE, add_service, mend
from tests.scenarios.test_rotation import nobody_fails, reached, rotate, rotation

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def federation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One that is these tests' own: heads of journals that lie behind are an alarm that stays."""
    async with world(tmp_path_factory.mktemp("restored"), lambda _: None) as made:
        for cluster in ("west", "central"):
            add_service(made, cluster, REMOTE)
        await mend(made)
        yield made


def without_sockets(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_socket()}


async def copied(world: World, process: Process, folder: Path, to: Path) -> None:
    """As docs/ceremony.md says: stop, copy the whole folder, start."""
    await process.stop()
    shutil.copytree(folder, to, ignore=without_sockets)
    await process.start()
    await until("everybody's return", world.served, watch=world.processes)


async def exchanged(process: Process, folder: Path, lost: Path, copy: Path) -> None:
    """The folder goes to `lost`, and what is at `copy` takes its place."""
    await process.stop()
    folder.rename(lost)
    copy.rename(folder)
    await process.start()


async def rotated(world: World, cluster: Cluster) -> Any:
    """The rotation of its authority, when it is over."""
    await rotate(cluster, "start", why="a test")
    await reached(world, cluster, "done")
    return await rotation(cluster)


def anchor(cluster: Cluster, epoch: int) -> x509.Certificate:
    folder = cluster.socket.parent / "authority" / str(epoch)
    return x509.load_pem_x509_certificate((folder / "self-signed.pem").read_bytes())


async def anchors(socket: Path, name: str) -> list[x509.Certificate]:
    """By which whoever is at `socket` recognises the cluster `name`."""
    held = await ask(socket, "/v1/authorities")
    [pem] = [each["pem"] for each in held["trusts"] if each["name"] == name]
    return x509.load_pem_x509_certificates(pem.encode())


async def test_a_hub_from_before_a_rotation_follows_it_and_no_request_fails(
    federation: World, tmp_path: Path
) -> None:
    west, folder = federation.clusters["west"], federation.hub_socket.parent
    await copied(federation, federation.hub, folder, tmp_path / "copy")
    async with nobody_fails(federation):
        after = await rotated(federation, west)
        await exchanged(federation.hub, folder, tmp_path / "lost", tmp_path / "copy")
        await until("everybody's return", federation.served, watch=federation.processes)
    now = await rotation(west)
    assert (now["phase"], now["issuing"]) == ("done", after["issuing"])
    for socket in (federation.hub_socket, federation.clusters["east"].socket):
        assert await anchors(socket, "west") == [anchor(west, after["issuing"])]
    assert "brought from outside a stream" in federation.hub.log.read_text()


async def test_an_agent_from_before_a_rotation_says_so_and_no_request_fails(
    federation: World, tmp_path: Path
) -> None:
    west, folder = federation.clusters["west"], federation.clusters["west"].socket.parent
    await copied(federation, west.agent, folder, tmp_path / "copy")

    async def problem() -> str:
        problems = (await ask(west.socket, "/v1/status"))["problems"]
        return next((each for each in problems if "it is an old copy: it has" in each), "")

    async def told() -> bool:
        return bool(await problem())

    async def settled() -> bool:
        return await federation.served() and not await told()

    async with nobody_fails(federation):
        after = await rotated(federation, west)
        await exchanged(west.agent, folder, tmp_path / "newest", tmp_path / "copy")
        await until("the word of the agent that is an old copy", told, watch=federation.processes)
        said = await problem()
        assert f"{folder}: " in said, "its keys are put back as well, and are beside the authority's folder"
        assert "federation token create west --replace-authority" in said
        for socket in (federation.hub_socket, federation.clusters["east"].socket):
            assert await anchors(socket, "west") == [
                x509.load_pem_x509_certificate(
                    (tmp_path / "newest/authority" / str(after["issuing"]) / "self-signed.pem").read_bytes()
                )
            ]
        await exchanged(west.agent, folder, tmp_path / "old", tmp_path / "newest")
        await until("everybody's return", settled, watch=federation.processes)
    assert (await rotation(west))["issuing"] == after["issuing"]
