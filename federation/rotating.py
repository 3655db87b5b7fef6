"""Drives the rotation of this cluster's authority: what the others hold goes in, the next phase comes out.

One look a second. Whatever fails (a full disk, a key store that does not answer) leaves the rotation where it is, is
said in `problem`, and is tried again: every step may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import structlog

from federation.agent import Agent
from federation.api.messages import Blocking, RotationStatus
from federation.attest import Instances
from federation.banned import banned_cluster
from federation.clock import Clock
from federation.errors import FederationError
from federation.gateways import Gateways
from federation.held import Held, Version
from federation.identity import Identity
from federation.model import HUB, MemberState
from federation.root_request import RootRequest
from federation.sync.publisher import Publisher
from federation.turning import Own, deadline, due, reports, survivors
from gateway.report_pb2 import ReportAck
from pki import bundle as bundles
from pki.certificate import authority_key_id, der, subject_key_id
from pki.errors import PkiError
from pki.ledger import Entry
from pki.lineage import Lineage
from pki.rotation import Barrier, Phase, Report, Rotation, Side, abort, advance, blockers

LOOK_EVERY = 1.0

RENEWALS_A_SECOND = 20
"""How many gateways are asked to come for a new certificate in one second; it is spread over a second at least."""

AFTER_AN_ABORT = timedelta(days=1)

MOST_NAMED = 5
"""Gateways that are named as those who hold a phase up."""

log = structlog.get_logger()


class Rotating:
    """The driver of one cluster's rotations. `run` it; ask `status`; `start`, `abort` and `go_on` are an operator's.

    `on_word` is called when `word_for` the gateways has changed.
    """

    def __init__(
        self,
        lineage: Lineage,
        identity: Identity,
        gateways: Gateways,
        instances: Instances,
        agent: Agent,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._lineage = lineage
        self._identity = identity
        self._gateways = gateways
        self._instances = instances
        self._agent = agent
        self._publisher = publisher
        self._clock = clock
        self._told: Held | None = None
        self._bundle = lineage.bundle()
        self._asked: int | None = None
        self._issued_after: datetime | None = None
        self._word = self._same_for_all()
        self.on_word: Callable[[], None] = lambda: None
        self.problem: str | None = None

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                await self.look()
                self.problem = None
            except (PkiError, FederationError, OSError) as error:
                if self.problem != str(error):
                    log.error("the rotation of our authority cannot go on; trying again", reason=str(error))
                self.problem = str(error)
            await self._clock.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Tell what we hold, and go on with the rotation if nobody holds it up. Raises PkiError or OSError."""
        self._tell_held()
        await self._lineage.realise()
        await self._ask_the_root()
        rotation = self._lineage.rotation
        if rotation is None or rotation.over:
            if self._clock.now() >= self._due():
                await self._lineage.begin("the agent", "two thirds of the authority's life are over")
        elif not self._lineage.manual:
            await self._enter(advance(rotation, self._members(), self._reports(rotation)))
        await self._follow()

    # ---- what an operator may ask ----------------------------------------------------------------------------------

    async def start(self, who: str, why: str, manual: bool) -> None:
        """Begin a rotation. Raises pki.errors.Refused if one is running."""
        rotation = await self._lineage.begin(who, why, manual=manual)
        log.info("rotation of our authority begins", number=rotation.token.rotation, who=who, why=why)
        await self._follow()

    async def abort(self) -> None:
        """Turn back. Raises FederationError where there is no way back."""
        rotation = self._running()
        back = abort(rotation)
        if back is None:
            raise FederationError(
                f"there is no way back from the phase {rotation.phase.value}",
                "wait until it is over, or start another rotation afterwards",
            )
        await self._enter(back)
        await self._follow()

    async def go_on(self) -> None:
        """The next step of a manual rotation. Raises FederationError while somebody holds it up."""
        rotation = self._running()
        holding = blockers(rotation, self._members(), self._reports(rotation))
        if holding:
            raise FederationError(
                f"{holding[0].member} {holding[0].reason}" + (", and others" if len(holding) > 1 else ""),
                "wait for it, or quarantine that cluster: federation cluster set NAME --state quarantined",
            )
        await self._enter(advance(rotation, self._members(), self._reports(rotation)))
        await self._follow()

    async def renew_all(self) -> None:
        """Ask everybody of this cluster for whom we issue to come for a new certificate, and get one ourselves."""
        self._issued_after = self._clock.now().replace(microsecond=0)  # as certificates begin
        self._tell_gateways()
        await self._identity.renew()

    def status(self) -> RotationStatus:
        lineage, rotation = self._lineage, self._lineage.rotation
        ends = lineage.issuer.self_signed.not_valid_after_utc
        now = lineage.authorities
        begun = lineage.begun
        return RotationStatus(
            trust_domain=str(lineage.trust_domain),
            number=rotation.token.rotation if rotation else 0,
            phase=rotation.phase.value if rotation else None,
            running=rotation is not None and not rotation.over,
            manual=lineage.manual,
            epochs=tuple(authority.epoch for authority in now.values()),
            issuing=lineage.issuer.epoch,
            sequence=lineage.bundle().sequence,
            begun_at=begun.at if begun else None,
            who=begun.who if begun else "",
            why=begun.why if begun else "",
            entered_at=lineage.entered,
            reversible=rotation is not None and rotation.rule.back is not None,
            blocking=tuple(self._blocking(rotation)) if rotation else (),
            deadline=deadline(min(each.self_signed.not_valid_after_utc for each in now.values())),
            due=self._due(),
            ends=ends,
            problem=self.problem,
        )

    # ---- what a gateway is told ------------------------------------------------------------------------------------

    def word_for(self, gateway: str) -> ReportAck:
        """What its report is answered with: our bundle if it goes by another one, and who issues now."""
        report, bundle = self._gateways.report(gateway), self._lineage.bundle()
        within = max(1, len(self._gateways.counted) // RENEWALS_A_SECOND)
        word = ReportAck(issuer=subject_key_id(self._lineage.self_signed), within_s=within)
        if report is None or report.bundle != bundle.version:
            word.bundle = bundles.encode(bundle)
        if self._issued_after is not None:
            word.issued_after_ms = int(self._issued_after.timestamp() * 1000)
        return word

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _running(self) -> Rotation:
        rotation = self._lineage.rotation
        if rotation is None or rotation.over:
            raise FederationError("no rotation is running", "see `federation ca rotate cluster status`")
        return rotation

    async def _enter(self, rotation: Rotation) -> None:
        before = self._lineage.rotation
        if rotation != before:
            await self._lineage.enter(rotation)
            log.info("rotation of our authority", number=rotation.token.rotation, phase=rotation.phase.value)

    async def _follow(self) -> None:
        """Our own certificate is of the authority that issues, and everybody is told of the newest bundle."""
        bundle = self._lineage.bundle()
        if bundle != self._bundle:
            self._publisher.set("bundle", bundle)
            self._bundle = bundle
        self._tell_gateways()
        if authority_key_id(self._identity.current.certificate) != subject_key_id(self._lineage.self_signed):
            await self._identity.renew()

    def _tell_gateways(self) -> None:
        """At once, instead of with the answers to their next reports."""
        if self._word != (word := self._same_for_all()):
            self._word = word
            self.on_word()

    def _same_for_all(self) -> tuple[Version, bytes, datetime | None]:
        """What the words for all gateways are made of."""
        lineage = self._lineage
        return lineage.bundle().version, subject_key_id(lineage.self_signed), self._issued_after

    def _tell_held(self) -> None:
        held = Held(
            self._agent.view.me.name,
            tuple(sorted((name, *version) for name, version in self._gateways.held().items())),
        )
        if held != self._told:
            self._publisher.set("held", held)
            self._told = held

    async def _ask_the_root(self) -> None:
        """For its word for the authority that follows, as long as that is missing. Nobody waits for it: it is for those
        who join later, and for those who trust the root.
        """
        following = self._lineage.authorities.get(Side.NEW)
        if following is None or following.root_signed is not None:
            self._publisher.remove("request")
            self._asked = None
        elif self._asked != following.epoch:
            name = self._agent.view.me.name
            self._publisher.set(
                "request", RootRequest(name, await following.csr(), der(following.self_signed))
            )
            self._asked = following.epoch

    def _members(self) -> frozenset[str]:
        """All who must believe what we issue: every cluster that is trusted, the hub, and ourselves."""
        view = self._agent.view
        others = {
            name
            for name, member in view.members.items()
            if member.state is not MemberState.QUARANTINED and banned_cluster(view.bans, name) is None
        }
        return frozenset({*others, view.me.name, HUB})

    def _reports(self, rotation: Rotation) -> dict[str, Report]:
        view, domain = self._agent.view, str(self._lineage.trust_domain)
        return reports(rotation, view.me.name, self._own(rotation), domain, view.held)

    def _own(self, rotation: Rotation) -> Own:
        bundle, authorities = self._lineage.bundle(), self._lineage.authorities
        issues = next(side for side, each in authorities.items() if each is self._lineage.issuer)
        lives = {issues}
        if self._survivors(rotation) or self._lineage.is_signing(_other(issues)):
            lives |= set(Side) - {issues}
        seen = [self._gateways.report(name) for name in self._gateways.counted]
        versions = [report.bundle for report in seen if report is not None]
        return Own(
            published=bundle.version,
            anchors=frozenset(s for s, each in authorities.items() if each.self_signed in bundle.anchors),
            held=min(versions, default=bundle.version) if len(versions) == len(seen) else None,
            issues=issues,
            living=frozenset(lives),
        )

    def _survivors(self, rotation: Rotation) -> tuple[Entry, ...]:
        """Certificates of the authority that is not to issue in this phase, as far as somebody may present them."""
        other = self._lineage.authorities.get(_other(rotation.rule.issuer))
        if other is None:
            return ()
        key = subject_key_id(other.self_signed)
        counted, presented = set(self._gateways.counted), dict[str, bool]()
        for spki, name in self._instances.keys().items():
            report = self._gateways.report(name)
            presented[spki] = name in counted and (report is None or report.issuer in (b"", key))
        now = self._clock.now()
        still_ours = authority_key_id(self._identity.current.certificate) == key
        return survivors(other.ledger(now), str(self._identity.spiffe_id), still_ours, presented, now)

    def _blocking(self, rotation: Rotation) -> Iterator[Blocking]:
        for each in blockers(rotation, self._members(), self._reports(rotation)):
            yield Blocking(
                member=each.member,
                reason=each.reason,
                who=self._lagging(rotation) if each.member == self._agent.view.me.name else (),
            )

    def _lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Of our own: gateways that go by another bundle, then those for whom the other authority still speaks."""
        version = self._lineage.bundle().version
        behind = []
        for name in self._gateways.counted:
            report = self._gateways.report(name)
            if report is None or report.bundle < version:
                behind.append(f"gateway {name}")
        if not behind and rotation.rule.barrier is Barrier.SWITCHED:
            behind = [
                f"{entry.identity} until {entry.not_after.isoformat(timespec='minutes')}"
                for entry in self._survivors(rotation)
            ]
        more = len(behind) - MOST_NAMED
        return (*behind[:MOST_NAMED], *((f"and {more} more",) if more > 0 else ()))

    def _due(self) -> datetime:
        """When the next one begins by itself; not at once where a person has just turned one back."""
        certificate, rotation = self._lineage.issuer.self_signed, self._lineage.rotation
        found = due(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        entered = self._lineage.entered
        if rotation is not None and rotation.phase is Phase.ABORTED and entered is not None:
            return max(found, entered + AFTER_AN_ABORT)
        return found


def _other(side: Side) -> Side:
    return Side.OLD if side is Side.NEW else Side.NEW
