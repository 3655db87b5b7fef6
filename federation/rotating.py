"""Drives the rotation of an authority: what those who believe it hold goes in, the next phase comes out.

One look a second. Who is waited for ends with his certificate, so nothing goes on while the wall clock is doubted
(`pki.skew`). Whatever fails (a full disk, a key store that does not answer) leaves the rotation where it is, is
said in `problem`, and is tried again: every step may be repeated. Who believes an authority, how far they are, and what
has to follow when it changes, is its realm's: `federation.cluster_realm`, `hub_realm` and `root_realm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from federation.api.messages import Blocking, LeavesStatus, RotationStatus
from federation.blocking import Kind, Seen, command, of_another, of_the_driver
from federation.clock import Clock
from federation.errors import FederationError
from federation.held import Version
from federation.turning import Own, deadline, due, other
from pki.errors import ClockError, PkiError
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.root_lineage import RootLineage
from pki.rotation import Blocker, Phase, Reports, Rotation, Side, abort, advance, blockers
from pki.skew import Course, Reading, check_course, follow
from pki.succession import Succession

LOOK_EVERY = 1.0

AFTER_AN_ABORT = timedelta(days=1)

log = structlog.get_logger()


class Realm(Protocol):
    """Where one lineage is believed. `me` is the driver's own name there, `process` what people call it."""

    @property
    def me(self) -> str: ...

    @property
    def process(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def lineage(self) -> Lineage | RootLineage | OfflineRoot: ...

    @property
    def automatic(self) -> bool:
        """Whether a rotation begins by itself when it is due."""
        ...

    async def prepare(self) -> None:
        """Before a look: tell what is held here, ask for what is missing. Raises as `Rotating.look`."""
        ...

    async def follow(self) -> None:
        """After each step: issue and present what the phase says, and tell others. Raises as `Rotating.look`."""
        ...

    async def renew_all(self) -> None:
        """Have every leaf renewed that can be reached. Raises FederationError where there are none."""
        ...

    def leaves(self) -> LeavesStatus | None:
        """How far the last renewal of all leaves is that was asked for; None without one since the start."""
        ...

    def members(self) -> frozenset[str]:
        """All who must believe what is signed here."""
        ...

    def unawaited(self) -> tuple[str, ...]:
        """Who would be a member, and nobody waits for, each with the reason."""
        ...

    def reports(self, rotation: Rotation) -> Reports: ...

    def seen(self, member: str) -> Seen:
        """What is known of another member besides its report."""
        ...

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Of the driver's own, who holds the phase up: the first few, and how many there are besides."""
        ...


def own(lineage: Succession[Any], held: Version | None, others_live: bool) -> Own:
    """Where the driver stands; `others_live` says that leaves of the authority that does not issue may be presented.

    What that one is still working on counts too.
    """
    bundle, authorities = lineage.bundle(), lineage.authorities
    issues = next(side for side, each in authorities.items() if each is lineage.issuer)
    return Own(
        published=bundle.version,
        anchors=frozenset(side for side, each in authorities.items() if each.self_signed in bundle.anchors),
        held=held,
        issues=issues,
        living=frozenset(Side) if others_live or lineage.is_signing(other(issues)) else frozenset({issues}),
    )


class Rotating:
    """The driver of one lineage's rotations. `run` it; ask `status`; `start`, `abort` and `go_on` are an operator's."""

    def __init__(self, realm: Realm, clock: Clock) -> None:
        self._realm = realm
        self._lineage = realm.lineage
        self._clock = clock
        self._course: Course | None = None
        self.problem: str | None = None

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                await self.look()
                self.problem = None
            except (PkiError, FederationError, OSError) as error:
                if self.problem != str(error):
                    log.error("a rotation cannot go on; trying again", **self._about(), reason=str(error))
                self.problem = str(error)
            await self._clock.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Go on with the rotation if nobody holds it up. Raises PkiError, FederationError or OSError."""
        await self._realm.prepare()
        await self._lineage.realise()
        doubt = self._doubt()
        if doubt is None:
            await self._step()
        await self._realm.follow()
        if doubt is not None:
            raise doubt

    # ---- what an operator may ask ----------------------------------------------------------------------------------

    async def start(self, who: str, why: str, manual: bool, ordered: bool = False) -> None:
        """Begin a rotation; `ordered` by an operator of the hub. Raises pki.errors.Refused if one is running, or the
        last one cannot end; else as `look`.
        """
        rotation = await self._lineage.begin(who, why, manual=manual, ordered=ordered)
        log.info("a rotation begins", **self._about(), number=rotation.token.rotation, who=who, why=why)
        await self._realm.follow()

    async def abort(self, number: int, phase: str) -> None:
        """Turn back the rotation that an operator saw in `phase`; it then runs by itself to its end.

        Raises FederationError where there is no way back, or if it has moved on.
        """
        rotation = self._running(number, phase)
        back = abort(rotation)
        if back is None:
            raise FederationError(
                f"there is no way back from the phase {rotation.phase.value}",
                "wait until it is over, or start another rotation afterwards",
            )
        await self._enter(back)
        await self._realm.follow()

    async def go_on(self, number: int, phase: str) -> None:
        """The next step of the rotation that an operator saw in `phase`.

        Raises FederationError while somebody holds it up or the clock is doubted, or if it has moved on.
        """
        await self._lineage.realise()
        if (doubt := self._doubt()) is not None:
            raise FederationError(str(doubt), "the rotation goes on once the clock is believed") from doubt
        rotation = self._running(number, phase)
        members, reports = self._realm.members(), self._realm.reports(rotation)
        holding = blockers(rotation, members, reports)
        if holding:
            first, others = self._explained(rotation, holding[0]), len(holding) - 1
            raise FederationError(
                f"{first.member}: {first.reason}" + (f"; and {others} more" if others else ""), first.todo
            )
        await self._enter(advance(rotation, members, reports))
        await self._realm.follow()

    async def renew_all(self) -> None:
        """Ask everybody for whom we issue to come for a new certificate. Raises FederationError where nobody is."""
        await self._realm.renew_all()

    @property
    def ordered(self) -> bool | None:
        """Whether an operator of the hub has ordered the rotation that runs; None if none runs."""
        rotation, begun = self._lineage.rotation, self._lineage.begun
        return None if rotation is None or rotation.over else begun is not None and begun.ordered

    def command(self, verb: str) -> str:
        """What an operator types about this rotation."""
        return command(self._realm.kind, self._realm.me, verb)

    def status(self) -> RotationStatus:
        lineage, rotation = self._lineage, self._lineage.rotation
        now = lineage.authorities
        begun, kind = lineage.begun, self._realm.kind
        blocking = tuple(self._blocking(rotation)) if rotation else ()
        return RotationStatus(
            kind=kind,
            cluster=self._realm.me if kind == "cluster" else "",
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
            ready=rotation is not None and self._waits_for_a_person(rotation) and not blocking,
            blocking=blocking,
            unawaited=self._realm.unawaited(),
            deadline=deadline(min(each.self_signed.not_valid_after_utc for each in now.values())),
            due=self._due(),
            ends=lineage.issuer.self_signed.not_valid_after_utc,
            problem=self.problem,
            leaves=self._realm.leaves(),
        )

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        """What a look leads to: the next phase, or the next rotation."""
        rotation = self._lineage.rotation
        if rotation is None or rotation.over:
            if self._realm.automatic and self._clock.now() >= self._due():
                await self._lineage.begin(self._realm.process, "two thirds of the authority's life are over")
        elif not self._waits_for_a_person(rotation):
            await self._enter(advance(rotation, self._realm.members(), self._realm.reports(rotation)))

    def _doubt(self) -> ClockError | None:
        """Why the wall clock is not to be believed now."""
        reading = Reading(self._clock.now(), self._clock.running())
        self._course = follow(self._course, reading)
        try:
            check_course(self._course, reading)
        except ClockError as error:
            return error
        return None

    def _running(self, number: int, phase: str) -> Rotation:
        """The rotation that runs, if it is where somebody saw it. Raises FederationError."""
        rotation, look = self._lineage.rotation, f"see where it is: {self.command('status')}"
        if rotation is None:
            raise FederationError("no rotation is running: there was none yet", look)
        here = f"rotation {rotation.token.rotation} is in the phase {rotation.phase.value} now"
        if rotation.over:
            raise FederationError(f"no rotation is running: {here}", look)
        if (number, phase) != (rotation.token.rotation, rotation.phase.value):
            raise FederationError(f"{here}, and what was asked for is about rotation {number}, {phase}", look)
        return rotation

    def _waits_for_a_person(self, rotation: Rotation) -> bool:
        """Not once the authority is due, if a hub ordered it: it could be left there until the authority has ended."""
        left = bool(self.ordered) and self._clock.now() >= self._due()
        return self._lineage.manual and not rotation.over and not rotation.returns and not left

    async def _enter(self, rotation: Rotation) -> None:
        before = self._lineage.rotation
        if rotation != before:
            await self._lineage.enter(rotation)
            log.info("rotation", **self._about(), number=rotation.token.rotation, phase=rotation.phase.value)

    def _blocking(self, rotation: Rotation) -> Iterator[Blocking]:
        if rotation.over:
            return
        for each in blockers(rotation, self._realm.members(), self._realm.reports(rotation)):
            yield self._explained(rotation, each)

    def _explained(self, rotation: Rotation, blocker: Blocker) -> Blocking:
        realm = self._realm
        if blocker.member != realm.me:
            published = self._lineage.bundle().version
            return of_another(blocker, realm.seen(blocker.member), published, self._lineage.entered)
        return of_the_driver(blocker, realm.kind, realm.lagging(rotation), self._lineage.entered)

    def _due(self) -> datetime:
        """When the next one begins by itself; not at once where a person has just turned one back that is no order of
        the hub, which could put it off like that day after day.
        """
        certificate, rotation = self._lineage.issuer.self_signed, self._lineage.rotation
        if not self._realm.automatic:
            return certificate.not_valid_after_utc
        found = due(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        entered, begun = self._lineage.entered, self._lineage.begun
        aborted = rotation is not None and rotation.phase is Phase.ABORTED
        if aborted and entered is not None and not (begun is not None and begun.ordered):
            return max(found, entered + AFTER_AN_ABORT)
        return found

    def _about(self) -> dict[str, str]:
        return {"authority": str(self._lineage.trust_domain)}
