"""`federation serve`: the registry, the root, the streams of the agents, and the REST API."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from federation.access import HubAccess, OperatorStore
from federation.admission import Admission
from federation.api.audit_routes import AuditRoutes
from federation.api.authority_routes import HubAuthorityRoutes, Own
from federation.api.ban_routes import BanRoutes
from federation.api.ceremony_routes import CeremonyRoutes
from federation.api.hub_routes import HubRoutes
from federation.api.messages import CheckGroup, ClusterInfo, HubStatus
from federation.api.offer_routes import OfferRoutes
from federation.api.rotation_routes import HubRotationRoutes
from federation.api.server import TcpDoor, UnixDoor, api_application, health_application, serving, with_health
from federation.api.tls import served
from federation.app.auditing import ConnectedAgents, tell_heads
from federation.app.bundles import BundleExchange
from federation.app.figures import watch_hub
from federation.app.keys import authority_keys
from federation.app.root import HINT, offline_root, online_root, roots_of, vault_root
from federation.app.vaults import Vaults
from federation.ceremony import Ceremony, HubCeremony
from federation.checks import hub_checks
from federation.clock import Clock
from federation.config import HubSettings
from federation.hub import Hub
from federation.hub_realm import HubRealm
from federation.identity import Identity
from federation.journals import Journals, of
from federation.model import HUB
from federation.offers import Offers
from federation.registry import Registry
from federation.revocation_list import LIST_PATH, RevocationList
from federation.root_realm import RootRealm
from federation.rotating import Rotating
from federation.store import SqliteStore, WatchedStore
from federation.successors import Successors
from federation.sync.server import ServerCredentials, SyncServer
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from federation.vault_settings import RootInVault
from pki import durable
from pki.algorithms import spki_hash
from pki.certificate import public_key
from pki.keys import KeyStore
from pki.keys.passphrase import Passphrase
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.profiles import FEDERATION
from pki.root_lineage import RootLineage
from pki.spiffe import SpiffeId, TrustDomain
from pki.upstream import Root

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
        vaults = Vaults(folder, clock, stack)
        keys = await authority_keys(folder / "keys", passphrase, settings.keys, vaults)
        root: Root
        if settings.root == "offline":
            authority = await _authority(folder, settings.base, keys, clock)
            stack.push_async_callback(authority.close)
            root, ceremony = await offline_root(folder, settings, authority, store, clock)
        else:
            if isinstance(settings.root, RootInVault):
                root, ceremony = await vault_root(folder, settings, settings.root.vault, vaults, store)
            else:
                root_keys = await authority_keys(
                    folder / "root-keys", passphrase, settings.keys, vaults, "root-"
                )
                root, ceremony = await online_root(folder, settings, root_keys, store, clock)
            stack.push_async_callback(root.close)
            authority = await _authority(folder, settings.base, keys, clock)
            stack.push_async_callback(authority.close)
            await _vouch(authority, root)
        watched = WatchedStore(store)
        await _Process(settings, watched, root, ceremony, authority, vaults, passphrase, clock).run()


async def _authority(folder: Path, base: str, keys: KeyStore, clock: Clock) -> Lineage:
    """The hub's own authority, for its own trust domain."""
    return await Lineage.open(folder / "authority", keys, TrustDomain.of_hub(base), clock)


async def _vouch(authority: Lineage, root: Root) -> None:
    """Let the root vouch for the hub's authority, like for any other."""
    if authority.root_signed is not None:
        return
    domain = authority.trust_domain
    rooted = await root.sign_cluster_ca(
        await authority.csr(), domain, who=str(domain), why="the hub's authority"
    )
    if rooted is not None:
        await authority.accept_root_signed(rooted, root.certificate)


