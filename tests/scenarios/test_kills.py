"""Each process of the federation is killed or frozen under 200 new connections a second.

Failed are at most the requests that were in flight when the fault struck.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from federation.demo.asking import until
from federation.demo.clusters import Gateway
from federation.demo.world import World
from tests.scenarios.changes import alive, gone, kill, listeners, planned, reach, settled
from tests.scenarios.traffic import answered_by, struck

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def test_f1_hub_killed_under_load(federation: World) -> None:
    hub = federation.hub
    found = await struck(await reach(federation, "east", "remote"), hub.kill, "west")
    assert found.load.failed == 0, str(found)
    assert found.last == {"west"}


async def test_f4_agents_killed_under_load(federation: World) -> None:
    """Both the agent of the clients' cluster and that of the cluster which answers."""
    agents = [federation.clusters[name].agent for name in ("east", "west")]

    async def kill_both() -> None:
        await asyncio.gather(*(agent.kill() for agent in agents))

    async def start_both() -> None:
        for agent in agents:
            await agent.start()
        await until("the agents' return", federation.serving, watch=tuple(agents))

    found = await struck(await reach(federation, "east", "remote"), kill_both, "west", start_both)
    assert found.load.failed == 0, str(found)
    assert found.last == {"west"}


async def test_f7_gateway_process_killed_under_load(federation: World) -> None:
    """Its Envoy dies with it, and the other gateway of the same cluster is used."""
    gateway, other = federation.clusters["west"].gateways
    envoy = (await gateway.status())["envoy_pid"]

    async def kill_it() -> None:
        await gateway.process.kill()
        await gone(envoy)

    found = await struck(await reach(federation, "east", "remote"), kill_it, "west")
    assert found.load.failed <= found.in_flight, str(found)
    assert set(found.load.clusters) == {"west"}, "the other gateway of west answers, not central"
    assert alive((await other.status())["envoy_pid"])


async def test_f7_envoy_killed_under_load_is_started_again_with_its_configuration(federation: World) -> None:
    """West's agent is dead too, so what the new Envoy listens for comes from the gateway alone."""
    west = federation.clusters["west"]
    gateway = west.gateways[0]
    before = await gateway.status()
    listening = await listeners(gateway)
    await west.agent.kill()

    async def kill_envoy() -> None:
        kill(before["envoy_pid"])
        await gone(before["envoy_pid"])

    async def returned() -> bool:
        status = await gateway.status()
        return bool(status["envoy_live"]) and await listeners(gateway) == listening

    async def wait() -> None:
        await until("the return of Envoy", returned, watch=(gateway.process,))

    found = await struck(await reach(federation, "east", "remote"), kill_envoy, "west", wait)
    assert found.load.failed <= found.in_flight, str(found)
    assert found.last == {"west"}
    after = await gateway.status()
    assert after["envoy_crashes"] == before["envoy_crashes"] + 1
    assert after["envoy_pid"] != before["envoy_pid"]


async def test_f14_gateways_frozen_under_load(federation: World) -> None:
    """West's gateways and their Envoys fall silent while west's agent goes on praising them."""
    west = federation.clusters["west"]
    frozen = [(gateway, (await gateway.status())["envoy_pid"]) for gateway in west.gateways]
    to = await reach(federation, "east", "remote")

    async def freeze() -> None:
        _signal(frozen, signal.SIGSTOP)

    async def thaw() -> None:
        _signal(frozen, signal.SIGCONT)
        await until("west's return", answered_by(to, "west"))

    try:
        found = await struck(to, freeze, "central", thaw)
    finally:
        _signal(frozen, signal.SIGCONT)
    assert found.load.failed <= found.in_flight, str(found)
    assert found.load.clusters["central"] > 0
    assert found.last == {"west"}


def _signal(frozen: list[tuple[Gateway, int]], number: signal.Signals) -> None:
    for gateway, envoy in frozen:
        gateway.process.signal(number)
        kill(envoy, number)


async def test_f9_f10_backends_killed_one_by_one(federation: World) -> None:
    """First one of two, then the last: its cluster goes on, then the next one does."""
    backends = federation.clusters["west"].of("echo")
    to = await reach(federation, "east", "remote")
    first = await struck(to, backends[0].process.kill, "west")
    assert first.load.failed <= first.in_flight, str(first)
    assert first.last == {"west"}
    second = await struck(to, backends[1].process.kill, "central")
    assert second.load.failed <= second.in_flight, str(second)
    assert second.last == {"central"}
    for backend in backends:
        await backend.process.start()
    await planned(federation, "east", "remote", {"west", "central"})
    await settled(federation)
