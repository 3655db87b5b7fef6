"""The agent's end of the stream to a hub: it tells what we own and hands on what others say, for as long as it runs.

The channel trusts the anchors of the hub's own trust domain and nothing else, and demands the DNS SAN
`federation.<that trust domain>`. grpcio shows a client no certificate, so the SPIFFE ID is not looked at here; the DNS
SAN says the same, because an authority gives it to `/federation` alone, and only the hub's authority is trusted.

A new channel is made for every attempt, with the certificate and the anchors of that moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio
import structlog

from federation.admit import Refused
from federation.clock import Clock
from federation.errors import FederationError
from federation.events import BeatHeard, Event, HubChanged, MemberChanged
from federation.listen import HostPort
from federation.model import HUB, Position
from federation.retry import Backoff
from federation.sync import channel, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation, SyncError
from federation.sync.importer import Heard, Importer, Taken
from federation.sync.protocol import VERSION, Counts, Outbound, Seen, beat_count
from federation.sync.publisher import Publisher
from federation.sync.relay import Refusal
from pki.errors import ClockError
from pki.skew import check_skew
from pki.spiffe import TrustDomain

SHORTEST_WAIT = 0.2
LONGEST_WAIT = 15.0
"""Seconds between two attempts to reach the hub."""
MOST_QUESTIONS = 16
"""Directives that are answered at the same time; more are answered with 503."""
LONGEST_ANSWER = 1024 * 1024
"""Bytes of the body of a report."""

log = structlog.get_logger()

Call = grpc.aio.StreamStreamCall[bytes, pb.FromHub]


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM: our own chain and key, and the anchors of the hub's trust domain."""

    anchors: bytes
    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Credentials(…)"


