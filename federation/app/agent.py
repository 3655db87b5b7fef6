"""`federation agent`: discovery, decisions, the stream to the hub, and all that its doors (`agent_doors`) need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from federation.agent import Agent, Outlets, remembered_view
from federation.anchors import find_again
from federation.api.agent_routes import AgentRoutes
from federation.api.audit_routes import AuditRoutes
from federation.api.authority_routes import AgentAuthorityRoutes, Own
from federation.api.ban_routes import at_an_agent
from federation.api.ceremony_routes import CeremonyRoutes
from federation.api.inward import Inward
from federation.api.issue_routes import IssueRoutes
from federation.api.rotation_routes import RotationRoutes
from federation.app.agent_doors import AgentDoors
from federation.app.agent_settings import limits_of, me_of, orders_of, quota_of, tuning_of
from federation.app.agent_state import AgentState
from federation.app.auditing import KeptByAgent, tell_heads
from federation.app.bundles import BundleExchange, refuse_ours
from federation.app.figures import watch_agent
from federation.app.keys import authority_keys
from federation.app.vaults import Vaults
from federation.attest import Attestor, Instances
from federation.ceremony import AgentCeremony
from federation.clock import Clock
from federation.cluster_realm import ClusterRealm
from federation.config import AgentSettings
from federation.discovery.files import FileDiscovery
from federation.errors import FederationError
from federation.events import Event
from federation.gateways import Gateways
from federation.heads import Heads, JournalHead
from federation.identity import Identity
from federation.issuer import Issuer
from federation.join import Membership, join, join_again, membership, open_authority
from federation.journals import Journals, of
from federation.knowledge import Knowledge
from federation.model import Position
from federation.offering import Offering
from federation.opening import Known, Opening
from federation.orders import Orders
from federation.rooting import Rooting
from federation.rotating import Rotating
from federation.store import SqliteStore
from federation.sync.client import Credentials, Ports, SyncClient
from federation.sync.codec import BUNDLE, JOURNAL
from federation.sync.importer import Importer
from federation.sync.publisher import Publisher
from federation.telemetry import AgentMetrics
from federation.tokens import TokenStore
from federation.trust import Trust
from pki import durable
from pki.keys import KeyStore
from pki.keys.passphrase import Passphrase
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain

log = structlog.get_logger()


async def run(settings: AgentSettings, passphrase: Passphrase | None, clock: Clock) -> None:
    """Run an agent until cancelled, its keys encrypted with `passphrase` if there is one.

    Raises FederationError or PkiError if it cannot start.
    """
    folder = Path(settings.directory)
    durable.private_folder(folder)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await SqliteStore.open(folder / "agent.db"))
        durable.sweep(folder)  # it is ours alone: the store is locked
        vaults = Vaults(folder, clock, stack)
        keys = await authority_keys(folder / "keys", passphrase, settings.keys, vaults)
        member = await _membership(settings, folder, keys, clock)
        refuse_ours(settings.federates, member.base)
        trust = Trust.open(folder, member, clock)
        domain = TrustDomain.of_cluster(settings.cluster, member.base)
        authority = await open_authority(folder, keys, domain, clock)
        stack.push_async_callback(authority.close)
        await _Process(settings, member, trust, authority, store, vaults, passphrase, clock).run()


async def _membership(settings: AgentSettings, folder: Path, keys: KeyStore, clock: Clock) -> Membership:
    """What this cluster was told when it joined; it joins now if it never did, or was given another token since."""
    member = membership(folder / "membership.json")
    if member is not None:
        if settings.join_token is None:
            return member
        roots = Trust.open(folder, member, clock).roots
        return await join_again(settings.cluster, member, settings.join_token, folder, keys, clock, roots)
    if settings.join_token is None:
        raise FederationError(
            f"{settings.cluster} has not joined yet and has no token",
            f"on the hub: federation token create {settings.cluster} --may-export … --range … --out FILE; "
            "then set join_token",
        )
    return await join(settings.cluster, settings.join_token, folder, keys, clock)


class _Process:
    """Everything an agent consists of, and how it is joined."""

    def __init__(
        self,
        settings: AgentSettings,
        member: Membership,
        trust: Trust,
        authority: Lineage,
        store: SqliteStore,
        vaults: Vaults,
        passphrase: Passphrase | None,
        clock: Clock,
    ) -> None:
        self.vaults = vaults
        self.settings = settings
        self.member = member
        self.trust = trust
        self.authority = authority
        self.clock = clock
        self.folder = Path(settings.directory)
        self.metrics = AgentMetrics()
        vaults.watch(self.metrics.vault_token)
        self.knowledge = Knowledge(store)
        self.tokens = TokenStore(store, clock.now)
        self.instances = Instances(store)
        self.lifetime = timedelta(seconds=settings.certificate_lifetime)
        domain = authority.trust_domain
        self.identity = Identity(
            authority, SpiffeId.agent(domain), self.folder / "leaf.pem", self.lifetime, clock, passphrase
        )
        self.issuer = Issuer(
            authority,
            self.tokens,
            limits_of(settings),
            quota_of(settings),
            clock,
            self._why_banned,
            authority.tally,
        )
        self.attestor = Attestor(
            authority,
            lambda: trust.root,
            self.tokens,
            self.instances,
            settings.advertise.api,
            settings.advertise.xds,
            member.base,
            self.lifetime,
            clock,
            why_banned=self._why_banned,
            issuer=self.issuer,
            workloads=settings.issuing.doors.advertise if settings.issuing.doors else None,
        )

    async def run(self) -> None:
        await self.identity.start()
        await self.instances.load()
        remembered = await self.knowledge.load()
        base = self.member.base
        self.publisher = Publisher(self.settings.cluster, remembered.epoch)
        importer = Importer(self.settings.cluster, base, self.trust.accept)
        events = importer.restore(remembered.heard, remembered.cursors, remembered.believed)
        view = remembered_view(me_of(self.settings, base), remembered, events, self.clock.now())
        outlets = Outlets(
            self.publisher,
            lambda snapshots: self.gateways.publish(snapshots),
            lambda: self.doors.cut_the_banned(),
        )
        self.agent = Agent(
            view,
            Opening(remembered.served, remembered.told),
            partial(self._known, importer, remembered.epoch),
            tuning_of(self.settings),
            self.knowledge,
            outlets,
            self.metrics,
        )
        self.gateways = Gateways(
            self.agent, self.authority.bundle, self.instances, self.clock, self.authority.certified
        )
        self.discovery = FileDiscovery(
            self.settings.services, self.agent.submit, self.clock, remembered=frozenset(view.local)
        )
        self.rooting = Rooting(
            self.settings.cluster,
            self.authority,
            lambda: self.trust.roots.anchors,
            lambda: self.trust.issuing,
            lambda: self.realm.rooted_anew(),
        )
        for event in events:
            self.trust.hear(event)
            self.rooting.hear(event)
        bundle = self.authority.bundle()
        if bundle.proof.rooted or bundle.proof.signatures:
            self.publisher.set("bundle", bundle)
        ports = Ports(self._credentials, self.knowledge, self._submit, lambda path: self.inward.answer(path))
        sync = SyncClient(
            self.member.sync, self.member.hub_domain, self.publisher, importer, ports, self.clock
        )
        self.offering = Offering(
            self.member.api,
            self.authority,
            self.folder,
            self.trust,
            lambda: self.agent.view,
            self.clock,
        )
        journals, others = Journals(self.folder, lambda: of(self.authority)), KeptByAgent(self.agent)
        watch_agent(self.metrics, self.authority, self.identity, self.agent, self.trust, others)
        state = AgentState(
            agent=self.agent,
            gateways=self.gateways,
            discovery=self.discovery,
            publisher=self.publisher,
            knowledge=self.knowledge,
            sync=sync,
            identity=self.identity,
            authority=self.authority,
            hub=self.member.sync,
            leaf_life=self.lifetime,
            metrics=self.metrics,
            clock=self.clock,
            rotation=lambda: rotating.status(),
            unsigned=lambda: (
                *journals.problems(),
                *self.vaults.problems,
                *self._untrusted(),
                *self.realm.problems(),
            ),
            doubted=lambda: (
                *self._old_copy(),
                *others.problems(),
                *self.trust.problems(),
                *importer.problems(),
                *bundles.foreign.problems(),
            ),
        )
        routes = AgentRoutes(self.agent, self.attestor, self.tokens, state, self.clock).routes()
        routes += IssueRoutes(self.issuer, self.authority).routes()
        bundles = BundleExchange(
            self.settings.bundle_endpoint,
            self.settings.federates,
            self.authority.trust_domain,
            self.folder / "federates",
            self.identity,
            lambda: {self.authority.trust_domain: self.authority.bundle()},
            self.clock,
        )
        me, roots = self.settings.cluster, lambda: self.trust.roots.anchors
        place = "file" if self.settings.keys.vault is None else "vault"
        own = Own(me, self.authority, self.identity, roots, place, bundles.foreign.told, self.clock)
        self.realm = ClusterRealm(
            self.authority,
            self.identity,
            self.gateways,
            self.agent,
            self.publisher,
            self.trust,
            self.clock,
            lambda: self.issuer.gone,
            bundles.until,
        )
        self.doors = AgentDoors(
            self.settings,
            self.folder,
            self.authority,
            self.identity,
            self.issuer,
            self.gateways,
            self.realm,
            self.clock,
        )
        rotating = Rotating(self.realm, self.clock)
        orders = Orders.open(self.folder, orders_of(self.settings), self.clock)
        routes += RotationRoutes(rotating, cluster=me, orders=orders).routes()
        ceremony = AgentCeremony(
            self.member.base, lambda: self.trust.root, self.authority, self.clock, self.realm.rooted_anew
        )
        routes += CeremonyRoutes(ceremony, self.clock).routes()
        routes += AgentAuthorityRoutes(own, self.agent, lambda: self.trust.hub).routes()
        routes += bundles.routes()
        routes += AuditRoutes(
            self.settings.cluster, journals, self.folder, others.kept, others.accept
        ).routes()
        routes += at_an_agent(self.settings.cluster, lambda: dict(self.agent.view.bans.items()))
        self.inward = Inward(routes)
        self.identity.on_renewal(lambda _: sync.refresh())
        async with asyncio.TaskGroup() as group:
            group.create_task(self.knowledge.run(), name="knowledge")
            group.create_task(self.agent.run(self.clock), name="agent")
            group.create_task(bundles.run(), name="bundles")
            group.create_task(self.discovery.run(), name="discovery")
            group.create_task(self._listed(), name="listed")
            group.create_task(self.identity.run(), name="identity")
            group.create_task(sync.run(), name="sync")
            group.create_task(self.gateways.forget_the_lost(), name="gateways")
            group.create_task(
                tell_heads(self._heads_of(journals), self._tell_heads, self.clock), name="heads"
            )
            group.create_task(rotating.run(), name="rotating")
            group.create_task(self.trust.run(), name="trust")
            if self.member.api:
                looking = find_again(self.member.api, self.trust, lambda: sync.connected, self.clock)
                group.create_task(looking, name="the hub's anchors")
            group.create_task(
                self.offering.run(lambda: sync.connected and BUNDLE not in self.publisher.refused),
                name="offering",
            )
            for use, session in self.vaults.sessions.items():
                group.create_task(session.run(), name=f"vault for {use}")
            group.create_task(self.rooting.run(), name="rooting")
            if (issuing := self.doors.issuing()) is not None:
                group.create_task(issuing.run(), name="issuing doors")
            await self.doors.serve(routes, state)

    def _untrusted(self) -> tuple[str, ...]:
        return () if self.trust.problem is None else (self.trust.problem,)

    def _old_copy(self) -> tuple[str, ...]:
        return () if self.offering.problem is None else (self.offering.problem,)

    def _known(self, importer: Importer, epoch: int) -> Known:
        """`epoch` is the one on disk, in which we speak until a hub has told what it remembers of us."""
        heard = frozenset(owner for owner, at in importer.have().items() if at > Position())
        return Known(heard, max(epoch, self.publisher.feed.epoch))

    def _submit(self, event: Event) -> None:
        """What was heard from the others."""
        self.trust.hear(event)
        self.rooting.hear(event)
        self.agent.submit(event)

    async def _listed(self) -> None:
        await self.discovery.listed.wait()
        self.agent.services_listed()

    def _credentials(self) -> Credentials:
        leaf = self.identity.current
        return Credentials(self.trust.hub.pem(), leaf.chain, leaf.key)

    def _why_banned(self, identity: SpiffeId, key: str) -> str | None:
        return self.gateways.why_banned(identity, key)

    def _heads_of(self, journals: Journals) -> Callable[[], tuple[JournalHead, ...]]:
        return lambda: tuple(one for one in journals.heads() if one.authority in self.authority.witnessed)

    def _tell_heads(self, heads: tuple[JournalHead, ...]) -> None:
        self.publisher.set(JOURNAL, Heads(self.settings.cluster, heads))
