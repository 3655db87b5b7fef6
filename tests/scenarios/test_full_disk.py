"""A gateway whose disk takes nothing more goes on serving, says what it cannot keep, and catches up once there is room.

The disk is full for one process alone: a limit on the size of its files (setrlimit(2)), under which every write fails.
"""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from federation.demo.asking import until
from federation.demo.clusters import Gateway
from federation.demo.world import World
from tests.scenarios.changes import REMOTE, add_service, gone, kill, listeners, reach
from tests.scenarios.traffic import answered_by, struck

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

FRESH = timedelta(seconds=27)
"""What is left of a certificate of 30 s that has just been renewed; the next renewal is due in 9 to 15 s."""


async def problems(gateway: Gateway) -> Sequence[str]:
    found: Sequence[str] = (await gateway.status())["problems"]
    return found


async def says(gateway: Gateway, part: str) -> None:
    """Wait until one of the gateway's problems has these words."""

    async def said() -> bool:
        return any(part in problem for problem in await problems(gateway))

    await until(f"`{part}` in the status", said, watch=(gateway.process,))


async def well(gateway: Gateway) -> None:
    async def is_well() -> bool:
        status = await gateway.status()
        return bool(status["envoy_live"]) and not status["problems"]

    await until("the end of the problems", is_well, watch=(gateway.process,))


async def expiry(gateway: Gateway) -> datetime:
    return datetime.fromisoformat((await gateway.status())["certificate_expires_at"])


def give_room(gateway: Gateway, size: int) -> None:
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@asynccontextmanager
async def without_log(gateway: Gateway) -> AsyncIterator[None]:
    """Its log is a file too, which Envoy shares; Envoy is killed for a write beyond its limit (SIGXFSZ)."""
    log = gateway.process.log
    try:
        await gateway.process.stop()
        gateway.process.log = Path(os.devnull)
        await gateway.process.start()
        await well(gateway)
        yield
    finally:
        await gateway.process.stop()
        gateway.process.log = log
        await gateway.process.start()


async def telemetry(gateway: Gateway, path: str) -> Any:
    address = f"{gateway.address.host}:9466"
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
        return await answer.text()


async def test_f26_gateway_on_a_full_disk_serves_says_so_and_recovers(hasty: World) -> None:
    """Meanwhile a service comes, Envoy dies, and the certificate is due."""
    gateway, other = hasty.clusters["west"].gateways
    async with without_log(gateway):
        to = await reach(hasty, "east", REMOTE)

        async def renewed() -> bool:
            return await expiry(gateway) - datetime.now(UTC) > FRESH

        await until("a renewal", renewed)
        before = await gateway.status()
        give_room(gateway, 0)

        add_service(hasty, "west", "late")
        await says(gateway, "resources.sqlite")
        await until("the new service's answer", answered_by(await reach(hasty, "east", "late"), "west"))
        listening = await listeners(gateway)

        async def kill_envoy() -> None:
            kill(before["envoy_pid"])
            await gone(before["envoy_pid"])

        async def returned() -> bool:
            status = await gateway.status()
            return bool(status["envoy_live"]) and await listeners(gateway) == listening

        async def wait() -> None:
            await until("the return of Envoy", returned, watch=(gateway.process,))

        found = await struck(to, kill_envoy, "west", wait)
        assert found.load.failed <= found.in_flight, str(found)

        await says(gateway, "the certificate cannot be renewed: cannot write")
        assert await expiry(gateway) == datetime.fromisoformat(before["certificate_expires_at"])
        assert "cannot be renewed" in await telemetry(gateway, "/readyz")
        assert "federation_gateway_renewal_failing 1.0" in await telemetry(gateway, "/metrics")
        found = await struck(to, do_nothing, "west")
        assert found.load.failed == 0, str(found)

        give_room(gateway, resource.RLIM_INFINITY)
        await well(gateway)
        assert await expiry(gateway) > datetime.fromisoformat(before["certificate_expires_at"])
        assert (await gateway.status())["pid"] == before["pid"]
        assert not await problems(other)
    await well(gateway)


async def do_nothing() -> None:
    """No fault but the one that is there."""
