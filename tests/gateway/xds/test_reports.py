"""The report stream in both directions: what changes is said at once, on both sides, and nobody is asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from federation.clock import SystemClock
from federation.retry import Backoff
from gateway.report_pb2 import GatewayReport, ReportAck
from gateway.xds.channel import CLIENT
from gateway.xds.latest import Latest
from gateway.xds.reports import REPEAT, Reporting, ReportServer
from gateway.xds.server import Client, new_server

PATIENCE = 30.0


@dataclass
class Pair:
    """An agent's side and one gateway's: what each has heard of the other."""

    server: ReportServer
    reports: Latest[GatewayReport]
    issuer: bytes = b"old"
    words: list[ReportAck] = field(default_factory=list)
    heard: list[GatewayReport] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, holds: Callable[[ReportAck], bool]) -> ReportAck:
        """The newest word, as soon as there is one and it is as wanted."""
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(lambda: self.words and holds(self.words[-1]))
        return self.words[-1]


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[Pair]:
    address = f"unix:{folder / 'reports'}"
    server = ReportServer(
        lambda chain: Client("x", "eastwest", "gateway-1"),
        lambda client, report: made.heard.append(report),
        word=lambda client: ReportAck(issuer=made.issuer),
    )
    made = Pair(server, Latest(GatewayReport(instance="gateway-1")))

    async def told(word: ReportAck) -> None:
        async with made.changed:
            made.words.append(word)
            made.changed.notify_all()

    served = new_server(server.handler())
    served.add_insecure_port(address)
    await served.start()
    reporting = Reporting(
        lambda: ("", grpc.aio.insecure_channel(address, options=CLIENT)), made.reports, told
    )
    running = asyncio.create_task(reporting.run(Backoff(SystemClock(), 0.1, 1.0)), name="reporting")
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await served.stop(None)


async def test_a_word_that_changes_is_said_without_being_asked(tmp_path: Path) -> None:
    async with pair(tmp_path) as found:
        first = await found.until(lambda word: word.issuer == b"old")
        found.issuer = b"new"
        found.server.tell()
        second = await found.until(lambda word: word.issuer == b"new")
        assert (first.received, second.received) == (1, 1), "no further report came in between"
        assert len(found.heard) == 1


async def test_a_report_that_changes_is_sent_at_once_also_after_words_that_nobody_asked_for(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as found:
        await found.until(lambda word: word.received == 1)
        began = asyncio.get_running_loop().time()
        for number in range(2, 22):
            found.server.tell()
            found.reports.publish(GatewayReport(instance="gateway-1", port=number))
            await found.until(lambda word: word.received == found.reports.value.port)
        assert asyncio.get_running_loop().time() - began < 20 * REPEAT, "none of them waited for its turn"
