"""The hub's end of the streams: mutual TLS, who is there, and messages in and out. What they mean is not decided here.

grpcio verifies a client against all anchors that it is given and cannot choose them by trust domain: a certificate for
east that west's authority signed passes. So nobody is believed before the chain is verified again here, by the anchors
of the leaf's own trust domain, and nothing is read from a stream before that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio
import structlog

from federation.clock import Clock
from federation.errors import FederationError
from federation.listen import HostPort, ensure_free
from federation.model import Position
from federation.sync import channel, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import PeerRefused, ProtocolViolation
from federation.sync.protocol import VERSION
from federation.sync.session import Session
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import load_pem, presented_chain, public_key
from pki.errors import Untrusted
from pki.spiffe import SpiffeId, TrustDomain
from pki.validate import LONGEST_CHAIN, verify_peer

GRACE = 1.0
"""Seconds that streams get to end when the server stops."""

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[pb.FromAgent, bytes]


@dataclass(frozen=True, slots=True)
class ServerCredentials:
    """PEM: the hub's chain and key, and the anchors of everybody who may connect."""

    chain: bytes
    key: bytes
    anchors: bytes

    def __repr__(self) -> str:
        return "ServerCredentials(…)"


class MembersSide(Protocol):
    """What the server needs of the registry."""

    def bundles(self) -> Mapping[TrustDomain, Bundle]:
        """The anchors of each member's trust domain."""
        ...

    def member_of(self, identity: SpiffeId) -> str | None:
        """The name of the member whose agent this is, None if it is no member's agent."""
        ...


class HubSide(Protocol):
    """What the server needs of the hub."""

    @property
    def membership(self) -> MembersSide: ...

    def why_banned(self, identity: SpiffeId, key: str) -> str | None:
        """Why the holder of a certificate for `identity` over `key` (SPKI hash, hex) is banned, None if it is not."""
        ...

    async def open(self, cluster: str, have: Mapping[str, Position], wake: Callable[[], None]) -> Session:
        """A new stream of a member."""
        ...

    async def receive(self, session: Session, message: pb.FromAgent) -> None: ...

    def close(self, session: Session) -> None: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The agent of the member `cluster`, by the certificate for `identity` over `key` (SPKI hash, hex)."""

    cluster: str
    identity: SpiffeId
    key: str


def verify_agent(chain: bytes, hub: HubSide, clock: Clock) -> Peer:
    """The member's agent that presented `chain` (PEM, leaf first). Raises PeerRefused."""
    try:
        certificates = load_pem(chain, LONGEST_CHAIN)
        identity = verify_peer(certificates, hub.membership.bundles(), clock.now())
        key = spki_hash(public_key(certificates[0]))
    except Untrusted as error:
        raise PeerRefused("an unknown peer", str(error)) from error
    cluster = hub.membership.member_of(identity)
    if cluster is None:
        raise PeerRefused(str(identity), "it is not the agent of a member")
    if (banned := hub.why_banned(identity, key)) is not None:
        raise PeerRefused(str(identity), banned)
    return Peer(cluster, identity, key)


def _configuration(served: ServerCredentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(served.key, served.chain)], served.anchors)


