"""`federation gateway`: its settings, and a stop that drains."""

from __future__ import annotations

import asyncio
from pathlib import Path

from federation.clock import Clock
from federation.config import GatewaySettings
from gateway import launcher
from gateway import settings as narrow
from pki.keys.passphrase import Passphrase


async def run(settings: GatewaySettings, passphrase: Passphrase | None, clock: Clock) -> None:
    """Run a gateway, its key encrypted with `passphrase` if there is one; a cancellation drains its Envoy first.

    Raises FederationError or PkiError if it cannot start.
    """
    stop = asyncio.Event()
    work = asyncio.create_task(launcher.run(_narrow(settings, passphrase), stop, clock), name="gateway")
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await work


def _narrow(settings: GatewaySettings, passphrase: Passphrase | None) -> narrow.GatewaySettings:
    return narrow.GatewaySettings(
        name=settings.name,
        directory=Path(settings.directory),
        advertise=settings.advertise,
        bind=settings.listen.address,
        bind_port=settings.listen.eastwest,
        telemetry=settings.listen.telemetry,
        token_file=settings.token,
        envoy=settings.envoy.path,
        concurrency=settings.envoy.concurrency,
        drain=settings.envoy.drain,
        passphrase=passphrase,
    )