class _Process:
    """Everything a hub consists of, and how it is joined."""

    def __init__(
        self,
        settings: HubSettings,
        store: WatchedStore,
        root: Root,
        ceremony: Ceremony,
        authority: Lineage,
        vaults: Vaults,
        passphrase: Passphrase | None,
        clock: Clock,
    ) -> None:
        self.vaults = vaults
        self.settings = settings
        self.store = store
        self.root = root
        self.ceremony = ceremony
        self.authority = authority
        self.clock = clock
        self.metrics = HubMetrics()
        vaults.watch(self.metrics.vault_token)
        self.tokens = TokenStore(store, clock.now)
        self.operators = OperatorStore(store)
        self.hub = Hub(Registry(store), lambda: roots_of(root), settings.base, clock, self.metrics)
        path = Path(settings.directory) / "leaf.pem"
        self.identity = Identity(
            authority,
            SpiffeId.federation(authority.trust_domain),
            path,
            FEDERATION.lifetime,
            clock,
            passphrase,
        )
        watch_hub(self.metrics, root, authority, self.identity, self.hub)
        self.sync = SyncServer(self.hub, self._credentials, clock)
        self.journals = Journals(Path(settings.directory), lambda: of(self.root, self.authority))
        revocations = partial(root.revocations, clock) if isinstance(root, RootLineage) else None
        self.revoked = RevocationList(revocations, Path(settings.directory) / "root", clock)

    async def run(self) -> None:
        await self.identity.start()
        bundles = self.bundles = self._bundles()
        self.hub.membership.until = bundles.until
        await self.hub.start()
        if isinstance(self.ceremony, HubCeremony):
            self.ceremony.hub = self.hub
        await self.revoked.start()
        await self.hub.bans.compare(self.journals)
        self.hub.bans.on_change(lambda *_: self.sync.cut_the_banned())
        settings, folder, agents = self.settings, Path(self.settings.directory), ConnectedAgents(self.hub)
        successors = Successors(
            settings.base, self.hub.registry, self.root, self.hub.membership.keep_successor, self.clock
        )
        self.hub.on_request = successors.hear
        self.hub.on_withdrawn = successors.forget
        admission = Admission(
            self.hub,
            self.tokens,
            self.root,
            self.authority.bundle,
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
            "hub",
            self.authority,
            self.identity,
            lambda: roots_of(self.root),
            "file" if settings.keys.vault is None else "vault",
            bundles.foreign.told,
            self.clock,
        )
        routes += HubAuthorityRoutes(own, self.hub, self.root, settings.root_is).routes() + bundles.routes()
        rotating, root_rotating = await self._rotating()
        self.rotatings = tuple(one for one in (root_rotating, rotating) if one is not None)
        routes += HubRotationRoutes(self.hub, rotating, root_rotating, settings.root_is).routes()
        routes += CeremonyRoutes(self.ceremony, self.clock).routes()
        routes += AuditRoutes(
            HUB, self.journals, folder, lambda: self.hub.witness.kept, self.hub.witness.accept, agents
        ).routes()
        routes += BanRoutes(
            self.hub.bans,
            self.revoked,
            settings.base,
            lambda name: self.hub.member(name) is not None,
            self.hub.membership.authorities,
            self._own_keys,
        ).routes()
        offers = Offers(settings.base, lambda: roots_of(self.root), self.hub.membership, self.hub, self.clock)
        routes += OfferRoutes(offers).routes()
        access = HubAccess(self.operators, self.authority.bundle, self.clock.now, self.hub.why_banned)
        api = api_application("federation hub", version("federation"), routes, access)
        socket = UnixDoor(Path(settings.directory) / "api.sock")
        try:
            await self.sync.start(settings.listen.sync)
            async with (
                asyncio.TaskGroup() as group,
                serving(
                    with_health(api, self._health()),
                    socket,
                    TcpDoor(settings.listen.api, served(self.identity, self.authority.bundle)),
                ),
                serving(self._health(), TcpDoor(settings.listen.telemetry)),
            ):
                group.create_task(self.identity.run(), name="identity")
                for name, one in (("hub", rotating), ("root", root_rotating)):
                    if one is not None:
                        group.create_task(one.run(), name=f"rotation of the {name}")
                group.create_task(self.hub.run(), name="hub")
                group.create_task(bundles.run(), name="bundles")
                for use, session in self.vaults.sessions.items():
                    group.create_task(session.run(), name=f"vault for {use}")
                group.create_task(self.revoked.run(), name="revocation list")
                group.create_task(
                    tell_heads(self.journals.heads, self.hub.tell_heads, self.clock), name="heads"
                )
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
            await successors.close()

    def _bundles(self) -> BundleExchange:
        """Our own bundle and those of the members are served; whose others are kept, the settings say."""
        return BundleExchange(
            self.settings.bundle_endpoint,
            self.settings.federates,
            self.authority.trust_domain,
            Path(self.settings.directory) / "federates",
            self.identity,
            lambda: {**self.hub.membership.bundles(), self.authority.trust_domain: self.authority.bundle()},
            self.clock,
        )

    async def _rotating(self) -> tuple[Rotating, Rotating | None]:
        """Who replaces our own authority, and the root, if that can be; what members go by is told at once."""
        realm = HubRealm(
            self.authority, self.identity, self.hub, self.operators, self.root, self.clock, self.bundles.until
        )
        await realm.follow()
        if not isinstance(self.root, RootLineage | OfflineRoot):
            return Rotating(realm, self.clock), None
        root = RootRealm(self.root, self.hub, self.authority, self.clock)
        await root.follow()
        return Rotating(realm, self.clock), Rotating(root, self.clock)

    def _credentials(self) -> ServerCredentials:
        """Before anybody joined, our own anchor stands where gRPC wants one; no member has it."""
        leaf = self.identity.current
        return ServerCredentials(
            leaf.chain, leaf.key, self.hub.membership.anchors or self.authority.bundle().pem()
        )

    def _own_keys(self) -> dict[str, str]:
        """Of which keys (SPKI hash) the hub consists, and what each is for."""
        authorities = [each.self_signed for each in self.authority.authorities.values()]
        whose = {
            "the root": roots_of(self.root),
            "the hub's authority": authorities,
            "the hub": [self.identity.current.certificate],
        }
        return {spki_hash(public_key(one)): name for name, found in whose.items() for one in found}

    # ---- state ---------------------------------------------------------------------------------------------------

    def status(self, clusters: tuple[ClusterInfo, ...]) -> HubStatus:
        return HubStatus(
            version=version("federation"),
            pid=os.getpid(),
            base=self.settings.base,
            root=self.settings.root_is,
            clusters=clusters,
            problems=(
                *(() if self.store.problem is None else (self.store.problem,)),
                *self.vaults.problems,
                *self.journals.problems(),
                *self.hub.witness.problems(),
                *self.bundles.foreign.problems(),
                *(() if self.revoked.problem is None else (self.revoked.problem,)),
                *(f"{cluster.name}: {refused}" for cluster in clusters for refused in cluster.refused),
                *(f"{one.name} waits for the root to sign: {HINT}" for one in clusters if one.waits_for_root),
            ),
            certificate_expires_at=self.identity.current.certificate.not_valid_after_utc,
            root_expires_at=self.root.certificate.not_valid_after_utc,
            rotations=tuple(found for rotating in self.rotatings if (found := rotating.status()).running),
        )

    def checks(self, status: HubStatus) -> tuple[CheckGroup, ...]:
        return hub_checks(status, self.clock.now(), timedelta(hours=24))

    def _health(self) -> Any:
        return health_application(
            self._healthy, self._ready, self._exposition, {LIST_PATH: self.revoked.file}
        )

    async def _healthy(self) -> tuple[bool, dict[str, Any]]:
        return True, {"healthy": True}

    async def _ready(self) -> tuple[bool, dict[str, Any]]:
        """A hub that cannot store anything can let nobody join and change nothing; it goes on relaying."""
        waiting = [] if self.store.problem is None else [f"its store: {self.store.problem}"]
        waiting += (f"nothing can be signed: {problem}" for problem in self.journals.problems())
        return not waiting, {"ready": not waiting, "waiting_for": waiting}

    async def _exposition(self) -> bytes:
        for rotating in self.rotatings:
            self.metrics.rotation.show(rotating.status())
        return self.metrics.render()
