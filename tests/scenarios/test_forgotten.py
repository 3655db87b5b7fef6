"""An agent that lost its memory, and kept its identity, takes nothing from its gateways and nothing from its peers."""

from __future__ import annotations

import asyncio
import signal

import pytest

from federation.demo.asking import ask, until
from federation.demo.clusters import Cluster
from federation.demo.load import running
from federation.demo.world import World
from tests.scenarios.changes import listeners, planned, reach, settled
from tests.scenarios.test_cold_start import ready
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def forget(cluster: Cluster) -> None:
    """Kill the agent, delete what it knows, and start it again."""
    await cluster.agent.kill()
    for file in (cluster.folder / "agent").glob("agent.db*"):
        file.unlink()
    await cluster.agent.start()


async def waits_for(cluster: Cluster, what: str, *, because: str = "gateways are not served yet") -> None:
    """Until the agent says that it waits for `what`, and what is not done because of that."""

    async def told() -> bool:
        problems = (await ask(cluster.socket, "/v1/status"))["problems"]
        return any(because in one and what in one for one in problems)

    await until(f"{cluster.name} waiting for {what}", told, watch=(cluster.agent,))


async def test_gateways_lose_nothing_to_an_agent_that_remembers_nothing(federation: World) -> None:
    """The hub is dead when it starts, and when the hub returns, the exporter's agent is still missing."""
    east, west = federation.clusters["east"], federation.clusters["west"]
    (gateway,) = east.gateways
    to = await reach(federation, "east", "remote")
    listening, imports = await listeners(gateway), await east.imports()
    await federation.hub.kill()
    await west.agent.kill()
    async with running(to) as load:
        await forget(east)

        async def reported() -> bool:
            seen = (await ask(east.socket, "/v1/status"))["gateways"]
            return [gateway["state"] for gateway in seen] == ["serving"]

        await until("the gateway's report", reported, watch=(east.agent,))
        await waits_for(east, "its own record from the hub")
        assert await ready(federation, "east") == 503
        await federation.hub.start()
        await waits_for(east, "the first word of west (")
        assert await listeners(gateway) == listening
        await west.agent.start()
        await until("the agents' return", federation.served, watch=(federation.hub, east.agent))
        await planned(federation, "east", "remote", {"west", "central"})
        await settled(federation)
        await asyncio.sleep(0.5)
    assert load.failed == 0
    assert set(load.clusters) == {"west"}
    assert await ready(federation, "east") == 200
    assert await listeners(gateway) == listening
    assert await east.imports() == imports


async def test_peers_lose_nothing_to_an_agent_that_remembers_nothing(federation: World) -> None:
    """Not even the addresses of its gateways, of which it knows nothing before they report."""
    west = federation.clusters["west"]
    to = await reach(federation, "east", "remote")
    async with running(to) as load:
        await forget(west)
        await until("the agents' return", federation.served, watch=(west.agent,))
        await until("an answer of west", answered_by(to, "west"))
        await settled(federation)
    assert load.failed == 0
    assert set(load.clusters) == {"west"}


async def test_peers_lose_nothing_to_an_agent_that_forgets_and_dies_once_more(federation: World) -> None:
    """Its new epoch is on disk when it dies again; of its gateways, which cannot report, it knows nothing still."""
    west = federation.clusters["west"]
    to = await reach(federation, "east", "remote")
    async with running(to) as load:
        for gateway in west.gateways:
            gateway.process.signal(signal.SIGSTOP)
        try:
            await forget(west)
            await waits_for(west, "a gateway of this cluster", because="the others are not told yet")
            await west.agent.kill()
            await west.agent.start()
            await waits_for(west, "a gateway of this cluster", because="the others are not told yet")
        finally:
            for gateway in west.gateways:
                gateway.process.signal(signal.SIGCONT)
        await until("the agents' return", federation.served, watch=(west.agent,))
        await until("an answer of west", answered_by(to, "west"))
        await settled(federation)
    assert load.failed == 0
    assert set(load.clusters) == {"west"}
