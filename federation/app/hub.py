"""`federation serve`: the registry, the root, the streams of the agents, and the REST API."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from federation.access import HubAccess, OperatorStore
from federation.admission import Admission
from federation.api.authority_routes import HubAuthorityRoutes, Own
from federation.api.hub_routes import HubRoutes
from federation.api.messages import CheckGroup, ClusterInfo, HubStatus
from federation.api.server import TcpDoor, UnixDoor, api_application, health_application, serving, with_health
from federation.api.tls import served
from federation.app.keys import key_store
from federation.checks import hub_checks
from federation.clock import Clock
from federation.config import HubSettings
from federation.errors import FederationError
from federation.hub import Hub
from federation.identity import Identity
from federation.registry import Registry
from federation.store import SqliteStore, Store, WatchedStore
from federation.sync.server import ServerCredentials, SyncServer
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import durable
from pki.authority import Authority
from pki.folder import SELF_SIGNED
from pki.keys import KeyStore
from pki.keys.passphrase import Passphrase
from pki.profiles import FEDERATION
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain

log = structlog.get_logger()


async def run(settings: HubSettings, passphrase: Passphrase | None, clock: Clock) -> None:
    """Run a hub until cancelled, its keys encrypted with `passphrase` if there is one.

    Raises FederationError or PkiError if it cannot start.
    """
    folder = Path(settings.directory)
    durable.private_folder(folder)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await SqliteStore.open(folder / "hub.db"))
        durable.sweep(folder)  # it is ours alone: the store is locked
        root = await _root(folder, settings, await key_store(folder / "root-keys", passphrase), store, clock)
        stack.push_async_callback(root.close)
        authority = await _authority(
            folder, settings.base, await key_store(folder / "keys", passphrase), root, clock
        )
        stack.push_async_callback(authority.close)
        await _Process(settings, WatchedStore(store), root, authority, passphrase, clock).run()


async def _root(
    folder: Path, settings: HubSettings, keys: KeyStore, store: Store, clock: Clock
) -> RootAuthority:
    """The root of this hub, made at its first start only: all members pin it, and another one is none of theirs."""
    place = folder / "root"
    base, constrained = settings.base, settings.name_constraints
    if RootAuthority.exists(place):
        return await RootAuthority.load(place, keys, base, clock, constrained)
    if Authority.exists(folder / "authority") or (await store.load("")).rows:
        raise FederationError(
            f"{place / SELF_SIGNED}: the certificate of the root is missing in the folder of a hub that had one",
            f"put {place} and {folder / 'root-keys'} back from the backup; a new root would need an empty folder, and "
            "every cluster to join again",
        )
    log.warning(
        "making a root whose key stays on this machine: whoever holds it holds the federation",
        folder=str(place),
    )
    return await RootAuthority.create(place, keys, base, clock, constrained)


async def _authority(folder: Path, base: str, keys: KeyStore, root: RootAuthority, clock: Clock) -> Authority:
    """The hub's own authority, for its own trust domain, vouched for by the root like any other."""
    place, domain = folder / "authority", TrustDomain.of_hub(base)
    if Authority.exists(place):
        authority = await Authority.load(place, keys, domain, clock)
    else:
        authority = await Authority.create(place, keys, domain, clock)
    if authority.root_signed is None:
        rooted = await root.sign_cluster_ca(
            await authority.csr(), domain, who=str(domain), why="the hub's authority"
        )
        await authority.accept_root_signed(rooted, root.certificate)
    return authority


class _Process:
    """Everything a hub consists of, and how it is joined."""

    def __init__(
        self,
        settings: HubSettings,
        store: WatchedStore,
        root: RootAuthority,
        authority: Authority,
        passphrase: Passphrase | None,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.store = store
        self.root = root
        self.authority = authority
        self.clock = clock
        self.metrics = HubMetrics()
        self.tokens = TokenStore(store, clock.now)
        self.operators = OperatorStore(store)
        self.hub = Hub(Registry(store), root.certificate, settings.base, clock, self.metrics)
        path = Path(settings.directory) / "leaf.pem"
        self.identity = Identity(
            authority,
            SpiffeId.federation(authority.trust_domain),
            path,
            FEDERATION.lifetime,
            clock,
            passphrase,
        )
        self.sync = SyncServer(self.hub, self._credentials, clock)

    async def run(self) -> None:
        await self.identity.start()
        await self.hub.start()
        settings = self.settings
        admission = Admission(
            self.hub,
            self.tokens,
            self.root,
            self.authority.bundle(),
            settings.advertise.api,
            self.clock,
            self.metrics,
        )
        routes = HubRoutes(
            self.hub,
            admission,
            self.tokens,
            self.operators,
            self.authority,
            self.root,
            self,
            f"https://{settings.advertise.api}",
            str(settings.advertise.sync),
            self.clock,
        ).routes()
        own = Own(
            "hub", self.authority, self.identity, lambda: (self.root.certificate,), "file", tuple, self.clock
        )
        routes += HubAuthorityRoutes(own, self.hub, self.root, settings.root).routes()
        access = HubAccess(self.operators, self.authority.bundle, self.clock.now)
        api = api_application("federation hub", version("federation"), routes, access)
        socket = UnixDoor(Path(settings.directory) / "api.sock")
        try:
            await self.sync.start(settings.listen.sync)
            async with (
                asyncio.TaskGroup() as group,
                serving(
                    with_health(api, self._health()),
                    socket,
                    TcpDoor(settings.listen.api, served(self.identity, (self.authority.self_signed,))),
                ),
                serving(self._health(), TcpDoor(settings.listen.telemetry)),
            ):
                group.create_task(self.identity.run(), name="identity")
                group.create_task(self.hub.run(), name="hub")
                group.create_task(self.store.run(self.clock), name="store")
                log.info(
                    "hub runs",
                    base=settings.base,
                    api=str(settings.listen.api),
                    sync=str(settings.listen.sync),
                )
                await asyncio.Event().wait()
        finally:
            await self.sync.stop()

    def _credentials(self) -> ServerCredentials:
        """Before anybody joined, our own anchor stands where gRPC wants one; no member has it."""
        leaf = self.identity.current
        return ServerCredentials(leaf.chain, leaf.key, self.hub.anchors or self.authority.bundle().pem())

    # ---- state ---------------------------------------------------------------------------------------------------

    def status(self, clusters: tuple[ClusterInfo, ...]) -> HubStatus:
        return HubStatus(
            version=version("federation"),
            pid=os.getpid(),
            base=self.settings.base,
            root=self.settings.root,
            clusters=clusters,
            problems=(
                *(() if self.store.problem is None else (self.store.problem,)),
                *(f"{cluster.name}: {refused}" for cluster in clusters for refused in cluster.refused),
            ),
            certificate_expires_at=self.identity.current.certificate.not_valid_after_utc,
            root_expires_at=self.root.certificate.not_valid_after_utc,
        )

    def checks(self, status: HubStatus) -> tuple[CheckGroup, ...]:
        return hub_checks(status, self.clock.now(), timedelta(hours=24))

    def _health(self) -> Any:
        return health_application(self._healthy, self._ready, self._exposition)

    async def _healthy(self) -> tuple[bool, dict[str, Any]]:
        return True, {"healthy": True}

    async def _ready(self) -> tuple[bool, dict[str, Any]]:
        """A hub that cannot store anything can let nobody join and change nothing; it goes on relaying."""
        waiting = [] if self.store.problem is None else [f"its store: {self.store.problem}"]
        return not waiting, {"ready": not waiting, "waiting_for": waiting}

    async def _exposition(self) -> bytes:
        return self.metrics.render()
