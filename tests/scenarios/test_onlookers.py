"""Workloads and trust domains outside hold the rotation of an authority up until they can believe the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation import workload
from federation.clock import SystemClock
from federation.demo.asking import until
from federation.demo.clusters import Cluster
from federation.demo.world import World
from federation.errors import Unreachable
from pki.certificate import load_pem
from tests.scenarios.command import federation as command
from tests.scenarios.test_rotation import nobody_fails, reached, rotate, rotation

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def running_federation(running_rotations: World) -> World:
    return running_rotations


async def waits_only_for(world: World, cluster: Cluster, member: str) -> Any:
    """What is said of the only one who holds a rotation up."""
    found: list[Any] = []

    async def alone() -> bool:
        found[:] = (await rotation(cluster))["blocking"]
        return [one["member"] for one in found] == [member]

    await until(f"that only {member} is waited for", alone, watch=(world.hub, cluster.agent))
    return found[0]


def anchors(folder: Path) -> int:
    return len(load_pem((folder / workload.BUNDLE).read_bytes()))


async def loses_the_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal whose answer never reaches the disk of the workload."""

    def lost(*_: object) -> None:
        raise Unreachable("the agent", "the connection was lost")

    with monkeypatch.context() as patched:
        patched.setattr(workload, "believed", lost)
        with pytest.raises(Unreachable):
            await workload.renewed(folder, SystemClock())


async def test_a_workload_holds_a_rotation_up_until_it_has_renewed_or_is_banned(
    federation: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    west = federation.clusters["west"]
    agent, folder, token = ("--hub", f"unix://{west.socket}"), tmp_path / "cart", tmp_path / "token"
    made = await command(*agent, "token", "create", "--workload", "shop/cart", "--out", token)
    assert made.code == 0, made.said
    issued = await command("ca", "issue", "--token", token, "--out", folder)
    assert issued.code == 0, issued.said
    identity = str(workload.read(folder).spiffe_id)
    async with nobody_fails(federation):
        await rotate(west, "start", why="a test")
        told = await waits_only_for(federation, west, "its workloads")
        assert "1 workload has" in told["reason"]
        assert identity in told["who"][0]
        await loses_the_answer(folder, monkeypatch)
        shown = await command(*agent, "ca", "rotate", "cluster", "status")
        assert shown.code == 1, shown.said
        for said in ("its workloads", identity, "federation ca renew", "federation ca ban"):
            assert said in shown.out, shown.said
        assert (await rotation(west))["phase"] == "published", "the answer to a renewal was lost"
        assert (await command("ca", "renew", folder)).code == 0
        assert anchors(folder) == 2
        await reached(federation, west, "active")
        told = await waits_only_for(federation, west, "west")
        assert identity in told["who"][0]
        await loses_the_answer(folder, monkeypatch)
        assert (await rotation(west))["phase"] == "active", "the answer to a renewal was lost"
        assert (await command("ca", "renew", folder)).code == 0
        await reached(federation, west, "done")
    renewed = await command("ca", "renew", folder)
    assert renewed.code == 0, renewed.said
    assert anchors(folder) == 1
    await rotate(west, "start", why="nobody will ever renew")
    await waits_only_for(federation, west, "its workloads")
    await west.agent.kill()
    await west.agent.start()
    await waits_only_for(federation, west, "its workloads")
    hub = ("--hub", f"unix://{federation.hub_socket}")
    banned = await command(*hub, "ca", "ban", identity, "--reason", "it is gone")
    assert banned.code == 0, banned.said
    await reached(federation, west, "done")
