"""A gateway process with a real Envoy and an agent of the test: starts, crashes, refusals, renewal, drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from gateway import names
from gateway.compile import compile_step, start
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from gateway.proto import resource
from gateway.snapshot import CLUSTER, LISTENER, SECRET, Resource, Snapshot
from gateway.tuning import Tuning
from tests.gateway.certificates import ca
from tests.gateway.envoys import Backend, free_port
from tests.gateway.plans import ECHO, fabric, plan
from tests.gateway.process import Agent, Gateway, agent, alive, attest, kill, on_disk, with_argument

pytestmark = pytest.mark.live

HERE = "127.0.0.1"
EAST = ca("east")
DEADLINE = 30.0
RETRY_EVERY = 0.5


async def until(ask: Callable[[], Awaitable[bool]], gateway: Gateway) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + DEADLINE
    while not await ask():
        assert time.monotonic() < end, gateway.log()
        await asyncio.sleep(0.02)


@dataclass
class World:
    agent: Agent
    gateway: Gateway
    backend: Backend
    snapshot: Snapshot
    port: int

    async def answers(self) -> bool:
        """Whether a new connection to the imported service is answered by the backend."""
        try:
            reader, writer = await asyncio.open_connection(HERE, self.port)
            writer.write(b"who?\n")
            async with asyncio.timeout(5):
                said = await reader.read(100)
            writer.close()
        except (OSError, TimeoutError):
            return False
        return said == b"east\n"

    async def wait_for_answers(self) -> None:
        await until(self.answers, self.gateway)

    async def wait_for_disk(self) -> None:
        """Until the gateway's store has all that the agent sent."""

        async def stored() -> bool:
            found = await on_disk(self.gateway.directory / "resources.sqlite")
            return found.types == self.snapshot.types

        await until(stored, self.gateway)

    async def wait_for_status(self, **wanted: object) -> None:
        async def as_wanted() -> bool:
            status = await self.gateway.status()
            return all(status.get(name) == value for name, value in wanted.items())

        await until(as_wanted, self.gateway)


