"""The peer that carries TCP over mutual TLS, without multiplexing: a HAProxy on each side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

from bench.credentials import Credentials
from bench.load import Tunnel
from bench.processes import SERVER_CPU, listening, loopback, program, running
from federation.listen import HostPort

CONFIGURATIONS = Path(__file__).parent / "configurations"
ENTRY = 20000
GATEWAY = 15443


@asynccontextmanager
async def pair(folder: Path, credentials: dict[str, Credentials], backend: HostPort) -> AsyncIterator[Tunnel]:
    """A HAProxy in east that takes connections, and one in west that hands them to `backend`."""
    east, west = loopback(2, (ENTRY, GATEWAY))
    entry, gateway = HostPort.of(east, ENTRY), HostPort.of(west, GATEWAY)
    source = _configuration(
        "haproxy-source",
        folder,
        entry=entry,
        gateway=gateway,
        combined=credentials["east"].combined,
        peer_anchor=credentials["west"].anchor,
    )
    destination = _configuration(
        "haproxy-destination",
        folder,
        gateway=gateway,
        backend=backend,
        combined=credentials["west"].combined,
        peer_anchor=credentials["east"].anchor,
    )
    command = (program("haproxy"), "-db", "-f")
    async with (
        running("haproxy-destination", (*command, str(destination)), folder, SERVER_CPU) as far,
        running("haproxy-source", (*command, str(source)), folder, SERVER_CPU) as near,
    ):
        await listening(far, gateway)
        await listening(near, entry)
        yield Tunnel("haproxy", entry, (near.pid, far.pid))


def _configuration(name: str, folder: Path, **values: object) -> Path:
    template = Template((CONFIGURATIONS / f"{name}.cfg").read_text())
    made = folder / f"{name}.cfg"
    made.write_text(template.substitute(values))
    return made
