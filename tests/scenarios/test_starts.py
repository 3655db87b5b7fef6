"""What hub, agent and gateway refuse at their start, and that each runs as soon as it is mended.

One hub, one cluster and one gateway that have run before, and are stopped now unless a test starts them.
"""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from federation.demo.asking import ask, until
from federation.demo.files import objects
from federation.demo.processes import Process
from federation.document import dump
from federation.listen import HostPort, listen
from tests.scenarios.command import Finished, federation
from tests.scenarios.lone_hub import COMMAND, LoneHub, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

ME = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"


@dataclass(frozen=True, slots=True)
class Small:
    """A hub that runs, and the settings files of an agent that has joined it and of a gateway that is new."""

    hub: LoneHub
    agent: Path
    gateway: Path

    @property
    def state(self) -> Path:
        return self.agent.parent / "state"

    @property
    def socket(self) -> Path:
        return self.state / "api.sock"

    def places(self) -> dict[str, HostPort]:
        host = self.hub.address.rpartition(".")[0] + ".2"
        return {
            name: HostPort.of(host, port)
            for name, port in (("api", 8445), ("xds", 8446), ("telemetry", 9465))
        }

    @asynccontextmanager
    async def agent_running(self) -> AsyncIterator[Process]:
        process = Process("east", (*COMMAND, "agent", "--config", str(self.agent)), self.agent.parent / "log")

        async def ready() -> bool:
            return bool((await ask(self.socket, "/v1/status"))["hub_connected"])

        async with started(process, ready):
            yield process


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Small]:
    hub = LoneHub(tmp_path_factory.mktemp("small"))
    await hub.start()
    try:
        made = Small(hub, hub.agent("east", await hub.token("east")), hub.folder / "gateway.yaml")
        async with made.agent_running():
            pass
        yield made
    finally:
        await hub.process.stop()


def refused(found: Finished, *said: str) -> None:
    assert found.code == 1, found.said
    assert "Traceback" not in found.said
    assert found.err.count("error: ") == 1, found.said
    for part in said:
        assert part in found.err, found.said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("membership.json", "put a backup of the agent's folder back"),
        ("leaf.pem", "hint: remove it; a new one is issued"),
        ("keys/*.key", ".key"),
        ("authority/self-signed.pem", "self-signed.pem"),
        ("authority/journal", "journal"),
    ],
)
async def test_a_damaged_file_of_an_agent_is_named_and_stays(small: Small, name: str, said: str) -> None:
    (file,) = small.state.glob(name)
    good = file.read_bytes()
    for damaged in (b"\xff garbage", b"\xff garbage\n" + good[: len(good) // 2]):
        file.write_bytes(damaged)
        try:
            refused(await federation("agent", "--config", small.agent), file.name, said)
            assert file.read_bytes() == damaged
        finally:
            file.write_bytes(good)


@pytest.mark.parametrize("name", ["", "membership.json", "leaf.pem", "keys/*.key", "agent.db"])
async def test_what_others_may_read_is_not_used(small: Small, name: str) -> None:
    (path,) = small.state.glob(name) if name else (small.state,)
    before = path.stat().st_mode & 0o777
    path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        found = await federation("agent", "--config", small.agent)
        refused(found, str(path), "chmod")
    finally:
        path.chmod(before)


@pytest.mark.parametrize("door", ["api", "xds", "telemetry"])
async def test_a_port_of_an_agent_that_is_taken_names_its_holder(small: Small, door: str) -> None:
    address = small.places()[door]
    with listen(address):
        found = await federation("agent", "--config", small.agent)
    refused(
        found,
        f"cannot listen on {address}: the port is held by {ME}",
        "hint: stop it, or choose another port",
    )
    assert not small.socket.exists()


async def test_a_gateway_says_what_it_lacks_and_starts_once_it_is_there(small: Small) -> None:
    """Its token is used only then, and not needed again. Envoy is live though it has nothing to serve yet."""
    host = small.hub.address.rpartition(".")[0] + ".3"
    folder = small.gateway.parent / "gateway"
    settings: dict[str, Any] = {
        "name": "gw-0",
        "advertise": f"{host}:15443",
        "token": str(small.gateway.parent / "gateway.token"),
        "directory": str(folder),
        "listen": {"address": host, "telemetry": f"{host}:9466"},
        "keys": small.hub.keys,
    }

    async def start(**changed: object) -> Finished:
        small.gateway.write_text(dump(settings | changed))
        return await federation("gateway", "--config", small.gateway)

    async with small.agent_running():
        refused(await start(), "gateway.token")
        wanted = ("token", "create", "--gateway", "--out", settings["token"])
        made = await federation("--hub", f"unix://{small.socket}", *wanted)
        assert made.code == 0, made.said
        refused(await start(envoy={"path": "/nonexistent/envoy"}), "/nonexistent/envoy is not a program")
        for port in (15443, 9466):
            with listen(HostPort.of(host, port)):
                refused(await start(), f"cannot listen on {host}:{port}: the port is held by {ME}")
        small.gateway.write_text(dump(settings))
        process = Process(
            "gw-0", (*COMMAND, "gateway", "--config", str(small.gateway)), small.hub.folder / "gw.log"
        )

        async def serves() -> bool:
            status = await ask(folder / "api.sock", "/v1/status")
            return bool(status["agent_connected"] and status["envoy_live"])

        async with started(process, serves):
            Path(settings["token"]).unlink()
        async with started(process, serves):
            pass


@pytest.mark.parametrize("blocks", [0, 1, 8, 40])
async def test_f26_a_hub_that_finds_a_full_disk_says_so_and_starts_once_there_is_room(
    blocks: int, tmp_path: Path
) -> None:
    """A block has 512 bytes: the disk is full at once, after the first files, or within the database."""
    hub = LoneHub(tmp_path)
    found = await federation("serve", "--config", hub.config, limit=f"ulimit -f {blocks}")
    refused(found, str(hub.directory))
    assert any(word in found.err for word in ("too large", "takes no more")), found.said
    await hub.start()
    await hub.process.stop()


async def test_f26_an_agent_on_a_full_disk_goes_on_shows_it_and_recovers(small: Small) -> None:
    services = small.agent.parent / "services"

    async def problems() -> Sequence[str]:
        found: Sequence[str] = (await ask(small.socket, "/v1/status"))["problems"]
        return found

    async def shown() -> bool:
        return any("the disk takes no more" in problem for problem in await problems())

    async def over() -> bool:
        return not await problems()

    async with small.agent_running() as process:
        await until("a start without problems", over)
        written = (small.state / "agent.db-wal").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (written, resource.RLIM_INFINITY))
        (services / "late.yaml").write_text(objects("late", ["127.0.0.9"]))
        await until("the problem in the status", shown)
        status = await federation("--hub", f"unix://{small.socket}", "status")
        assert status.code == 1
        assert "the disk takes no more" in status.out
        listed = await federation("--hub", f"unix://{small.socket}", "service", "list", "-o", "json")
        assert [one["service"] for one in listed.json] == ["default/late"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await until("the end of the problem", over)
        await process.kill()
