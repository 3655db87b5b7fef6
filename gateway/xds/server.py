"""Delta ADS over gRPC: one stream a client, each a `Subscription` that advances with what is said and published.

Serves Envoy on a unix socket, and gateway processes over mutual TLS. It registers this one streaming method and
nothing else: no unary fetch, no reflection. Who the client is comes from its certificate, through `authorize`, before
its first message is read, and again then, as that may be much later; what a node says of itself is a label.

A slow client costs one unanswered response a type and no queue. One that does not read at all is closed. What a client
refuses is offered again every `RETRY_EVERY` seconds, as its cause may have gone without any change here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

import grpc
import grpc.aio
import structlog

from federation.clock import Clock
from federation.errors import FederationError
from federation.listen import HostPort, ensure_free
from gateway.pb.envoy.config.core.v3.base_pb2 import Node
from gateway.snapshot import Snapshot
from gateway.xds.channel import ADS_METHOD, ADS_SERVICE, SERVER, WRITE_TIMEOUT
from gateway.xds.latest import Latest
from gateway.xds.messages import Message, Overloaded, Published, Retry
from gateway.xds.protocol import Subscription, advance
from gateway.xds.wire import Malformed, decode_request, encode_response
from pki.certificate import presented_chain

RETRY_EVERY = 30.0
"""Seconds between two offers of what a client refuses."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end: `instance` tells replicas of one `identity` apart, `key` is its SPKI hash, hex."""

    identity: str
    gateway_class: str
    instance: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """Nobody that we serve, and why; the client is told `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Where:
    """What a node says of itself; `bind` and `bind_port` are where its Envoy listens for peers."""

    node: str
    bind: str = ""
    bind_port: int = 0


Authorize = Callable[[bytes], Client | Denied]
"""From the PEM chain of the client's certificate, leaf first; empty on a unix socket."""

Choose = Callable[[Client, Where], Latest[Snapshot] | None]
"""Which snapshots a client gets; None while there is none: an empty one would take from it what it has. May make a
place that nobody asked for before."""


@dataclass(slots=True)
class Stream:
    """One living stream. `subscription` is replaced with each message; `replaced` ends it, for the reason `why`."""

    number: int
    client: Client
    where: Where
    since: datetime
    subscription: Subscription = field(default_factory=Subscription)
    replaced: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = "a newer stream of this instance took over"