def echo_snapshot(backend: Backend, port: int, east_west: int) -> Snapshot:
    """The configuration of a cluster that has one service, and no peers."""
    around = fabric(binds=((names.GATEWAY_CLASS, HERE, east_west),))
    made = plan(["east"], local=[backend.address], listen_port=port)
    compiled = compile_step(start(around, Tuning()), {ECHO: (made,)}, around)
    return compiled.snapshots[around.binds[0]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    backend = Backend("east", closing=False)
    port, east_west = free_port(HERE), free_port(HERE)
    snapshot = echo_snapshot(backend, port, east_west)
    gateway = Gateway(tmp_path / "g", HERE, east_west, free_port(HERE), drain=1.0)
    try:
        async with agent(EAST, snapshot, RETRY_EVERY) as served:
            attest(gateway.directory, EAST, "https://127.0.0.1:1", served.address)
            gateway.start()
            found = World(served, gateway, backend, snapshot, port)
            await found.wait_for_answers()
            yield found
    finally:
        gateway.stop()
        backend.stop()


async def test_starts_from_nothing_and_reports(world: World) -> None:
    await until(world.gateway.ready, world.gateway)
    await world.wait_for_status(agent_connected=True, problems=[])

    async def acknowledged() -> bool:
        return [stream.subscription.acked for stream in world.agent.ads.streams] == [world.snapshot.number]

    async def reported() -> bool:
        return bool(world.agent.reports) and world.agent.reports[-1].envoy_live

    await until(acknowledged, world.gateway)
    await until(reported, world.gateway)
    assert world.agent.reports[-1].envoy_version.startswith("1.40")
    (stream,) = world.agent.ads.streams
    assert (stream.where.bind, stream.where.bind_port) == (HERE, world.agent.reports[-1].bind_port)
    _, metrics = await world.gateway.get("/metrics")
    assert "federation_gateway_envoy_live 1.0" in metrics
    assert "envoy_server_live" in metrics
    for name in ("api.sock", "admin.sock"):
        assert (world.gateway.directory / name).stat().st_mode & 0o777 == 0o600
    rss = (Path("/proc") / str(world.gateway.process.pid) / "status").read_text()
    kib = int(next(line for line in rss.splitlines() if line.startswith("VmRSS")).split()[1])
    assert kib < 100 * 1024


async def test_a_failed_backend_is_reported(world: World) -> None:
    world.backend.stop()

    async def failed() -> bool:
        return bool(world.agent.reports) and [
            (b.namespace, b.name, b.port, list(b.failed)) for b in world.agent.reports[-1].backends
        ] == [("default", "echo", 80, [f"{HERE}:{world.backend.address[1]}"])]

    await until(failed, world.gateway)


async def test_envoy_that_is_killed_is_started_again(world: World) -> None:
    before = (await world.gateway.status())["envoy_pid"]
    kill(before)
    await world.wait_for_status(envoy_crashes=1, envoy_live=True)
    await world.wait_for_answers()
    assert (await world.gateway.status())["envoy_pid"] != before


async def test_no_envoy_survives_a_killed_gateway_and_the_next_one_serves_without_the_agent(
    world: World,
) -> None:
    await world.wait_for_disk()
    envoy = (await world.gateway.status())["envoy_pid"]
    await world.agent.stop()
    world.gateway.kill()

    async def gone() -> bool:
        return not alive(envoy)

    await until(gone, world.gateway)
    assert not await world.answers()
    world.gateway.start()
    await world.wait_for_answers()
    status = await world.gateway.status()
    assert not status["agent_connected"]
    assert status["problems"][0].startswith("no stream to the agent")


@pytest.mark.parametrize("end", [Gateway.stop, Gateway.kill])
async def test_a_gateway_that_restarts_on_a_full_disk_serves_without_the_agent(
    world: World, end: Callable[[Gateway], None]
) -> None:
    await world.wait_for_disk()
    await world.agent.stop()
    end(world.gateway)
    world.gateway.start(no_room=True)
    await world.wait_for_answers()
    await until(world.gateway.ready, world.gateway)


def freeze_and_kill(gateway: Gateway, envoy: int) -> None:
    gateway.process.send_signal(signal.SIGSTOP)
    gateway.kill()


def kill_beside_a_frozen_envoy(gateway: Gateway, envoy: int) -> None:
    os.kill(envoy, signal.SIGSTOP)
    gateway.kill()


def stop_beside_a_frozen_envoy(gateway: Gateway, envoy: int) -> None:
    """It cannot be drained, and does not hear a SIGTERM."""
    os.kill(envoy, signal.SIGSTOP)
    gateway.stop()
    assert gateway.process.returncode == 0, gateway.log()


def kill_while_envoy_starts(gateway: Gateway, envoy: int) -> None:
    kill(envoy)
    gateway.kill()


def stop_while_envoy_starts(gateway: Gateway, envoy: int) -> None:
    kill(envoy)
    gateway.stop()
    assert gateway.process.returncode == 0, gateway.log()


@pytest.mark.parametrize(
    "end",
    [
        freeze_and_kill,
        kill_beside_a_frozen_envoy,
        stop_beside_a_frozen_envoy,
        kill_while_envoy_starts,
        stop_while_envoy_starts,
    ],
)
async def test_whatever_ends_a_gateway_no_envoy_of_it_is_left(
    world: World, end: Callable[[Gateway, int], None]
) -> None:
    end(world.gateway, (await world.gateway.status())["envoy_pid"])

    async def none_left() -> bool:
        return not with_argument(str(world.gateway.directory / "bootstrap.json"))

    await until(none_left, world.gateway)
    assert not await world.answers()
    world.gateway.start()
    await world.wait_for_answers()


async def test_a_frozen_gateway_leaves_the_traffic_alone(world: World) -> None:
    envoy = (await world.gateway.status())["envoy_pid"]
    world.gateway.process.send_signal(signal.SIGSTOP)
    try:
        assert await world.answers()
        assert alive(envoy)
    finally:
        world.gateway.process.send_signal(signal.SIGCONT)
    await world.wait_for_status(agent_connected=True, envoy_pid=envoy)


async def test_traffic_goes_on_while_the_agent_is_gone_and_it_catches_up(world: World) -> None:
    address = world.agent.address
    await world.agent.stop()
    await world.wait_for_status(agent_connected=False)
    await world.wait_for_answers()
    again = Agent(EAST, address, world.agent.snapshots)
    another = Backend("east", closing=False)
    try:
        await again.start()
        await world.wait_for_status(agent_connected=True)
        bind = int(world.gateway.telemetry.rpartition(":")[2])
        assert bind
        port = free_port(HERE)
        again.snapshots.publish(
            again.snapshots.value.replace(
                [
                    world_resource
                    for kind in echo_snapshot(another, port, 1).types.values()
                    for world_resource in kind.values()
                    if world_resource.name == names.imported(ECHO, 80)
                ],
                (),
            )
        )
        moved = World(again, world.gateway, another, world.snapshot, port)
        await moved.wait_for_answers()
    finally:
        another.stop()
        await again.stop()


async def test_one_bad_resource_among_good_ones(world: World) -> None:
    bad = resource(CLUSTER, "bad", Cluster(name="bad", connect_timeout=Duration(seconds=-1)))
    known = world.snapshot.get(CLUSTER, names.imported(ECHO, 80))
    assert known is not None
    good = Resource(CLUSTER, known.name, known.version + "x", known.body)
    world.agent.snapshots.publish(world.snapshot.replace([bad, good], ()))

    async def refused_alone() -> bool:
        (stream,) = world.agent.ads.streams
        lane = stream.subscription.lanes[CLUSTER]
        return lane.known.get(good.name) == good.version and set(lane.rejected) == {"bad"}

    await until(refused_alone, world.gateway)
    (stream,) = world.agent.ads.streams
    assert stream.subscription.lanes[CLUSTER].rejected["bad"].error.startswith("bad: ")
    status = await world.gateway.status()
    assert [(one["type"], one["name"]) for one in status["rejected"]] == [("Cluster", "bad")]
    await world.wait_for_answers()


async def test_a_listener_comes_up_once_its_port_is_free(world: World) -> None:
    port = free_port(HERE)
    moved = World(world.agent, world.gateway, world.backend, world.snapshot, port)
    wanted = echo_snapshot(world.backend, port, 1).get(LISTENER, names.imported(ECHO, 80))
    assert wanted is not None

    def refused_by_gateway() -> dict[str, str]:
        (stream,) = world.agent.ads.streams
        return {name: why.error for (_, name), why in stream.subscription.rejected().items()}

    async def offered_again() -> bool:
        (stream,) = world.agent.ads.streams
        return stream.subscription.responses >= offers + 3

    with socket.create_server((HERE, port)):
        world.agent.snapshots.publish(world.agent.snapshots.value.replace([wanted], ()))

        async def refused() -> bool:
            return set(refused_by_gateway()) == {wanted.name}

        await until(refused, world.gateway)
        (stream,) = world.agent.ads.streams
        offers = stream.subscription.responses
        await until(offered_again, world.gateway)
        assert "Address already in use" in refused_by_gateway()[wanted.name]
        await world.wait_for_answers()

    await moved.wait_for_answers()

    async def forgotten() -> bool:
        return not refused_by_gateway() and not (await world.gateway.status())["rejected"]

    await until(forgotten, world.gateway)


async def test_a_damaged_store_is_kept_aside(world: World) -> None:
    await world.agent.stop()
    world.gateway.stop()
    (world.gateway.directory / "resources.sqlite").write_bytes(b"this is no database" * 100)
    world.gateway.start()

    async def said() -> bool:
        problems = (await world.gateway.status()).get("problems", [])
        return any("damaged" in problem for problem in problems)

    await until(said, world.gateway)
    (aside,) = world.gateway.directory.glob("resources.sqlite.corrupt-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert not await world.answers()
    again = Agent(EAST, world.agent.address, world.agent.snapshots)
    try:
        await again.start()
        await world.wait_for_answers()
    finally:
        await again.stop()


async def test_drains_on_sigterm(world: World) -> None:
    reader, writer = await asyncio.open_connection(HERE, world.port)
    writer.write(b"first\n")
    assert await reader.readline() == b"east\n"
    envoy = (await world.gateway.status())["envoy_pid"]
    world.gateway.process.terminate()

    async def draining() -> bool:
        return not await world.gateway.ready()

    await until(draining, world.gateway)
    writer.write(b"second\n")
    assert await reader.readline() == b"east\n"
    writer.close()

    async def ended() -> bool:
        return world.gateway.process.poll() is not None

    await until(ended, world.gateway)
    assert world.gateway.process.returncode == 0
    assert not alive(envoy)
    assert world.agent.reports[-1].state == world.agent.reports[-1].STATE_DRAINING


def test_a_snapshot_has_no_identity() -> None:
    backend = Backend("east", closing=False)
    try:
        snapshot = echo_snapshot(backend, 20000, 15443)
        assert snapshot.get(SECRET, names.IDENTITY) is None
    finally:
        backend.stop()
