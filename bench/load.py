"""Requests through a tunnel, and what they cost the proxies of it: the same generator and backend for every side.

wrk asks as fast as it is answered; HAProxy is the backend, because it answers at once and is needed as a peer anyway.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench.harness import Cost
from bench.processes import LOAD_CPU, cpu_seconds, listening, program, running
from federation.errors import FederationError
from federation.listen import HostPort


class Connections(Enum):
    """`KEPT`: many requests on one connection. `NEW`: one request each."""

    KEPT = "kept"
    NEW = "new"


CLIENTS = 64
"""Client connections at a time. The fewer there are, the less a shared connection saves: with kept ones the gateways
cost as much as HAProxy at about 16, more with less, and a quarter less at 64."""
SLICE = 1
"""Seconds of load at a time."""

_BACKEND = """\
global
    nbthread 1
    maxconn 1000
defaults
    mode http
    timeout client 1h
    timeout server 1h
    timeout connect 5s
frontend backend
{binds}
    http-request return status 200 content-type text/plain string "{answer}"
"""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One way from a client to a backend: where the client connects, and the proxies on that way."""

    name: str
    entry: HostPort
    proxies: tuple[int, ...]


@asynccontextmanager
async def backend(folder: Path, addresses: Sequence[HostPort], answer: str) -> AsyncIterator[None]:
    """An HTTP server that answers every request on `addresses` with `answer`."""
    binds = "\n".join(f"    bind {address}" for address in addresses)
    config = folder / "backend.cfg"
    config.write_text(_BACKEND.format(binds=binds, answer=answer))
    async with running(
        "backend", (program("haproxy"), "-db", "-f", str(config)), folder, LOAD_CPU
    ) as process:
        for address in addresses:
            await listening(process, address)
        yield


async def cost(tunnel: Tunnel, connections: Connections) -> Cost:
    """CPU of all proxies of the tunnel in one slice, in microseconds, and the requests that they carried."""
    before = cpu_seconds(tunnel.proxies)
    answered = await requests(tunnel.entry, connections)
    return Cost((cpu_seconds(tunnel.proxies) - before) * 1e6, answered)


async def requests(entry: HostPort, connections: Connections) -> int:
    """How many requests were answered in one slice. Raises FederationError if one of them failed."""
    command = [program("wrk"), "--threads", "1", "--connections", str(CLIENTS), "--duration", f"{SLICE}s"]
    if connections is Connections.NEW:
        command += ["--header", "Connection: close"]
    wrk = await asyncio.create_subprocess_exec(
        *command,
        f"http://{entry}/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}),
    )
    try:
        said = (await wrk.communicate())[0].decode()
    finally:
        if wrk.returncode is None:
            wrk.kill()
            await wrk.wait()
    answered = re.search(r"(\d+) requests in", said)
    if (
        wrk.returncode != 0
        or answered is None
        or int(answered[1]) == 0
        or "Socket errors" in said
        or "Non-2xx" in said
    ):
        raise FederationError(f"requests to {entry} failed: {' / '.join(said.split(chr(10)))}")
    return int(answered[1])
