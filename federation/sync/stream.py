"""One stream of an agent to a hub, from the welcome to its end: what comes in goes to its owner, what is due goes out.

A relayed batch is taken in piece by piece, and others run between two pieces. It is acknowledged when it is applied in
memory: whoever stores it may be behind, because the next stream begins with what the disk holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import grpc.aio
import structlog

from federation.admit import Refused
from federation.clock import Clock
from federation.errors import FederationError
from federation.events import BeatHeard, Event, MemberChanged
from federation.model import HUB, Position
from federation.questions import Question
from federation.sync import channel, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import SyncError
from federation.sync.importer import Heard, Importer, Taken
from federation.sync.protocol import Counts, Outbound, Seen, beat_count
from federation.sync.publisher import Publisher
from federation.sync.refusals import Refusal, Refusals
from federation.sync.words import Slot, Words
from pki.bundle import Bundle

MOST_QUESTIONS = 16
"""Directives that are answered at the same time; more are answered with 503."""
LONGEST_ANSWER = 1024 * 1024
"""Bytes of the body of a report."""
MOST_WAITING = 4 * LONGEST_ANSWER
"""Bytes that may wait for the hub besides batches, which do not wait."""

LAST_WORDS = 2.0
"""Seconds that a stream which is to be replaced has for the answers that it owes."""

log = structlog.get_logger()

Call = grpc.aio.StreamStreamCall[bytes, pb.FromHub]


class Memory(Protocol):
    """What has to survive a restart of the agent. Facts are noted before the cursor that promises them."""

    async def raise_epoch(self, epoch: int) -> None:
        """Return when `epoch` is durable."""
        ...

    def hear(self, heard: Heard) -> None: ...

    def forget(self, owner: str, key: str) -> None: ...

    def believe(self, owner: str, bundle: Bundle) -> None:
        """Keep it whatever is forgotten of its owner; a later one takes its place."""
        ...

    def reach(self, owner: str, cursor: Position) -> None: ...


@dataclass(frozen=True, slots=True)
class Inside:
    """What the agent is made of, as a stream sees it: events go to `submit`, questions of the hub to `answer` (path:
    status, body), what comes is remembered in `memory`. `counts` and `beats` outlive a stream."""

    publisher: Publisher
    importer: Importer
    memory: Memory
    submit: Callable[[Event], None]
    answer: Callable[[Question], Awaitable[tuple[int, bytes]]]
    counts: Counts
    beats: Iterator[int]
    clock: Clock


class Stream:
    """`outbound` is how far `hub` has taken in what we say."""

    def __init__(self, hub: str, call: Call, outbound: Outbound, inside: Inside) -> None:
        self.outbound = outbound
        self._hub = hub
        self._call = call
        self._inside = inside
        self._words = Words(MOST_WAITING)
        self._wake = asyncio.Event()
        self._unread = asyncio.Event()
        self._questions: set[asyncio.Task[None]] = set()
        self._seen: dict[str, Seen | None] = {}
        self._refused = Refusals()
        self._ending = False

    async def run(self, replaced: asyncio.Event) -> None:
        """Return when the stream is to be `replaced`, and what was asked on it is answered. Raises SyncError,
        AioRpcError or TimeoutError if it ends.
        """
        conversation = [
            asyncio.create_task(self._read(), name="sync-read"),
            asyncio.create_task(self._write(), name="sync-write"),
        ]
        tasks = [
            *conversation,
            asyncio.create_task(self._beat(), name="sync-beat"),
            asyncio.create_task(self._watch(), name="sync-watch"),
            asyncio.create_task(replaced.wait(), name="sync-replaced"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if replaced.is_set():
                await self._finish(conversation)
                return
            for task in done:
                if not task.cancelled():
                    task.result()
            if any(
                task.cancelled() for task in done
            ):  # not by us: gRPC gave the call up, and its reader with it
                raise SyncError(self._hub, "the stream was given up")
        finally:
            for task in (*tasks, *self._questions):
                task.cancel()
            await asyncio.gather(*tasks, *self._questions, return_exceptions=True)

    async def _finish(self, conversation: Iterable[asyncio.Task[None]]) -> None:
        """Say what is still to be said, as whoever asked may have asked for the very change that replaces this stream,
        and let the hub hear all of it: it ends the stream after us.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                while self._questions:
                    await asyncio.wait(self._questions)
                self._ending = True
                self._wake.set()
                await asyncio.wait(conversation)

    def wake(self) -> None:
        """There may be something to publish."""
        self._wake.set()

    # ---- in ---------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await read(self._hub, self._call, channel.SILENCE)
            if message.WhichOneof("message") == "relay":
                await self._take_in(message.relay)
            else:
                self._receive(message)

    def _receive(self, message: pb.FromHub) -> None:
        kind = message.WhichOneof("message")
        if kind != "refusal":
            self._log_refused()
        match kind:
            case "ack":
                at = wire.read_position(message.ack.at, self._hub)
                self.outbound = self.outbound.acknowledged(self._hub, at)
                self._wake.set()
            case "beat":
                beat = message.beat
                if beat.owner != HUB and self._inside.counts.rose(beat.owner, beat.count):
                    self._inside.submit(BeatHeard(beat.owner, beat.count))
            case "directive":
                self._ask(message.directive)
            case "refusal":
                said = message.refusal
                refusal = Refusal.of(said.key, said.seq, Refused(said.rule, said.detail))
                self._refused.add((refusal,))
                self._inside.publisher.refuse(refusal)

    async def _take_in(self, batch: pb.Batch) -> None:
        refused = Refusals()
        for piece in wire.read_batch(batch, self._hub):
            self._seen[piece.owner], taken = self._inside.importer.apply(piece, self._seen.get(piece.owner))
            self._hand_on(taken)
            refused.add(taken.refused)
            await asyncio.sleep(0)
        if refused:
            log.warning(
                "refused what the hub relays", owner=batch.owner, count=len(refused), first=refused.first()
            )
        self._say(("ack", taken.owner), pb.FromAgent(ack=wire.have(taken.owner, taken.cursor)))

    def _hand_on(self, taken: Taken) -> None:
        memory, publisher = self._inside.memory, self._inside.publisher
        if taken.believed is not None:
            memory.believe(taken.owner, taken.believed)
        for heard in taken.heard:
            memory.hear(heard)
        for key in taken.forgotten:
            memory.forget(taken.owner, key)
        memory.reach(taken.owner, taken.cursor)
        for event in taken.events:
            self._inside.submit(event)
            if isinstance(event, MemberChanged) and event.member.name == publisher.feed.owner:
                publisher.say_refused_again()

    def _log_refused(self) -> None:
        """Refusals come one by one; they are told together when something else comes."""
        if self._refused:
            log.warning(
                "the hub refused entries of ours", count=len(self._refused), first=self._refused.first()
            )
            self._refused = Refusals()

    def _ask(self, directive: pb.Directive) -> None:
        if len(self._questions) >= MOST_QUESTIONS:
            self._report(directive, 503, b"")
            return
        task = asyncio.create_task(self._answer(directive), name=f"sync-answer-{directive.id}")
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _answer(self, directive: pb.Directive) -> None:
        try:
            question = Question(directive.path, directive.method or "GET", directive.body, directive.actor)
            status, body = await self._inside.answer(question)
        except FederationError as error:
            log.error("cannot answer the hub", path=directive.path, problem=str(error))
            status, body = 500, b""
        if len(body) > LONGEST_ANSWER:
            status, body = 507, b""
        self._report(directive, status, body)

    # ---- out --------------------------------------------------------------------------------------------------------

    def _report(self, directive: pb.Directive, status: int, body: bytes) -> None:
        if not self._words.fits(len(body)):
            status, body = 503, b""
        report = pb.Report(id=directive.id, status=status, body=body)
        self._say(("report", directive.id), pb.FromAgent(report=report))

    def _say(self, slot: Slot, message: pb.FromAgent) -> None:
        self._words.put(slot, message.SerializeToString())
        self._wake.set()
        if self._words.too_many:
            self._unread.set()

    async def _watch(self) -> None:
        await self._unread.wait()
        raise SyncError(self._hub, "it does not read what it asks for")

    async def _write(self) -> None:
        while True:
            message = self._next()
            if message is None and self._ending:
                await self._call.done_writing()
                return
            if message is None:
                await self._wake.wait()
                self._wake.clear()
                continue
            async with asyncio.timeout(channel.WRITE_TIMEOUT):
                await self._call.write(message)

    def _next(self) -> bytes | None:
        if (word := self._words.take()) is not None or self._ending:
            return word
        if not self._inside.publisher.listed:
            return None
        self.outbound, batch = self.outbound.next(self._inside.publisher.feed)
        return None if batch is None else wire.publish(batch)

    async def _beat(self) -> None:
        feed = self._inside.publisher.feed
        for beats in self._inside.beats:
            count = beat_count(feed.epoch, beats)
            beat = pb.Beat(owner=feed.owner, at=wire.position(feed.position), count=count)
            self._say(("beat", feed.owner), pb.FromAgent(beat=beat))
            await self._inside.clock.sleep(channel.BEAT)


async def read(hub: str, call: Call, patience: float) -> pb.FromHub:
    """The next message. Raises SyncError when the stream has ended, TimeoutError after `patience` seconds."""
    async with asyncio.timeout(patience):
        message: object = await call.read()
    if not isinstance(message, pb.FromHub):
        raise SyncError(hub, f"{(await call.code()).name}: {await call.details()}")
    return message
