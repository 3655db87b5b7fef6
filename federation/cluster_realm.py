"""Where the authority of one cluster is believed: by its gateways and workloads, by all other clusters, by the hub.

Driven by the cluster's agent. It also tells what this cluster goes by itself, and asks the root for its word.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from federation.agent import Agent
from federation.attest import Instances
from federation.banned import banned_cluster
from federation.clock import Clock
from federation.gateways import Gateways
from federation.held import Held, Version
from federation.identity import Identity
from federation.model import HUB, MemberState
from federation.root_request import RootRequest
from federation.rotating import own
from federation.sync.publisher import Publisher
from federation.trust import Trust
from federation.turning import Own, lives, other, reports, survivors
from gateway.report_pb2 import ReportAck
from pki import bundle as bundles
from pki.certificate import authority_key_id, der, load_pem, subject_key_id
from pki.ledger import Entry
from pki.lineage import Lineage
from pki.rotation import Barrier, Report, Rotation, Side

RENEWALS_A_SECOND = 20
"""How many gateways are asked to come for a new certificate in one second; it is spread over a second at least."""


class ClusterRealm:
    """A `federation.rotating.Realm`. `on_word` is called when `word_for` the gateways has changed."""

    process = "the agent"
    automatic = True

    def __init__(
        self,
        lineage: Lineage,
        identity: Identity,
        gateways: Gateways,
        instances: Instances,
        agent: Agent,
        publisher: Publisher,
        trust: Trust,
        clock: Clock,
    ) -> None:
        self.lineage = lineage
        self._identity = identity
        self._gateways = gateways
        self._instances = instances
        self._agent = agent
        self._publisher = publisher
        self._trust = trust
        self._clock = clock
        self._told: Held | None = None
        self._bundle = lineage.bundle()
        self._asked: tuple[int, bytes] | None = None
        self._issued_after: datetime | None = None
        self._presents_less = False
        self._word = self._same_for_all()
        self.on_word: Callable[[], None] = lambda: None

    @property
    def me(self) -> str:
        return self._agent.view.me.name

    async def prepare(self) -> None:
        """Tell what we hold, and ask the root."""
        self._tell_held()
        await self._ask_the_root()

    async def follow(self) -> None:
        """Our own certificate is of the authority that issues, and everybody is told of the newest bundle."""
        bundle = self.lineage.bundle()
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
        self._tell_gateways()
        await self._identity.renew()

    def rooted_anew(self) -> None:
        """Another root has signed our authority: what is presented with each leaf is to be its word."""
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

    def _tell_held(self) -> None:
        versions = self._gateways.held() | self._trust.held()
        held = Held(
            self.me,
            tuple(sorted((name, *version) for name, version in versions.items())),
            tuple(sorted(self._presented())),
        )
        if held != self._told:
            self._publisher.set("held", held)
            self._told = held

    def _presented(self) -> set[bytes]:
        """The key identifiers of the roots whose word for our authorities is presented, by our own leaf too."""
        forms = [each.root_signed for each in self.lineage.authorities.values()]
        forms += load_pem(self._identity.current.chain)[1:]
        return {key for form in forms if form is not None and (key := authority_key_id(form)) is not None}

    async def _ask_the_root(self) -> None:
        """For its word for our newest authority, as long as that is missing, or is that of a root which signs no more.
        No rotation of ours waits for it: it is for those who join later, and for those who trust the root.
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
        """All who must believe what we issue: every cluster that is trusted, the hub, and ourselves."""
        view = self._agent.view
        others = {
            name
            for name, member in view.members.items()
            if member.state is not MemberState.QUARANTINED and banned_cluster(view.bans, name) is None
        }
        return frozenset({*others, view.me.name, HUB})

    def reports(self, rotation: Rotation) -> dict[str, Report]:
        view, domain = self._agent.view, str(self.lineage.trust_domain)
        return reports(rotation, view.me.name, self._own(rotation), domain, view.held)

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Gateways that go by another bundle, then those for whom the other authority still speaks."""
        version = self.lineage.bundle().version
        behind = []
        for name in self._gateways.counted:
            report = self._gateways.report(name)
            if report is None or report.bundle < version:
                behind.append(f"gateway {name}")
        if not behind and rotation.rule.barrier is Barrier.SWITCHED:
            return tuple(map(lives, self._survivors(rotation)))
        return tuple(behind)

    def _own(self, rotation: Rotation) -> Own:
        bundle = self.lineage.bundle()
        seen = [self._gateways.report(name) for name in self._gateways.counted]
        versions = [report.bundle for report in seen if report is not None]
        held = min(versions, default=bundle.version) if len(versions) == len(seen) else None
        return own(self.lineage, held, bool(self._survivors(rotation)))

    def _survivors(self, rotation: Rotation) -> tuple[Entry, ...]:
        """Certificates of the authority that is not to issue in this phase, as far as somebody may present them."""
        ended = self.lineage.authorities.get(other(rotation.rule.issuer))
        if ended is None:
            return ()
        key = subject_key_id(ended.self_signed)
        counted, presented = set(self._gateways.counted), dict[str, bool]()
        for spki, name in self._instances.keys().items():
            report = self._gateways.report(name)
            presented[spki] = name in counted and (report is None or report.issuer in (b"", key))
        now = self._clock.now()
        still_ours = authority_key_id(self._identity.current.certificate) == key
        return survivors(ended.ledger(now), str(self._identity.spiffe_id), still_ours, presented, now)
