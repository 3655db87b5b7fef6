"""Requests at a steady rate, each on a connection of its own, and what became of them.

Open loop: a slow answer does not slow the next request down, so a fault shows in full.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from federation.listen import HostPort

RATE = 200
"""New connections a second."""

DEADLINE = 5.0
"""Seconds after which a request counts as failed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it began (monotonic seconds), how long it took, and who answered; None: it failed."""

    began: float
    seconds: float
    who: str | None
    error: str = ""


@dataclass(slots=True)
class Load:
    """What the requests of one stretch brought."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(answer.who is None for answer in self.answers)

    @property
    def slowest(self) -> float:
        return max((answer.seconds for answer in self.answers), default=0.0)

    @property
    def clusters(self) -> Counter[str]:
        return Counter(answer.who for answer in self.answers if answer.who)

    def in_flight(self, first: float, last: float) -> int:
        """How many requests were under way at some time between `first` and `last` (monotonic seconds)."""
        return sum(answer.began <= last and answer.began + answer.seconds >= first for answer in self.answers)

    def since(self, moment: float) -> Load:
        return Load([answer for answer in self.answers if answer.began >= moment])


async def request(to: HostPort, deadline: float = DEADLINE) -> Answer:
    """One request on a new connection; who answers says so in one line."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline):
            body = await _get(to)
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        return Answer(began, time.monotonic() - began, None, type(error).__name__)
    return Answer(began, time.monotonic() - began, body)


async def _get(to: HostPort) -> str:
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: echo.default\r\nConnection: close\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        status, _, fields = head.partition(b"\r\n")
        if status.split(b" ")[1:2] != [b"200"]:
            raise ValueError(status.decode("ascii", "replace"))
        length = next(int(f[15:]) for f in fields.split(b"\r\n") if f.lower().startswith(b"content-length:"))
        return (await reader.readexactly(length)).decode().removesuffix("\n")
    finally:
        writer.close()


@asynccontextmanager
async def running(to: HostPort, rate: int = RATE) -> AsyncIterator[Load]:
    """Requests at `rate` a second for the life of the context; those under way at its end are waited for."""
    load = Load()
    stop = asyncio.Event()

    async def one() -> None:
        load.answers.append(await request(to))

    async def send() -> None:
        async with asyncio.TaskGroup() as requests:
            due = time.monotonic()
            while not stop.is_set():
                requests.create_task(one())
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    sender = asyncio.create_task(send(), name="demo-load")
    try:
        yield load
    finally:
        stop.set()
        await sender
