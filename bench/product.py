"""The product as one side of a benchmark: the demo's processes, configured by nothing but their agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bench.load import Tunnel, backend
from bench.processes import SERVER_CPU, pin
from federation.demo.asking import until
from federation.demo.clusters import ECHO, Gateway
from federation.demo.load import request
from federation.demo.processes import Process
from federation.demo.world import World, world
from federation.listen import HostPort

ECHO_PORT = f"{ECHO}:80"
IN_A_ROW = 50
"""Answers by the same cluster, one after the other, after which a change is over."""


@asynccontextmanager
async def product(folder: Path) -> AsyncIterator[World]:
    """The demo's three clusters, each reaching every other."""
    home = folder / "demo"
    home.mkdir(mode=0o700)
    async with world(home, lambda _: None) as running:
        yield running


async def entry(of: World) -> HostPort:
    """Where clients in east reach the sample service."""
    return HostPort.parse((await of.clusters["east"].imports())[ECHO_PORT])


def local_backends(of: World) -> tuple[Process, ...]:
    """The sample service's processes in east."""
    return tuple(backend.process for backend in of.clusters["east"].of("echo"))


async def pids(gateway: Gateway) -> tuple[int, int]:
    """Of a gateway and its Envoy."""
    return gateway.process.pid, int((await gateway.status())["envoy_pid"])


async def leave_one_gateway(of: World) -> Gateway:
    """Stop all gateways of west but the first, which is returned."""
    first, *others = of.clusters["west"].gateways
    for gateway in others:
        await gateway.process.stop()
    return first


@asynccontextmanager
async def tunnel(folder: Path) -> AsyncIterator[tuple[Tunnel, HostPort]]:
    """The way from a client in east to a backend in west, and that backend's address: one gateway on each side."""
    async with product(folder) as running:
        addresses = [one.address for one in running.clusters["west"].of("echo")]
        for process in (
            *local_backends(running),
            *(one.process for one in running.clusters["west"].of("echo")),
        ):
            await process.kill()
        far = await leave_one_gateway(running)
        async with backend(folder, addresses, "west"):
            near = running.clusters["east"].gateways[0]
            envoys = ((await pids(near))[1], (await pids(far))[1])
            pin(envoys, SERVER_CPU)
            listener = await entry(running)
            await settled(listener, "west")
            yield Tunnel("product", listener, envoys), addresses[0]


async def settled(listener: HostPort, cluster: str) -> None:
    """Wait until requests are answered by `cluster`, and only by it. Raises FederationError if that does not come."""
    await until(f"steady answers by {cluster}", _steady(listener, cluster))


def _steady(listener: HostPort, cluster: str) -> Callable[[], Awaitable[bool]]:
    async def steady() -> bool:
        for _ in range(IN_A_ROW):
            if (await request(listener)).who != cluster:
                return False
            await asyncio.sleep(0.01)
        return True

    return steady
