"""Requests under which faults strike, and a connection that is there to stay."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from federation.demo.asking import until
from federation.demo.load import Load, request, running
from federation.listen import HostPort

AROUND = 1.0
"""Seconds of load before a fault and after its cure."""

PULSE = 0.05
"""Seconds between two exchanges on a connection that stays."""

PATIENCE = 10.0
"""Seconds that an exchange may take before the connection counts as dead; a fault of the path ends it sooner."""

QUESTION = b"GET / HTTP/1.1\r\nHost: kept.default\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Struck:
    """What a fault did to the requests around it."""

    load: Load
    in_flight: int
    last: frozenset[str]

    def __str__(self) -> str:
        failed = [one for one in self.load.answers if one.who is None]
        return (
            f"{self.load.failed} of {len(self.load.answers)} failed, {self.in_flight} in flight, "
            f"slowest {self.load.slowest * 1000:.0f} ms, last answers from {sorted(self.last)}; {failed[:3]}"
        )


async def struck(
    to: HostPort,
    fault: Callable[[], Awaitable[None]],
    who: str,
    cure: Callable[[], Awaitable[None]] | None = None,
) -> Struck:
    """Strike under 200 new connections a second, and go on until `who` answers and `cure` is over."""
    async with running(to) as load:
        await asyncio.sleep(AROUND)
        first = time.monotonic()
        await fault()
        last = time.monotonic()
        await until(f"an answer by {who}", answered_by(to, who))
        if cure is not None:
            await cure()
        await asyncio.sleep(AROUND)
    final = load.since(time.monotonic() - AROUND / 2).clusters
    return Struck(load, load.in_flight(first, last), frozenset(final))


def answered_by(to: HostPort, who: str) -> Callable[[], Awaitable[bool]]:
    async def answered() -> bool:
        return (await request(to)).who == who

    return answered


class Kept:
    """One connection that exchanges a question and an answer every 50 ms for as long as it lives."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.longest = 0.0
        self.who = ""
        self.ended = ""

    @property
    def lives(self) -> bool:
        return not self.ended

    async def goes_on(self, exchanges: int = 10) -> bool:
        """Whether that many more exchanges come through."""
        wanted = self.exchanges + exchanges

        async def done() -> bool:
            return bool(self.ended) or self.exchanges >= wanted

        await until("more exchanges", done)
        return self.lives

    async def run(self, to: HostPort) -> None:
        try:
            reader, writer = await asyncio.open_connection(to.host, to.port)
            try:
                while True:
                    await self._exchange(reader, writer)
                    await asyncio.sleep(PULSE)
            finally:
                writer.close()
        except (OSError, EOFError, TimeoutError) as error:
            self.ended = f"{type(error).__name__} after {self.exchanges} exchanges"

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            writer.write(QUESTION)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.who = (await reader.readexactly(length)).decode().removesuffix("\n")
        self.exchanges += 1
        self.longest = max(self.longest, time.monotonic() - began)


@asynccontextmanager
async def kept(to: HostPort) -> AsyncIterator[Kept]:
    """A connection that stays for the life of the context, once its first exchanges came through."""
    made = Kept()
    task = asyncio.create_task(made.run(to), name="kept-connection")
    try:
        assert await made.goes_on(3), made.ended
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
