"""A gateway process from start to end: parent of one Envoy, between its agent and it.

Starts from its own disk: neither gateway nor Envoy waits for the agent, except for the very first certificate. Folder:

    keys/ chain.pem attested.json   who we are
    resources.sqlite                what Envoy accepted last
    bootstrap.json                  what Envoy is started with
    xds.sock admin.sock api.sock    unix sockets; the folder is 0700
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.json_format import ParseDict

from federation.api.server import CannotListenUnix
from federation.clock import Clock
from federation.errors import FederationError
from federation.listen import LONGEST_SOCKET_PATH, HostPort, ensure_free
from federation.retry import Backoff
from gateway.credential import Credential, Presented
from gateway.doors import Doors
from gateway.envoy.admin import Admin
from gateway.envoy.binary import find_envoy
from gateway.envoy.bootstrap import Sockets, bootstrap
from gateway.envoy.process import EnvoyProcess, Launch
from gateway.identity import GatewayIdentity
from gateway.pb.envoy.config.core.v3.base_pb2 import Node
from gateway.pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from gateway.relay import Relay
from gateway.report_pb2 import ReportAck
from gateway.settings import GatewaySettings
from gateway.snapshot import Snapshot
from gateway.store import ResourceStore
from gateway.watch import Watch
from gateway.xds.client import Upstream, in_turn
from gateway.xds.reports import Reporting
from gateway.xds.server import AdsServer, Client, Stream, new_server
from pki import durable
from pki.errors import PkiError, WriteError

SHORTEST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0

log = structlog.get_logger()


async def run(settings: GatewaySettings, stop: asyncio.Event, clock: Clock) -> None:
    """Run until `stop` is set, then drain Envoy and return.

    Raises FederationError (GatewayError among them) or PkiError, with a sentence for the user, for what cannot work.
    """
    identity = GatewayIdentity(settings.name, settings.directory, clock, settings.passphrase)
    try:
        async with holding(settings, clock) as kept:
            binary = ready(settings)
            if await _attested(identity, settings, stop):
                async with opened(settings, identity, kept, binary, clock) as gateway:
                    await gateway.run(stop)
    except ExceptionGroup as group:
        raise _first_for_people(group) from group


async def _attested(identity: GatewayIdentity, settings: GatewaySettings, stop: asyncio.Event) -> bool:
    """Wait for the first certificate; False if `stop` came before it."""
    starting = asyncio.create_task(identity.start(settings.token_file), name="gateway-identity")
    stopping = asyncio.create_task(stop.wait(), name="gateway-stop")
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
        return starting.done()
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """The configuration on disk, and what was read from it."""

    store: ResourceStore
    stored: Snapshot


@asynccontextmanager
async def holding(settings: GatewaySettings, clock: Clock) -> AsyncIterator[Kept]:
    """The folder is ours alone while the store is open, which is locked. Raises StoreHeld or StoreError."""
    store = ResourceStore(settings.resources)
    try:
        stored = await store.open(clock.now())
        _sweep(settings.directory)
        if store.set_aside is not None:
            log.error("the stored configuration is damaged and kept aside", file=str(store.set_aside))
        yield Kept(store, stored)
    finally:
        await store.close()


def ready(settings: GatewaySettings) -> Path:
    """The Envoy to run, once what it needs is there. Asked before the token is used, which works once only.

    Raises EnvoyMissing, EnvoyPrivileged, CannotListen or CannotListenUnix.
    """
    _check_paths(settings)
    binary = find_envoy(settings.envoy)
    ensure_free(HostPort.of(settings.bind, settings.bind_port))
    ensure_free(settings.telemetry)
    return binary


@asynccontextmanager
async def opened(
    settings: GatewaySettings, identity: GatewayIdentity, kept: Kept, binary: Path, clock: Clock
) -> AsyncIterator[Gateway]:
    """A gateway whose `identity` has started, with what it has on disk; not running yet. Raises as `run`."""
    admin = Admin(settings.admin_socket)
    try:
        relay = Relay(kept.store, kept.stored, clock)
        yield Gateway(settings, identity, relay, kept.store, admin, binary, clock)
        await relay.flush()
    finally:
        await admin.close()


class Gateway:
    """One gateway process, once it knows who it is."""

    def __init__(
        self,
        settings: GatewaySettings,
        identity: GatewayIdentity,
        relay: Relay,
        store: ResourceStore,
        admin: Admin,
        binary: Path,
        clock: Clock,
    ) -> None:
        credential = identity.current
        self._issuer = credential.issuer
        self._settings = settings
        self._identity = identity
        self._relay = relay
        self._store = store
        self._admin = admin
        self._clock = clock
        self._watch = Watch(settings, credential.gateway_class, self._presented, admin, clock)
        self._server = self._ads_server(credential)
        self._envoy = self._envoy_process(binary, credential)
        self._upstream = Upstream(in_turn(self._identity.dial), self._node(), relay.held, relay.receive)
        self._doors = Doors(settings, identity, relay, store, admin, self._envoy, self._watch, self._upstream)
        identity.listener = self._renewed
        relay.add_own(credential.secret())

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain."""
        grpc_server = new_server(self._server.handler())
        socket = self._settings.xds_socket
        try:
            grpc_server.add_insecure_port(f"unix:{socket}")
        except RuntimeError as error:
            raise CannotListenUnix(
                socket,
                "gRPC cannot bind it",
                "remove it if it is no socket, and see whether another process serves it",
            ) from error
        await grpc_server.start()
        try:
            async with self._doors.open(), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(work, name=f"gateway-{name}") for name, work in self._work().items()
                ]
                await stop.wait()
                log.info("draining", seconds=float(self._settings.drain))
                self._watch.drain()
                await self._envoy.drain()
                for task in tasks:
                    task.cancel()
        finally:
            await grpc_server.stop(None)

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        dial = in_turn(self._identity.dial)
        return {
            "envoy": self._envoy.run(),
            "relay": self._relay.run(self._upstream.answer),
            "upstream": self._upstream.run(self._backoff()),
            "reporting": Reporting(dial, self._watch.reports, self._told).run(self._backoff()),
            "watch": self._watch.run(),
            "renewal": self._identity.run(),
        }

    def _backoff(self) -> Backoff:
        return Backoff(self._clock, SHORTEST_BACKOFF, LONGEST_BACKOFF)

    async def _told(self, word: ReportAck) -> None:
        await self._identity.told(word)
        self._watch.tell()

    def _renewed(self, credential: Credential) -> None:
        self._relay.add_own(credential.secret())
        self._watch.tell()

    def _presented(self) -> Presented:
        """Of what we have, that which Envoy has taken: until then it presents the certificate before."""
        current = self._identity.current
        if current.issuer != self._issuer and self._relay.has_taken(current.secret()):
            self._issuer = current.issuer
        return Presented(current.ends, self._issuer, current.bundle.version)

    def _ads_server(self, credential: Credential) -> AdsServer:
        """For our own Envoy only: the socket lies in a folder that nobody else may enter."""
        envoy = Client("envoy", credential.gateway_class, self._settings.name)

        def changed(stream: Stream) -> None:
            self._relay.envoy_said(stream.subscription)

        def ended(stream: Stream) -> None:
            if not self._server.streams:
                self._relay.envoy_said(None)

        return AdsServer(
            lambda chain: envoy, lambda client, where: self._relay.snapshots, self._clock, changed, ended
        )

    def _envoy_process(self, binary: Path, credential: Credential) -> EnvoyProcess:
        settings = self._settings
        launch = Launch(binary, settings.directory, settings.concurrency, settings.drain)
        sockets = Sockets(str(settings.xds_socket), str(settings.admin_socket))
        return EnvoyProcess(
            launch, bootstrap(settings.name, credential.cluster, sockets), self._admin, self._clock
        )

    def _node(self) -> DeltaDiscoveryRequest:
        """How the agent shall see us: labels, because who we are is in the certificate."""
        labels = {"bind": self._settings.bind, "bind_port": self._settings.bind_port}
        return DeltaDiscoveryRequest(node=ParseDict({"id": self._settings.name, "metadata": labels}, Node()))


def _first_for_people(group: ExceptionGroup[Exception]) -> Exception:
    """The first error that has a sentence for the user, else all of them."""
    found: Exception | None = group.subgroup((FederationError, PkiError))
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return group if found is None else found


def _sweep(folder: Path) -> None:
    """Remove what a crash left, unless that fails: a gateway that can go on goes on."""
    try:
        durable.sweep(folder)
    except WriteError as error:
        log.warning("what a crash left stays; nobody reads it", reason=str(error))


def _check_paths(settings: GatewaySettings) -> None:
    longest = max(
        (settings.admin_socket, settings.api_socket, settings.xds_socket), key=lambda p: len(str(p))
    )
    if len(os.fsencode(longest)) > LONGEST_SOCKET_PATH:
        raise CannotListenUnix(
            longest,
            f"the path is over {LONGEST_SOCKET_PATH} bytes long (unix(7))",
            "choose a shorter directory",
        )
