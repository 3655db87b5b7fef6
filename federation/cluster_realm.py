"""Where the authority of one cluster is believed: by its gateways and workloads, by all other clusters, by the hub.

Driven by the cluster's agent. It also tells what this cluster goes by itself, and asks the root for its word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from datetime import datetime, timedelta

from federation.agent import Agent
from federation.api.messages import LeavesStatus
from federation.banned import banned_cluster
from federation.blocking import Kind, Seen
from federation.clock import Clock
from federation.evidence import Evidence
from federation.gateways import Gateways
from federation.held import Version
from federation.holding import Holding
from federation.identity import Identity
from federation.inputs import is_peer
from federation.model import HUB, Freshness, MemberState
from federation.onlookers import OUTSIDERS, WORKLOADS, behind, of_outsiders, of_workloads, report
from federation.root_request import RootRequest
from federation.rotating import own
from federation.sync.publisher import Publisher
from federation.trust import Trust
from federation.turning import Own, few, named, other, reports, survivors
from gateway.report_pb2 import ReportAck
from pki import bundle as bundles
from pki.bundle import Bundle
from pki.certificate import authority_key_id, der, load_pem, subject_key_id
from pki.ledger import Entry
from pki.lineage import Lineage
from pki.profiles import CLUSTER_CA
from pki.rotation import Barrier, Lack, Report, Rotation, Side
from pki.spiffe import SpiffeId

RENEWALS_A_SECOND = 20
"""How many gateways are asked to come for a new certificate in one second; it is spread over a second at least."""


class ClusterRealm:
    """A `federation.rotating.Realm`. `on_word` is called when `word_for` the gateways has changed."""

    process = "the agent"
    kind: Kind = "cluster"
    automatic = True

    def __init__(
        self,
        lineage: Lineage,
        identity: Identity,
        gateways: Gateways,
        agent: Agent,
        publisher: Publisher,
        trust: Trust,
        clock: Clock,
        gone: Callable[[], Set[int]] = frozenset,
        until: Callable[[Bundle], datetime | None] = lambda _: None,
    ) -> None:
        """`gone` is told by `federation.svid.arrivals`, `until` by `federation.outsiders`."""
        self.lineage = lineage
        self._identity = identity
        self._gateways = gateways
        self._agent = agent
        self._publisher = publisher
        self._trust = trust
        self._clock = clock
        self._gone = gone
        self._until = until
        self._holding = Holding(lineage, publisher, clock)
        self._evidence = Evidence()
        self._bundle = lineage.bundle()
        self._asked: tuple[int, bytes] | None = None
        self._issued_after: datetime | None = None
        self._ends_before: dict[str, datetime | None] = {}
        self._presents_less = False
        self._word = self._same_for_all()
        self.on_word: Callable[[], None] = lambda: None

    @property
    def me(self) -> str:
        return self._agent.view.me.name

    def problems(self) -> tuple[str, ...]:
        """Why others are not told now what is held here."""
        return () if self._holding.problem is None else (self._holding.problem,)

    async def prepare(self) -> None:
        """Tell what we hold, and ask the root."""
        versions = self._gateways.held() | self._trust.held()
        newest = (*self._agent.view.bundles.values(), self._trust.hub, self._trust.roots)
        await self._holding.tell(versions, newest, self._presented())
        await self._ask_the_root()

    async def follow(self) -> None:
        """Our own certificate is of the authority that issues, and everybody is told of the newest bundle."""
        bundle = self.lineage.bundle()
        self._until(bundle)  # from now on it is there
        if bundle != self._bundle:
            self._publisher.set("bundle", bundle)
            self._bundle = bundle
        self._tell_gateways()
        if authority_key_id(self._identity.current.certificate) != subject_key_id(self.lineage.self_signed):
            await self._identity.renew()
        if self._presents_less:
            await self.renew_all()
            self._presents_less = False

    async def renew_all(self) -> None:
        """Ask everybody of this cluster for whom we issue to come for a new certificate, and get one ourselves."""
        self._issued_after = self._clock.now().replace(microsecond=0)  # as certificates begin
        self._ends_before = {name: self._end_of(name) for name in self._gateways.counted}
        self._tell_gateways()
        await self._identity.renew()

    def leaves(self) -> LeavesStatus | None:
        """Whoever shows a certificate that ends later than the one that he had has renewed it."""
        if self._issued_after is None:
            return None
        asked = [name for name in self._gateways.counted if name in self._ends_before]
        waiting = [name for name in asked if self._end_of(name) == self._ends_before[name]]
        lines = tuple(f"gateway {name}, {self._gateways.whereabouts(name)}" for name in waiting)
        return LeavesStatus(asked_at=self._issued_after, renewed=len(asked) - len(waiting), waiting=lines)

    def _end_of(self, gateway: str) -> datetime | None:
        report = self._gateways.report(gateway)
        return None if report is None else report.certificate_expires_at

    def rooted_anew(self) -> None:
        """A root has signed our authority, for the first time or in another one's place: that is to be presented with
        each leaf, also with those that were issued before.
        """
        self._presents_less = True

    # ---- what a gateway is told ------------------------------------------------------------------------------------

    def word_for(self, gateway: str) -> ReportAck:
        """What its report is answered with: our bundle if it goes by another one, and who issues now."""
        report, bundle = self._gateways.report(gateway), self.lineage.bundle()
        within = max(1, len(self._gateways.counted) // RENEWALS_A_SECOND)
        word = ReportAck(issuer=subject_key_id(self.lineage.self_signed), within_s=within)
        if report is None or report.bundle != bundle.version:
            word.bundle = bundles.encode(bundle)
        if self._issued_after is not None:
            word.issued_after_ms = int(self._issued_after.timestamp() * 1000)
        return word

    def _tell_gateways(self) -> None:
        """At once, instead of with the answers to their next reports."""
        if self._word != (word := self._same_for_all()):
            self._word = word
            self.on_word()

    def _same_for_all(self) -> tuple[Version, bytes, datetime | None]:
        """What the words for all gateways are made of."""
        return self.lineage.bundle().version, subject_key_id(self.lineage.self_signed), self._issued_after

    # ---- what the others are told ----------------------------------------------------------------------------------

    def _presented(self) -> set[bytes]:
        """The key identifiers of the roots whose word for our authorities is presented, by our own leaf too."""
        forms = [each.root_signed for each in self.lineage.authorities.values()]
        forms += load_pem(self._identity.current.chain)[1:]
        return {key for form in forms if form is not None and (key := authority_key_id(form)) is not None}

    async def _ask_the_root(self) -> None:
        """For its word for our newest authority, as long as that is missing, or is that of a root which signs no more.
        No rotation of ours waits for it: it is for those who join later, and for those who trust the root. The hub may
        know the request by the join, or have lost it with a rotation that was over before the root could sign.
        """
        side = Side.NEW if Side.NEW in self.lineage.authorities else Side.OLD
        newest, issuing = self.lineage.authorities[side], self._trust.issuing
        form = newest.root_signed
        wanted = form is None or issuing not in (b"", authority_key_id(form))
        asked = (newest.epoch, issuing)
        if not wanted:
            self._publisher.remove("request")
            self._asked = None
        elif self._asked != asked:
            request = RootRequest(self.me, await newest.csr(), der(newest.self_signed))
            self._publisher.set("request", request)
            self._asked = asked

    # ---- how far everybody is --------------------------------------------------------------------------------------

    def members(self) -> frozenset[str]:
        """All who must believe what we issue: every cluster that our gateways trust or are about to, the hub, and
        ourselves. Whom a hub has us wait for no longer, our gateways no longer talk to.
        """
        view = self._agent.view
        trusted = {peer.name for peer in self._agent.compiled.fabric.peers}
        others = {name for name in view.members if self._disbelieved(name) is None}
        return frozenset({*trusted, *others, view.me.name, HUB, WORKLOADS, OUTSIDERS})

    def unawaited(self) -> tuple[str, ...]:
        view = self._agent.view
        found = ((name, self._disbelieved(name)) for name in sorted(set(view.members) - self.members()))
        return tuple(f"{name}: {why}" for name, why in found if why is not None)

    def _disbelieved(self, name: str) -> str | None:
        view = self._agent.view
        if banned_cluster(view.bans, name) is not None:
            return "it is banned"
        if view.members[name].state is MemberState.QUARANTINED:
            return "it is quarantined"
        return None if is_peer(view, name) else "its anchors are not known here, or its gateways are banned"

    def seen(self, member: str) -> Seen:
        if member == WORKLOADS and (waited_for := tuple(self._unready())):
            return Seen(True, onlooker=of_workloads(waited_for))
        if member == OUTSIDERS and (until := self._until(self.lineage.bundle())) is not None:
            return Seen(True, onlooker=of_outsiders(until))
        view = self._agent.view
        held, lease = view.held.get(member), view.leases.get(member)
        says = held is not None
        version = None if held is None else held.version(str(self.lineage.trust_domain))
        if not view.hub_up:
            return Seen(False if member == HUB else None, None, says, version)
        if member == HUB or (lease is not None and lease.freshness is Freshness.FRESH):
            return Seen(True, None, says, version)
        since = None if lease is None else self._clock.now() - timedelta(seconds=lease.silence)
        return Seen(False, since, says, version)

    def reports(self, rotation: Rotation) -> dict[str, Report | Lack]:
        view, domain = self._agent.view, str(self.lineage.trust_domain)
        heard = self._evidence.weigh(view.held, view.bundles.get, self.lineage.bundle())
        found = reports(rotation, view.me.name, self._own(rotation), domain, heard.counted)
        looking_on = {
            WORKLOADS: report(rotation, lambda: next(self._unready(), None) is None),
            OUTSIDERS: report(rotation, lambda: self._until(self.lineage.bundle()) is None),
        }
        return {**found, **heard.doubts, **looking_on}

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Gateways that go by another bundle, then those for whom the other authority still speaks."""
        version = self.lineage.bundle().version
        behind = []
        for name in self._gateways.counted:
            report = self._gateways.report(name)
            if report is None or report.bundle < version:
                behind.append(f"gateway {name}, {self._gateways.whereabouts(name)}")
        if not behind and rotation.rule.barrier is Barrier.SWITCHED:
            return named(self._survivors(rotation))
        return few(behind, len(behind))

    def _own(self, rotation: Rotation) -> Own:
        bundle = self.lineage.bundle()
        seen = [self._gateways.report(name) for name in self._gateways.counted]
        versions = [report.bundle for report in seen if report is not None]
        held = min(versions, default=bundle.version) if len(versions) == len(seen) else None
        return own(self.lineage, held, any(self._survivors(rotation)))

    def _survivors(self, rotation: Rotation) -> Iterator[Entry]:
        """Certificates of the authority that is not to issue in this phase, as far as somebody may present them."""
        ended = self.lineage.authorities.get(other(rotation.rule.issuer))
        if ended is None:
            return iter(())
        key = subject_key_id(ended.self_signed)
        counted, presented = set(self._gateways.counted), dict[str, bool]()
        for spki, name in self._gateways.keys().items():
            report = self._gateways.report(name)
            presented[spki] = name in counted and (report is None or report.issuer in (b"", key))
        now = self._clock.now()
        still_ours = authority_key_id(self._identity.current.certificate) == key
        ours, gone = str(self._identity.spiffe_id), self._gone()
        found = survivors(ended.ledger(now), ours, still_ours, presented, now, gone)
        return (one for one in found if not self._is_banned(one))

    def _unready(self) -> Iterator[Entry]:
        """Certificates of workloads that may not know our newest bundle."""
        now = self._clock.now()
        return behind(
            self.lineage.ledger(now), self.lineage.bundle().sequence, self._gone(), self._is_banned, now
        )

    def _is_banned(self, entry: Entry) -> bool:
        """Whoever is banned presents it in vain, and gets no other one."""
        if not self._agent.view.bans or entry.profile == CLUSTER_CA.name:
            return False
        return self._gateways.why_banned(SpiffeId.parse(entry.identity), entry.spki) is not None
