"""Everything starts without what stands above it: agents without the hub, gateways and Envoys without an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from federation.api.client import Refusal
from federation.demo.asking import ask, until
from federation.demo.load import request, running
from federation.demo.world import World
from federation.errors import Unreachable
from tests.scenarios.changes import gone, listeners, reach, settled
from tests.scenarios.command import federation as command
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def ready(world: World, cluster: str) -> int:
    """What /readyz of the agent answers."""
    host = world.clusters[cluster].network.network_address
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:9465/readyz") as answer:
        return answer.status


async def test_f3_agent_starts_with_no_hub(federation: World) -> None:
    east = federation.clusters["east"]
    to = await reach(federation, "east", "remote")
    before = await east.imports()
    listening = await listeners(east.gateways[0])
    await federation.hub.stop()
    async with running(to) as load:
        await east.agent.kill()
        await east.agent.start()

        async def connected() -> bool:
            (gateway,) = (await ask(east.socket, "/v1/status"))["gateways"]
            return bool(gateway["connected"]) and gateway["acknowledged"] == gateway["snapshot"]

        await until("the gateway's return to its agent", connected, watch=(east.agent,))
        assert await ready(federation, "east") == 200
        await asyncio.sleep(1)
    assert load.failed == 0
    assert set(load.clusters) == {"west"}
    assert await east.imports() == before
    assert await listeners(east.gateways[0]) == listening
    status = await command("--hub", f"unix://{east.socket}", "status")
    assert "NOT connected to" in status.out
    assert status.code == 1
    checks = await command("--hub", f"unix://{east.socket}", "check")
    assert "‼ connected to the hub" in checks.out


async def test_f42_gateway_and_envoy_start_with_no_agent(federation: World) -> None:
    east = federation.clusters["east"]
    (gateway,) = east.gateways
    to = await reach(federation, "east", "remote")
    listening = await listeners(gateway)
    envoy = (await gateway.status())["envoy_pid"]
    await federation.hub.kill()
    await east.agent.kill()
    await gateway.process.kill()
    await gone(envoy)
    assert (await request(to)).who is None
    await gateway.process.start()
    await until("traffic with no agent", answered_by(to, "west"), watch=(gateway.process,))
    assert await listeners(gateway) == listening
    status = await gateway.status()
    assert not status["agent_connected"]
    async with running(to) as load:
        await asyncio.sleep(1)
    assert load.failed == 0


async def test_f52_region_lost_while_nobody_is_in_control(federation: World) -> None:
    """Hub and agents are dead when west's backends die: Envoy alone moves the traffic."""
    to = await reach(federation, "east", "remote")
    await federation.hub.kill()
    for cluster in federation.clusters.values():
        await cluster.agent.kill()
    async with running(to) as load:
        await asyncio.sleep(0.5)
        for backend in federation.clusters["west"].of("echo"):
            await backend.process.kill()
        await until("central's answer", answered_by(to, "central"))
        await asyncio.sleep(0.5)
    assert load.failed <= 4, "at most what was in flight at two kills"
    assert load.clusters["central"] > 0


@asynccontextmanager
async def watched(world: World, cluster: str) -> AsyncIterator[list[str]]:
    """Look at listeners and imports of `cluster` all the time; yields what was missing at any look."""
    home = world.clusters[cluster]
    (gateway,) = home.gateways
    listening, imports = await listeners(gateway), await home.imports()
    missing: list[str] = []
    looks = 0
    stop = asyncio.Event()

    async def look() -> None:
        nonlocal looks
        while not stop.is_set():
            missing.extend(listening.keys() - (await listeners(gateway)).keys())
            try:
                missing.extend(imports.keys() - (await home.imports()).keys())
            except (Unreachable, Refusal) as error:
                missing.append(str(error))
            looks += 1
            await asyncio.sleep(0.02)

    task = asyncio.create_task(look(), name="watch")
    try:
        yield missing
    finally:
        stop.set()
        await task
        assert looks > 10


async def test_f3_f33_hub_restarts_and_nothing_is_withdrawn_meanwhile(federation: World) -> None:
    to = await reach(federation, "east", "remote")
    async with running(to) as load, watched(federation, "east") as missing:
        await federation.hub.kill()
        await asyncio.sleep(0.5)
        await federation.hub.start()
        await until("the agents' return", federation.served, watch=(federation.hub,))
        await settled(federation)
    assert missing == []
    assert load.failed == 0
    assert set(load.clusters) == {"west"}
