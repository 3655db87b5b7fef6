"""What the gateways of both clusters burn for a request that crosses from one to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench import credentials, haproxy, product, reference
from bench.harness import Judged, Row, alternate
from bench.load import Connections, Tunnel, cost
from federation.listen import HostPort

SLICES = 5
_NOBODY = HostPort("127.0.0.1:9")
"""The discard port: there is no backend but west's."""


async def tunnel_cpu(folder: Path) -> list[Row]:
    """Both Envoys, configured by agents, against both Envoys of the static reference."""
    credentials.write(folder, ("east", "west", "central"))
    async with (
        product.tunnel(folder) as (ours, backend),
        reference.reference(folder, {"east": _NOBODY, "west": backend, "central": _NOBODY}) as static,
    ):
        await product.settled(static.entry, "west")
        return [await _against(ours, static.tunnel, "tunnel-cpu", kind, 1.03) for kind in Connections]


async def haproxy_kept(folder: Path) -> list[Row]:
    """Many requests on one connection, against HAProxy."""
    async with _beside_haproxy(folder) as (ours, peer):
        return [await _against(ours, peer, "haproxy", Connections.KEPT, 0.9)]


async def haproxy_new(folder: Path) -> list[Row]:
    """A new connection for each request, against HAProxy, which makes a TLS handshake for each."""
    async with _beside_haproxy(folder) as (ours, peer):
        return [await _against(ours, peer, "haproxy", Connections.NEW, 0.25)]


@asynccontextmanager
async def _beside_haproxy(folder: Path) -> AsyncIterator[tuple[Tunnel, Tunnel]]:
    written = credentials.write(folder, ("east", "west"))
    async with product.tunnel(folder) as (ours, backend), haproxy.pair(folder, written, backend) as peer:
        yield ours, peer


async def _against(ours: Tunnel, peer: Tunnel, name: str, kind: Connections, goal: float) -> Row:
    mine, theirs = await alternate(lambda: cost(ours, kind), lambda: cost(peer, kind), SLICES)
    note = f"CPU of both gateways a request, {kind.value} connections, against {peer.name}"
    return Row(f"{name}-{kind.value}", "µs", mine, theirs, Judged.RATIO, goal, note)
