"""Gateways that are told to stop, and Envoys that do not stay up."""

from __future__ import annotations

import signal
import time
from contextlib import AsyncExitStack

import pytest

from federation.demo.asking import until
from federation.demo.load import running
from federation.demo.world import World
from tests.scenarios.changes import REMOTE, alive, gone, kill, listeners, reach
from tests.scenarios.conftest import DRAIN
from tests.scenarios.traffic import answered_by, kept

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

LINES = 8
"""Connections that stay: enough for both gateways of west to have some."""

CRASHES = 4


async def test_f8_gateway_told_to_stop_fails_no_request_and_lets_tunnels_live_for_the_drain_time(
    hasty: World,
) -> None:
    gateway, other = hasty.clusters["west"].gateways
    envoy = (await gateway.status())["envoy_pid"]
    to = await reach(hasty, "east", REMOTE)
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(kept(to)) for _ in range(LINES)]
        assert {line.who for line in lines} == {"west"}
        async with running(to) as load:
            began = time.monotonic()
            gateway.process.signal(signal.SIGTERM)

            async def one_ended() -> bool:
                return not all(line.lives for line in lines)

            await until("the end of the drained gateway's tunnels", one_ended)
            lived = time.monotonic() - began
            await gone(gateway.process.pid, envoy)
            await until("west's answer", answered_by(to, "west"), watch=(other.process,))
        assert lived >= DRAIN
        assert load.failed == 0, [one for one in load.answers if one.who is None][:5]
        assert set(load.clusters) == {"west"}
        assert any([await line.goes_on() for line in lines]), "the other gateway's tunnels stay"


async def test_envoy_that_dies_again_and_again_is_started_again(federation: World) -> None:
    """The gateway stays, waits longer each time, and says how often it happened."""
    gateway = federation.clusters["central"].gateways[0]
    before = await gateway.status()
    listening = await listeners(gateway)
    killed: set[int] = set()
    for _ in range(CRASHES):
        pid = await _next(federation, killed)
        kill(pid)
        await gone(pid)
        killed.add(pid)

    async def returned() -> bool:
        status = await gateway.status()
        return bool(status["envoy_live"]) and await listeners(gateway) == listening

    await until("the return of Envoy", returned, watch=(gateway.process,))
    after = await gateway.status()
    assert after["envoy_crashes"] == before["envoy_crashes"] + CRASHES
    assert after["pid"] == before["pid"]
    assert len(killed) == CRASHES


async def _next(world: World, killed: set[int]) -> int:
    """An Envoy of central's gateway that was not killed yet, as soon as there is one."""
    found: list[int] = []

    async def started() -> bool:
        pid = (await world.clusters["central"].gateways[0].status())["envoy_pid"]
        if pid is not None and pid not in killed and alive(pid):
            found.append(pid)
        return bool(found)

    await until("another start of Envoy", started)
    return found[0]