class SyncServer:
    """Serves one hub. `credentials` is asked at every handshake, so what it returns may change at any time."""

    def __init__(self, hub: HubSide, credentials: Callable[[], ServerCredentials], clock: Clock) -> None:
        self._hub = hub
        self._credentials = credentials
        self._clock = clock
        self._served = ServerCredentials(b"", b"", b"")
        self._server: grpc.aio.Server | None = None
        self._sessions: dict[Session, Peer] = {}

    async def start(self, address: HostPort) -> HostPort:
        """Listen; returns where, which differs from `address` if its port is 0. Raises CannotListen."""
        ensure_free(address)
        server = grpc.aio.server(options=channel.SERVER)
        method: grpc.RpcMethodHandler[pb.FromAgent, bytes] = grpc.stream_stream_rpc_method_handler(
            self._serve, request_deserializer=pb.FromAgent.FromString
        )
        handlers = {wire.METHOD_NAME: method}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.METHOD_SERVICE, handlers),)
        )
        self._served = self._credentials()
        tls = grpc.dynamic_ssl_server_credentials(
            _configuration(self._served),
            self._renewed,  # type: ignore[arg-type]  # the stubs do not know that None means "unchanged"
            require_client_authentication=True,
        )
        try:
            port = server.add_secure_port(str(address), tls)
        except RuntimeError as error:
            raise FederationError(f"cannot listen on {address}: {error}", "choose another address") from error
        await server.start()
        self._server = server
        return HostPort.of(address.host, port)

    async def stop(self) -> None:
        """End each stream with a reason, and then the server, which would cut them without one."""
        for session in self._sessions:
            session.close("the hub stops")
        if self._server is not None:
            await self._server.stop(GRACE)
            self._server = None

    def cut_the_banned(self) -> None:
        """End each stream whose agent may no longer have one."""
        for session, peer in self._sessions.items():
            if (banned := self._hub.why_banned(peer.identity, peer.key)) is not None:
                session.close(banned)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by grpcio's own threads at each handshake; None if nothing is new.

        gRPC frees what it was told before while another handshake may be using it
        (https://github.com/grpc/grpc/issues/36693), so each change that it is told of risks the process.
        """
        now = self._credentials()
        if now == self._served:
            return None
        self._served = now
        return _configuration(now)

    async def _serve(self, _: object, context: Context) -> None:
        try:
            peer = verify_agent(presented_chain(context.auth_context()), self._hub, self._clock)
        except PeerRefused as error:
            log.warning("peer refused", address=context.peer(), peer=error.peer, reason=error.problem)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.problem)
        cluster = peer.cluster
        try:
            session, wake = await self._open(cluster, context)
        except ProtocolViolation as error:
            log.warning("stream refused", cluster=cluster, problem=error.problem)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.problem)
        except FederationError as error:
            log.error("stream refused, the hub cannot store", cluster=cluster, problem=str(error))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the hub cannot store anything now")
        log.info("agent connected", cluster=cluster, address=context.peer())
        self._sessions[session] = peer
        self.cut_the_banned()  # whoever was banned while it said hello
        try:
            await self._converse(session, wake, context)
        finally:
            del self._sessions[session]
            self._hub.close(session)
            log.info("agent disconnected", cluster=cluster, reason=session.closed or "its stream ended")

    async def _open(self, cluster: str, context: Context) -> tuple[Session, asyncio.Event]:
        try:
            async with asyncio.timeout(channel.GREETING):
                first = await context.read()
        except TimeoutError as error:
            raise ProtocolViolation(cluster, "it does not say hello") from error
        if not isinstance(first, pb.FromAgent) or first.WhichOneof("message") != "hello":
            raise ProtocolViolation(cluster, "its first message is not a hello")
        if first.hello.version != VERSION:
            raise ProtocolViolation(
                cluster, f"it speaks version {first.hello.version}, this hub speaks {VERSION}; upgrade both"
            )
        wake = asyncio.Event()
        have = wire.read_have(first.hello.have, cluster)
        return await self._hub.open(cluster, have, wake.set), wake

    async def _converse(self, session: Session, wake: asyncio.Event, context: Context) -> None:
        name = f"sync-{session.cluster}"
        tasks = [
            asyncio.create_task(self._read(session, context), name=f"{name}-read"),
            asyncio.create_task(self._write(session, wake, context), name=f"{name}-write"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ProtocolViolation as error:
            log.error("stream ended by a violation", cluster=session.cluster, problem=error.problem)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.problem)
        except FederationError as error:
            log.error("stream ended, the hub cannot store", cluster=session.cluster, problem=str(error))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the hub cannot store anything now")
        except TimeoutError:
            log.warning("stream ended", cluster=session.cluster, problem="it is silent, or does not read")
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the stream is silent, or is not read")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if session.closed is not None:
            await context.abort(grpc.StatusCode.ABORTED, session.closed)

    async def _read(self, session: Session, context: Context) -> None:
        while session.closed is None:
            async with asyncio.timeout(channel.SILENCE):
                message: object = await context.read()
            if not isinstance(message, pb.FromAgent):
                return
            await self._hub.receive(session, message)

    async def _write(self, session: Session, wake: asyncio.Event, context: Context) -> None:
        while session.closed is None:
            message = session.take()
            if message is None:
                await wake.wait()
                wake.clear()
                continue
            async with asyncio.timeout(channel.WRITE_TIMEOUT):
                await context.write(message)
