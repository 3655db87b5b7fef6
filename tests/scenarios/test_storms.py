"""F53: storms of closed and aborted connections on one service, and a long-lived tunnel of another one beside them.

All go through one gateway pair, and so through the same HTTP/2 connection. Envoy's default codec ends such a
connection, and every tunnel in it, at 1,000 reset streams in a burst and 33 a second after that.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from federation.demo.world import World
from federation.listen import HostPort
from tests.scenarios.changes import add_service, planned, reach, settled
from tests.scenarios.traffic import kept

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

COUNT = 2400
RATE = 400
"""Connections, and connections a second, of each storm."""

PATIENCE = 10.0

SERVER_FIRST, CLIENT_FIN, CLIENT_RST, SILENT = b"s", b"f", b"r", b"n"
ABORT = b""
"""What the client says at once, which is what the backend shall do; nothing said: it is gone before."""


@asynccontextmanager
async def backend(address: str) -> AsyncIterator[int]:
    """Answers one byte with one byte; whether it then closes, waits or never answers is up to that byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            asked = await reader.readexactly(1)
            if asked != SILENT:
                writer.write(asked)
                await writer.drain()
            if asked != SERVER_FIRST:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def connection(to: HostPort, kind: bytes) -> bool:
    """One connection of a storm; whether it was answered, where that is to be expected."""
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        if kind == ABORT:
            reset(writer)
            return True
        writer.write(kind)
        if kind == SILENT:
            await asyncio.sleep(0.02)
            reset(writer)
            return True
        answered = await reader.readexactly(1) == kind
        if kind == CLIENT_RST:
            reset(writer)
        elif kind == SERVER_FIRST:
            await reader.read()
        return answered
    finally:
        writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Make the coming close an RST (socket(7), SO_LINGER with a time of zero)."""
    opened: socket.socket = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def storm(to: HostPort, kind: bytes) -> int:
    """How many of the storm's connections were not answered."""
    failed = 0

    async def one() -> None:
        nonlocal failed
        try:
            async with asyncio.timeout(PATIENCE):
                failed += not await connection(to, kind)
        except (OSError, EOFError, TimeoutError):
            failed += 1

    loop = asyncio.get_running_loop()
    due = loop.time()
    async with asyncio.TaskGroup() as group:
        for _ in range(COUNT):
            group.create_task(one())
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
    return failed


async def test_f53_storms_leave_the_tunnels_of_other_services_alone(federation: World) -> None:
    central = federation.clusters["central"]
    add_service(federation, "central", "quiet")
    async with backend(str(central.network.network_address + 14)) as port:
        stormy = [str(central.network.network_address + 14)]
        add_service(federation, "central", "stormy", stormy, port=port)
        for name in ("quiet", "stormy"):
            await planned(federation, "east", name, {"central"})
        await settled(federation)
        to = await reach(federation, "east", "stormy")
        async with kept(await reach(federation, "east", "quiet")) as line:
            for kind in (SERVER_FIRST, CLIENT_FIN, CLIENT_RST, ABORT, SILENT):
                failed = await storm(to, kind)
                assert await line.goes_on(), f"{line.ended} in the storm {kind!r}"
                assert failed == 0, f"{failed} of {COUNT} in the storm {kind!r}"
            assert line.who == "central"
