"""The agent's end of the way to a hub: it dials, greets, keeps one stream for as long as it lasts, and dials again.

The channel trusts the anchors of the hub's own trust domain and nothing else, and demands the DNS SAN
`federation.<that trust domain>`. grpcio shows a client no certificate, so the SPIFFE ID is not looked at here; the DNS
SAN says the same, because an authority gives it to `/federation` alone, and only the hub's authority is trusted.

A new channel is made for every attempt, with the certificate and the anchors of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

import grpc
import grpc.aio
import structlog

from federation.clock import Clock
from federation.errors import FederationError
from federation.events import Event, HubChanged
from federation.listen import HostPort
from federation.model import Position
from federation.questions import Question
from federation.retry import Backoff
from federation.sync import channel, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation, SyncError
from federation.sync.importer import Importer
from federation.sync.protocol import REMOVED, VERSION, Counts, Outbound
from federation.sync.publisher import Publisher
from federation.sync.stream import Call, Inside, Memory, Stream, read
from pki.errors import ClockError
from pki.skew import check_skew
from pki.spiffe import TrustDomain

SHORTEST_WAIT = 0.25
LONGEST_WAIT = 15.0
"""Seconds between two attempts to reach the hub."""
GROWTH = 1.6
"""By how much each wait may be longer than the one before, as gRPC grows its own (gRPC Connection Backoff Protocol). It
keeps most waits below the time that the hub has been away: who missed it for a moment finds it within moments."""

_REFUSED = (grpc.StatusCode.UNAVAILABLE.name, grpc.StatusCode.PERMISSION_DENIED.name)
"""How it looks to be kept out: a handshake that fails, or the hub's word that it does not know us."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM: our own chain and key, and the anchors of the hub's trust domain."""

    anchors: bytes
    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Credentials(…)"


@dataclass(frozen=True, slots=True)
class Ports:
    """What the client is joined to: events go to `submit`, questions of the hub to `answer` (status, body)."""

    credentials: Callable[[], Credentials]
    memory: Memory
    submit: Callable[[Event], None]
    answer: Callable[[Question], Awaitable[tuple[int, bytes]]]


class SyncClient:
    """One hub's client. `problem` says in one sentence why it is not connected, or what is odd though it is.

    A hub that removed us says so once, and from then on refuses our certificate without a word: what it said stays.
    """

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
        self._inside = Inside(
            publisher, importer, ports.memory, ports.submit, ports.answer, Counts(), count(1), clock
        )
        self._stream: Stream | None = None
        self._refreshed = asyncio.Event()
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
        backoff = Backoff(self._clock, SHORTEST_WAIT, LONGEST_WAIT, GROWTH)
        while True:
            self._refreshed.clear()
            began = self._clock.monotonic()
            try:
                await self._connect()
                continue
            except FederationError as error:
                lasted = self._clock.monotonic() - began if self.connected else 0.0
                self._down(error.problem)
            if lasted >= channel.BEAT:
                backoff.reset()
            await backoff.wait()

    async def _connect(self) -> None:
        """One stream, from dialling to its end. Returns when it is to be replaced; raises FederationError."""
        credentials = self._ports.credentials()
        tls = grpc.ssl_channel_credentials(credentials.anchors, credentials.key, credentials.chain)
        dialled = grpc.aio.secure_channel(str(self.hub), tls, options=channel.client(self._server_name))
        async with dialled:
            method: grpc.aio.StreamStreamMultiCallable[bytes, pb.FromHub] = dialled.stream_stream(
                f"/{wire.METHOD_SERVICE}/{wire.METHOD_NAME}", response_deserializer=pb.FromHub.FromString
            )
            call: Call = method()
            try:
                self._stream = await self._greet(call)
                await self._stream.run(self._refreshed)
            except grpc.aio.AioRpcError as error:
                raise SyncError(str(self.hub), f"{error.code().name}: {error.details()}") from error
            except (asyncio.InvalidStateError, TimeoutError) as error:
                raise SyncError(str(self.hub), str(error) or "it is silent") from error
            finally:
                self._stream = None
                call.cancel()

    async def _greet(self, call: Call) -> Stream:
        """Say what we have, and hear what the hub remembers of us."""
        hub = str(self.hub)
        have = [wire.have(owner, at) for owner, at in self._importer.have().items()]
        await call.write(pb.FromAgent(hello=pb.Hello(version=VERSION, have=have)).SerializeToString())
        first = await read(hub, call, channel.GREETING)
        if first.WhichOneof("message") != "welcome":
            raise ProtocolViolation(hub, "its first message is not a welcome")
        highest = wire.read_position(first.welcome.highest_of_you, hub)
        if (epoch := self._publisher.due_epoch(highest)) is not None:
            await self._ports.memory.raise_epoch(epoch)
            self._publisher.begin(epoch)
        self._up(first.welcome)
        return Stream(hub, call, Outbound.resume(highest), self._inside)

    # ---- state ------------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        if self._stream is not None:
            self._stream.wake()

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
        if REMOVED in (self.problem or "") and problem.startswith(_REFUSED):
            return
        if self.problem != problem:
            log.warning("no stream to the hub", hub=str(self.hub), problem=problem)
        self.problem = problem
        if self.connected:
            self.connected = False
            self._ports.submit(HubChanged(up=False))