class AdsServer:
    """The streams of one server. `on_change` is told of every step of a stream, `on_end` of its end.

    `retry_every` is in seconds.
    """

    def __init__(
        self,
        authorize: Authorize,
        choose: Choose,
        clock: Clock,
        on_change: Callable[[Stream], None] = lambda stream: None,
        on_end: Callable[[Stream], None] = lambda stream: None,
        retry_every: float = RETRY_EVERY,
    ) -> None:
        self._authorize = authorize
        self._choose = choose
        self._clock = clock
        self._on_change = on_change
        self._on_end = on_end
        self._retry_every = retry_every
        self._streams: dict[str, Stream] = {}
        self._numbers = count(1)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The living streams, at most one an instance."""
        return tuple(self._streams.values())

    def cut(self, refused: Callable[[Client], str | None]) -> None:
        """End the streams of those whom `refused` names a reason for."""
        for stream in self.streams:
            if (reason := refused(stream.client)) is not None:
                log.warning("xDS stream cut", instance=stream.client.instance, reason=reason)
                stream.why = reason
                stream.replaced.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """What to add to a server."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(ADS_SERVICE, {ADS_METHOD: method})

    async def _serve(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await self._who(context)
        await context.send_initial_metadata(())
        first: object = await context.read()
        if not isinstance(first, bytes):
            return
        client = await self._who(context)
        try:
            request, message = decode_request(first)
        except Malformed as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        where = place_of(message.node)
        stream = Stream(next(self._numbers), client, where, self._clock.now())
        if (older := self._streams.get(client.instance)) is not None:
            log.info("xDS stream replaced by a newer one", instance=client.instance)
            older.replaced.set()
        self._streams[client.instance] = stream
        try:
            snapshots = self._choose(client, where)
            if snapshots is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "there is no configuration for you yet")
            snapshot = snapshots.value
            await self._step(stream, context, Published(snapshot))
            await self._step(stream, context, request)
            await self._converse(stream, context, snapshots, snapshot)
        finally:
            if self._streams.get(client.instance) is stream:
                del self._streams[client.instance]
            self._on_end(stream)

    async def _who(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Client:
        client = self._authorize(presented_chain(context.auth_context()))
        if isinstance(client, Denied):
            log.warning("xDS client refused", peer=context.peer(), reason=client.reason)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, client.reason)
        return client

    async def _converse(
        self,
        stream: Stream,
        context: grpc.aio.ServicerContext[bytes, bytes],
        snapshots: Latest[Snapshot],
        snapshot: Snapshot,
    ) -> None:
        name = f"xds-{stream.number}"
        reading = asyncio.ensure_future(context.read())
        watching = asyncio.create_task(snapshots.after(snapshot), name=f"{name}-watch")
        replaced = asyncio.create_task(stream.replaced.wait(), name=f"{name}-replaced")
        resting = asyncio.create_task(self._clock.sleep(self._retry_every), name=f"{name}-retry")
        try:
            while True:
                tasks = (reading, watching, replaced, resting)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if replaced.done():
                    await context.abort(grpc.StatusCode.ABORTED, stream.why)
                if resting.done():
                    resting = asyncio.create_task(self._clock.sleep(self._retry_every), name=f"{name}-retry")
                    await self._step(stream, context, Retry())
                if watching.done():
                    snapshot = watching.result()
                    watching = asyncio.create_task(snapshots.after(snapshot), name=f"{name}-watch")
                    await self._step(stream, context, Published(snapshot))
                if reading.done():
                    data: object = reading.result()
                    if not isinstance(data, bytes):
                        return
                    reading = asyncio.ensure_future(context.read())
                    await self._hear(stream, context, data)
        finally:
            for task in (reading, watching, replaced, resting):
                task.cancel()

    async def _hear(
        self, stream: Stream, context: grpc.aio.ServicerContext[bytes, bytes], data: bytes
    ) -> None:
        try:
            request, message = decode_request(data)
        except Malformed as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if message.HasField("node") and message.node.id != stream.where.node:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the node changed its id within the stream")
        await self._step(stream, context, request)

    async def _step(
        self, stream: Stream, context: grpc.aio.ServicerContext[bytes, bytes], message: Message
    ) -> None:
        stream.subscription, replies = advance(stream.subscription, message)
        self._on_change(stream)
        for reply in replies:
            if isinstance(reply, Overloaded):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reply.reason)
            try:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await context.write(encode_response(reply))
            except TimeoutError:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "responses are not being read")


def place_of(node: Node) -> Where:
    """Labels from the node's metadata `bind` and `bind_port`; what is missing or odd counts as not said."""
    fields = node.metadata.fields
    bind = fields["bind"].string_value if "bind" in fields else ""
    port = fields["bind_port"].number_value if "bind_port" in fields else 0.0
    return Where(node.id, bind, int(port) if 0 <= port <= 65535 else 0)


def new_server(*handlers: grpc.GenericRpcHandler) -> grpc.aio.Server:
    """A server with our limits; the caller adds its ports, starts and stops it."""
    server = grpc.aio.server(options=SERVER)
    server.add_generic_rpc_handlers(handlers)
    return server


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """PEM: our chain and key, and the anchors of the one trust domain whose clients may connect."""

    chain: bytes
    key: bytes
    anchors: bytes

    def __repr__(self) -> str:
        return "ServerCredentials(…)"


def add_secure_port(
    server: grpc.aio.Server,
    address: HostPort,
    current: Callable[[], ServerCredentials],
    *,
    shared: bool = False,
) -> None:
    """Listen at `address` over mutual TLS; `current` is asked at each handshake. Raises CannotListen.

    If it is `shared`, other processes listen there too, each on a socket of its own.

    gRPC is told of credentials only when they are new: it frees the old ones while another handshake may be using
    them (https://github.com/grpc/grpc/issues/36693), so each change risks the process.
    """
    if not shared:
        ensure_free(address)
    served = current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        if (now := current()) == served:
            return None
        served = now
        return _configuration(now)

    credentials = grpc.dynamic_ssl_server_credentials(
        _configuration(served),
        renewed,  # type: ignore[arg-type]  # the stubs do not know that None means "unchanged"
        require_client_authentication=True,
    )
    try:
        server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise FederationError(f"cannot listen on {address}: {error}", "choose another address") from error


def _configuration(served: ServerCredentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(served.key, served.chain)], served.anchors)