class Memory(Protocol):
    """What has to survive a restart of the agent. Facts are noted before the cursor that promises them."""

    async def raise_epoch(self, epoch: int) -> None:
        """Return when `epoch` is durable."""
        ...

    def hear(self, heard: Heard) -> None: ...

    def forget(self, owner: str, key: str) -> None: ...

    def reach(self, owner: str, cursor: Position) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What the client is joined to: events go to `submit`, questions of the hub to `answer` (path: status, body)."""

    credentials: Callable[[], Credentials]
    memory: Memory
    submit: Callable[[Event], None]
    answer: Callable[[str], Awaitable[tuple[int, bytes]]]


class SyncClient:
    """One hub's client. `problem` says in one sentence why it is not connected, or what is odd though it is."""

    def __init__(
        self,
        hub: HostPort,
        domain: TrustDomain,
        publisher: Publisher,
        importer: Importer,
        ports: Ports,
        clock: Clock,
    ) -> None:
        self.hub = hub
        self.connected = False
        self.problem: str | None = "not connected yet"
        self._server_name = f"federation.{domain}"
        self._publisher = publisher
        self._importer = importer
        self._ports = ports
        self._clock = clock
        self._stream: _Stream | None = None
        self._refreshed = asyncio.Event()
        self._counts = Counts()
        self._beats = 0
        publisher.changed = self._publish

    @property
    def acknowledged(self) -> Position:
        """How far the hub has taken in what we say."""
        return Position() if self._stream is None else self._stream.outbound.cursor

    def refresh(self) -> None:
        """Our certificate or the hub's anchors changed: connect anew with them."""
        self._refreshed.set()

    async def run(self) -> None:
        """Stay connected, for ever."""
        backoff = Backoff(self._clock, SHORTEST_WAIT, LONGEST_WAIT)
        while True:
            self._refreshed.clear()
            try:
                await self._connect()
                continue
            except FederationError as error:
                self._down(error.problem)
            await backoff.wait()

    async def _connect(self) -> None:
        """One stream, from dialling to its end. Returns when it is to be replaced; raises SyncError."""
        credentials = self._ports.credentials()
        tls = grpc.ssl_channel_credentials(credentials.anchors, credentials.key, credentials.chain)
        dialled = grpc.aio.secure_channel(str(self.hub), tls, options=channel.client(self._server_name))
        async with dialled:
            method: grpc.aio.StreamStreamMultiCallable[bytes, pb.FromHub] = dialled.stream_stream(
                f"/{wire.METHOD_SERVICE}/{wire.METHOD_NAME}", response_deserializer=pb.FromHub.FromString
            )
            call: Call = method()
            try:
                await self._converse(call)
            except grpc.aio.AioRpcError as error:
                raise SyncError(str(self.hub), f"{error.code().name}: {error.details()}") from error
            except (asyncio.InvalidStateError, TimeoutError) as error:
                raise SyncError(str(self.hub), str(error) or "it is silent") from error
            finally:
                self._stream = None
                call.cancel()

    async def _converse(self, call: Call) -> None:
        have = [wire.have(owner, at) for owner, at in self._importer.have().items()]
        await call.write(pb.FromAgent(hello=pb.Hello(version=VERSION, have=have)).SerializeToString())
        welcome = await self._welcome(call)
        highest = wire.read_position(welcome.highest_of_you, str(self.hub))
        if (epoch := self._publisher.due_epoch(highest)) is not None:
            await self._ports.memory.raise_epoch(epoch)
            self._publisher.begin(epoch)
        stream = self._stream = _Stream(Outbound.resume(highest))
        self._up(welcome)
        tasks = [
            asyncio.create_task(self._read(call, stream), name="sync-read"),
            asyncio.create_task(self._write(call, stream), name="sync-write"),
            asyncio.create_task(self._beat(stream), name="sync-beat"),
            asyncio.create_task(self._refreshed.wait(), name="sync-refresh"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *stream.questions):
                task.cancel()
            await asyncio.gather(*tasks, *stream.questions, return_exceptions=True)

    async def _welcome(self, call: Call) -> pb.Welcome:
        async with asyncio.timeout(channel.GREETING):
            first = await call.read()
        if not isinstance(first, pb.FromHub):
            raise SyncError(str(self.hub), f"{(await call.code()).name}: {await call.details()}")
        if first.WhichOneof("message") != "welcome":
            raise ProtocolViolation(str(self.hub), "its first message is not a welcome")
        return first.welcome

    # ---- in ---------------------------------------------------------------------------------------------------------

    async def _read(self, call: Call, stream: _Stream) -> None:
        seen: dict[str, Seen | None] = {}
        while True:
            async with asyncio.timeout(channel.SILENCE):
                message = await call.read()
            if not isinstance(message, pb.FromHub):
                raise SyncError(str(self.hub), f"{(await call.code()).name}: {await call.details()}")
            self._receive(message, stream, seen)

    def _receive(self, message: pb.FromHub, stream: _Stream, seen: dict[str, Seen | None]) -> None:
        match message.WhichOneof("message"):
            case "relay":
                batch = wire.read_batch(message.relay, str(self.hub))
                seen[batch.owner], taken = self._importer.apply(batch, seen.get(batch.owner))
                self._take(taken)
                stream.say(pb.FromAgent(ack=wire.have(taken.owner, taken.cursor)))
            case "ack":
                at = wire.read_position(message.ack.at, str(self.hub))
                stream.outbound = stream.outbound.acknowledged(str(self.hub), at)
                stream.wake.set()
            case "beat":
                if message.beat.owner != HUB and self._counts.rose(message.beat.owner, message.beat.count):
                    self._ports.submit(BeatHeard(message.beat.owner, message.beat.count))
            case "directive":
                self._ask(message.directive, stream)
            case "refusal":
                self._refused(message.refusal)

    def _take(self, taken: Taken) -> None:
        memory = self._ports.memory
        for heard in taken.heard:
            memory.hear(heard)
        for key in taken.forgotten:
            memory.forget(taken.owner, key)
        memory.reach(taken.owner, taken.cursor)
        for refusal in taken.refused:
            log.warning(
                "refused what the hub relays", owner=taken.owner, key=refusal.key, rule=refusal.why.rule,
                detail=refusal.why.detail,
            )  # fmt: skip
        for event in taken.events:
            self._ports.submit(event)
            if isinstance(event, MemberChanged) and event.member.name == self._publisher.feed.owner:
                self._publisher.say_refused_again()

    def _refused(self, refusal: pb.Refusal) -> None:
        why = Refusal(refusal.key, refusal.seq, Refused(refusal.rule, refusal.detail))
        log.warning("the hub refused an entry of ours", key=why.key, rule=why.why.rule, detail=why.why.detail)
        self._publisher.refuse(why)

    def _ask(self, directive: pb.Directive, stream: _Stream) -> None:
        if len(stream.questions) >= MOST_QUESTIONS:
            stream.say(pb.FromAgent(report=pb.Report(id=directive.id, status=503)))
            return
        task = asyncio.create_task(self._report(directive, stream), name=f"sync-answer-{directive.id}")
        stream.questions.add(task)
        task.add_done_callback(stream.questions.discard)

    async def _report(self, directive: pb.Directive, stream: _Stream) -> None:
        try:
            status, body = await self._ports.answer(directive.path)
        except FederationError as error:
            log.error("cannot answer the hub", path=directive.path, problem=str(error))
            status, body = 500, b""
        if len(body) > LONGEST_ANSWER:
            status, body = 507, b""
        stream.say(pb.FromAgent(report=pb.Report(id=directive.id, status=status, body=body)))

    # ---- out --------------------------------------------------------------------------------------------------------

    async def _write(self, call: Call, stream: _Stream) -> None:
        while True:
            message = self._next(stream)
            if message is None:
                await stream.wake.wait()
                stream.wake.clear()
                continue
            async with asyncio.timeout(channel.WRITE_TIMEOUT):
                await call.write(message)

    def _next(self, stream: _Stream) -> bytes | None:
        if stream.words:
            return stream.words.popleft()
        if not self._publisher.listed:
            return None
        stream.outbound, batch = stream.outbound.next(self._publisher.feed)
        return None if batch is None else wire.publish(batch)

    async def _beat(self, stream: _Stream) -> None:
        feed = self._publisher.feed
        while True:
            self._beats += 1
            count = beat_count(feed.epoch, self._beats)
            stream.say(
                pb.FromAgent(beat=pb.Beat(owner=feed.owner, at=wire.position(feed.position), count=count))
            )
            await self._clock.sleep(channel.BEAT)

    # ---- state ------------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        if self._stream is not None:
            self._stream.wake.set()

    def _up(self, welcome: pb.Welcome) -> None:
        self.problem = None
        try:
            check_skew(self._clock.now(), wire.read_moment(welcome.time_ms, str(self.hub)), "the hub")
        except ClockError as error:
            self.problem = str(error)
            log.error("clocks differ", problem=str(error))
        if not self.connected:
            self.connected = True
            log.info("connected to the hub", hub=str(self.hub), name=welcome.hub)
            self._ports.submit(HubChanged(up=True))

    def _down(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("no stream to the hub", hub=str(self.hub), problem=problem)
        self.problem = problem
        if self.connected:
            self.connected = False
            self._ports.submit(HubChanged(up=False))


class _Stream:
    """What lives as long as one stream: our outbound state, words to send, questions being answered."""

    def __init__(self, outbound: Outbound) -> None:
        self.outbound = outbound
        self.words: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.questions: set[asyncio.Task[None]] = set()

    def say(self, message: pb.FromAgent) -> None:
        self.words.append(message.SerializeToString())
        self.wake.set()
