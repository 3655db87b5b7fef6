"""What clients notice when something dies: failed requests and the slowest one, beside the static reference.

200 new connections a second, one request each, in an open loop. A request may fail only if it was under way at the
instant of the fault. Instants are drawn at random, so every phase of PINGs, probes and retries is met.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import credentials, product
from bench.harness import Judged, Row
from bench.processes import loopback
from bench.reference import Reference, reference
from federation.demo.load import Load, running
from federation.demo.processes import Process
from federation.listen import HostPort
from gateway.tuning import PathTuning

FREEZES = 10
FAILOVERS = 5
SETTLE = 1.0
"""Seconds of load before a fault."""
AFTER = 2.5
"""Seconds of load after one: more than twice what it may cost."""

SLOWEST_FROZEN = PathTuning().ping_interval + PathTuning().ping_timeout + 0.150
"""Seconds: a PING is sent, is not answered, and the retry is answered by the next cluster."""


@dataclass(frozen=True, slots=True)
class Site:
    """One side: where clients come in, the local backends, and how to find and restart the gateway in use.

    `west` gives the pids of everything that is west's one gateway.
    """

    name: str
    entry: HostPort
    local: Sequence[Process]
    gateway: Process
    west: Callable[[], Awaitable[Sequence[int]]]

    async def signal(self, number: signal.Signals) -> None:
        for pid in await self.west():
            os.kill(pid, number)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one fault: requests that failed beyond those that were in flight, and the slowest one, in seconds."""

    beyond: int
    failed: int
    slowest: float


async def freeze(folder: Path) -> list[Row]:
    """West's gateway is stopped in its tracks (SIGSTOP) while it is in use; central takes over."""
    async with _sites(folder) as sites:
        outcomes: dict[str, list[Outcome]] = {site.name: [] for site in sites}
        for site in sites:
            await _kill(site.local)
        for _ in range(FREEZES):
            for site in sites:
                outcomes[site.name].append(await _frozen(site))
        return _rows("freeze", outcomes, SLOWEST_FROZEN)


async def failover(folder: Path) -> list[Row]:
    """The local backends are killed, and then west's gateway."""
    async with _sites(folder) as sites:
        backends: dict[str, list[Outcome]] = {site.name: [] for site in sites}
        gateways: dict[str, list[Outcome]] = {site.name: [] for site in sites}
        for _ in range(FAILOVERS):
            for site in sites:
                await product.settled(site.entry, "east")
                backends[site.name].append(await _struck(site, partial(_kill, site.local)))
                await product.settled(site.entry, "west")
                gateways[site.name].append(await _struck(site, partial(site.signal, signal.SIGKILL)))
                await product.settled(site.entry, "central")
                for process in (site.gateway, *site.local):
                    await process.kill()
                    await process.start()
        return _rows("failover-backend", backends, None) + _rows("failover-gateway", gateways, None)


def _rows(name: str, outcomes: dict[str, list[Outcome]], slowest: float | None) -> list[Row]:
    ours, peer = outcomes["product"], outcomes["reference"]
    failed = f"{sum(one.failed for one in ours)}; {sum(one.failed for one in peer)} in the reference"
    return [
        Row(
            f"{name}-failed",
            "requests",
            tuple(float(one.beyond) for one in ours),
            tuple(float(one.beyond) for one in peer),
            Judged.WORST,
            0.0,
            f"failed beyond those in flight (all that failed: {failed})",
        ),
        Row(
            f"{name}-slowest",
            "ms",
            tuple(one.slowest * 1000 for one in ours),
            tuple(one.slowest * 1000 for one in peer),
            Judged.WORST,
            None if slowest is None else slowest * 1000,
            "slowest request",
        ),
    ]


async def _frozen(site: Site) -> Outcome:
    await product.settled(site.entry, "west")
    stopped = await site.west()
    try:
        return await _struck(site, partial(site.signal, signal.SIGSTOP))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


async def _struck(site: Site, fault: Callable[[], Awaitable[None]]) -> Outcome:
    async with running(site.entry) as load:
        await asyncio.sleep(SETTLE + random.random())
        moments = [time.monotonic()]
        await fault()
        moments.append(time.monotonic())
        await asyncio.sleep(AFTER)
    return _outcome(load, moments)


def _outcome(load: Load, moments: Sequence[float]) -> Outcome:
    in_flight = load.in_flight(min(moments), max(moments))
    return Outcome(max(0, load.failed - in_flight), load.failed, load.slowest)


async def _kill(processes: Sequence[Process]) -> None:
    for process in processes:
        await process.kill()


@asynccontextmanager
async def _sites(folder: Path) -> AsyncIterator[tuple[Site, Site]]:
    credentials.write(folder, ("east", "west", "central"))
    async with product.product(folder) as world, _reference(folder) as (static, local):
        gateway = await product.leave_one_gateway(world)
        yield (
            Site(
                "product",
                await product.entry(world),
                product.local_backends(world),
                gateway.process,
                lambda: product.pids(gateway),
            ),
            Site("reference", static.entry, (local,), static.envoys["west"], lambda: _pids(static)),
        )


async def _pids(static: Reference) -> tuple[int, ...]:
    return (static.envoys["west"].pid,)


@asynccontextmanager
async def _reference(folder: Path) -> AsyncIterator[tuple[Reference, Process]]:
    """The reference with backends as the demo has them, and its local one."""
    names = ("east", "west", "central")
    addresses = {
        name: HostPort.of(host, 8080) for name, host in zip(names, loopback(3, (8080,)), strict=True)
    }
    backends = {
        name: Process(
            f"reference-{name}-backend",
            (sys.executable, "-m", "federation.demo.backend", address.host, str(address.port), name),
            folder / f"reference-{name}-backend.log",
        )
        for name, address in addresses.items()
    }
    try:
        for backend in backends.values():
            await backend.start()
        async with reference(folder, addresses) as static:
            yield static, backends["east"]
    finally:
        await _kill(tuple(backends.values()))
