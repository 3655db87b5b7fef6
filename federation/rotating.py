"""Drives the rotation of an authority: what those who believe it hold goes in, the next phase comes out.

One look a second. Whatever fails (a full disk, a key store that does not answer) leaves the rotation where it is, is
said in `problem`, and is tried again: every step may be repeated. Who believes an authority, how far they are, and what
has to follow when it changes, is its realm's: `federation.cluster_realm`, `hub_realm` and `root_realm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from federation.api.messages import Blocking, RotationStatus
from federation.clock import Clock
from federation.errors import FederationError
from federation.held import Version
from federation.turning import Own, deadline, due, other
from pki.errors import PkiError
from pki.lineage import Lineage
from pki.root_lineage import RootLineage
from pki.rotation import Phase, Report, Rotation, Side, abort, advance, blockers
from pki.succession import A, Succession

LOOK_EVERY = 1.0

AFTER_AN_ABORT = timedelta(days=1)

MOST_NAMED = 5
"""Of the driver's own who hold a phase up, as many are named."""

log = structlog.get_logger()


class Realm(Protocol):
    """Where one lineage is believed. `me` is the driver's own name there, `process` what people call it."""

    @property
    def me(self) -> str: ...

    @property
    def process(self) -> str: ...

    @property
    def lineage(self) -> Lineage | RootLineage: ...

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

    def members(self) -> frozenset[str]:
        """All who must believe what is signed here."""
        ...

    def reports(self, rotation: Rotation) -> Mapping[str, Report]: ...

    def lagging(self, rotation: Rotation) -> tuple[str, ...]:
        """Of the driver's own, who holds the phase up."""
        ...


def own(lineage: Succession[A], held: Version | None, others_live: bool) -> Own:
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
        rotation = self._lineage.rotation
        if rotation is None or rotation.over:
            if self._realm.automatic and self._clock.now() >= self._due():
                await self._lineage.begin(self._realm.process, "two thirds of the authority's life are over")
        elif not self._lineage.manual:
            await self._enter(advance(rotation, self._realm.members(), self._realm.reports(rotation)))
        await self._realm.follow()

    # ---- what an operator may ask ----------------------------------------------------------------------------------

    async def start(self, who: str, why: str, manual: bool) -> None:
        """Begin a rotation. Raises pki.errors.Refused if one is running."""
        rotation = await self._lineage.begin(who, why, manual=manual)
        log.info("a rotation begins", **self._about(), number=rotation.token.rotation, who=who, why=why)
        await self._realm.follow()

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
        await self._realm.follow()

    async def go_on(self) -> None:
        """The next step of a manual rotation. Raises FederationError while somebody holds it up."""
        await self._lineage.realise()
        rotation = self._running()
        members, reports = self._realm.members(), self._realm.reports(rotation)
        holding = blockers(rotation, members, reports)
        if holding:
            raise FederationError(
                f"{holding[0].member} {holding[0].reason}" + (", and others" if len(holding) > 1 else ""),
                "wait for it, or quarantine that cluster: federation cluster set NAME --state quarantined",
            )
        await self._enter(advance(rotation, members, reports))
        await self._realm.follow()

    async def renew_all(self) -> None:
        """Ask everybody for whom we issue to come for a new certificate. Raises FederationError where nobody is."""
        await self._realm.renew_all()

    def status(self) -> RotationStatus:
        lineage, rotation = self._lineage, self._lineage.rotation
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
            ends=lineage.issuer.self_signed.not_valid_after_utc,
            problem=self.problem,
        )

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _running(self) -> Rotation:
        rotation = self._lineage.rotation
        if rotation is None or rotation.over:
            raise FederationError("no rotation is running", "see `federation ca rotate … status`")
        return rotation

    async def _enter(self, rotation: Rotation) -> None:
        before = self._lineage.rotation
        if rotation != before:
            await self._lineage.enter(rotation)
            log.info("rotation", **self._about(), number=rotation.token.rotation, phase=rotation.phase.value)

    def _blocking(self, rotation: Rotation) -> Iterator[Blocking]:
        for each in blockers(rotation, self._realm.members(), self._realm.reports(rotation)):
            own = self._realm.lagging(rotation) if each.member == self._realm.me else ()
            more = len(own) - MOST_NAMED
            yield Blocking(
                member=each.member,
                reason=each.reason,
                who=(*own[:MOST_NAMED], *((f"and {more} more",) if more > 0 else ())),
            )

    def _due(self) -> datetime:
        """When the next one begins by itself; not at once where a person has just turned one back."""
        certificate, rotation = self._lineage.issuer.self_signed, self._lineage.rotation
        if not self._realm.automatic:
            return certificate.not_valid_after_utc
        found = due(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        entered = self._lineage.entered
        if rotation is not None and rotation.phase is Phase.ABORTED and entered is not None:
            return max(found, entered + AFTER_AN_ABORT)
        return found

    def _about(self) -> dict[str, str]:
        return {"authority": str(self._lineage.trust_domain)}
