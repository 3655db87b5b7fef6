"""The rotation of an authority: which step comes next, and who holds it up.

Pure. A `Rotation` is what is stored; everything else follows from its phase. Those who issue with the authority and
those who believe it only ever bring themselves to the phase as it is now, under a token that rises with each phase,
and report how far they are. Two barriers make it safe: no issuer is switched before its new anchor is everywhere (A),
and no anchor is taken away before every old issuer is fenced and no leaf of it lives (B). Going back is the mirror
image, with the same barriers. Nothing here waits for a time to pass instead of a report.

| phase | anchors | issued by | left when |
|---|---|---|---|
| prepared | old | old | at once |
| published | old, new | old | barrier A: everybody holds both anchors |
| active | old, new | new | barrier B: everybody issues with the new one only, and no leaf of the old one lives |
| retiring | new | new | everybody has let go of the old anchor |
| reverting | old, new | old | barrier B, the other way round |
| withdrawing | old | old | everybody has let go of the new anchor |
| done, aborted | new; old | new; old | – |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Side(StrEnum):
    """One of the two authorities of a rotation."""

    OLD = "old"
    NEW = "new"


class Phase(StrEnum):
    PREPARED = "prepared"
    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    DONE = "done"
    REVERTING = "reverting"
    WITHDRAWING = "withdrawing"
    ABORTED = "aborted"


BOTH = frozenset(Side)


class Barrier(StrEnum):
    """What must be true of everybody before a phase is left."""

    NONE = "none"
    ANCHORED = "anchored"
    """Everybody holds the anchors of this phase."""
    SWITCHED = "switched"
    """Everybody issues with the authority of this phase, cannot use the other one, and no leaf of that one lives."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds in a phase, how it is left, and where an abort leads (None: it is too late, or over)."""

    anchors: frozenset[Side]
    issuer: Side
    barrier: Barrier
    next: Phase | None
    back: Phase | None = None
    anew: bool = False
    """Whether the anchors are published under a new number though they are the same: what is said of that number was
    said by somebody who knew who issues again."""


_OLD, _NEW = frozenset({Side.OLD}), frozenset({Side.NEW})

RULES: Mapping[Phase, Rule] = {
    Phase.PREPARED: Rule(_OLD, Side.OLD, Barrier.NONE, Phase.PUBLISHED, Phase.ABORTED),
    Phase.PUBLISHED: Rule(BOTH, Side.OLD, Barrier.ANCHORED, Phase.ACTIVE, Phase.WITHDRAWING),
    Phase.ACTIVE: Rule(BOTH, Side.NEW, Barrier.SWITCHED, Phase.RETIRING, Phase.REVERTING),
    Phase.RETIRING: Rule(_NEW, Side.NEW, Barrier.ANCHORED, Phase.DONE),
    Phase.DONE: Rule(_NEW, Side.NEW, Barrier.NONE, None),
    Phase.REVERTING: Rule(BOTH, Side.OLD, Barrier.SWITCHED, Phase.WITHDRAWING, anew=True),
    Phase.WITHDRAWING: Rule(_OLD, Side.OLD, Barrier.ANCHORED, Phase.ABORTED),
    Phase.ABORTED: Rule(_OLD, Side.OLD, Barrier.NONE, None),
}


@dataclass(frozen=True, slots=True)
class Token:
    """Which rotation, and which of its phases, counted: what is older is never obeyed and proves nothing."""

    rotation: int
    step: int = 1

    def __lt__(self, other: Token) -> bool:
        return (self.rotation, self.step) < (other.rotation, other.step)


@dataclass(frozen=True, slots=True)
class Rotation:
    token: Token
    phase: Phase = Phase.PREPARED

    @property
    def rule(self) -> Rule:
        return RULES[self.phase]

    @property
    def over(self) -> bool:
        return self.rule.next is None

    @property
    def returns(self) -> bool:
        """Whether it was turned back, and is on its way."""
        return self.phase in (Phase.REVERTING, Phase.WITHDRAWING)


@dataclass(frozen=True, slots=True)
class Report:
    """How far one member is. `anchors` are held by each of its verifiers, durably and in use.

    `issues` is the only authority that it can issue with; `living` those with leaves that may still be presented.
    `token` is the newest phase that it has obeyed: all of the rest was true then, or since.
    """

    token: Token
    anchors: frozenset[Side]
    issues: Side
    living: frozenset[Side]


class Lack(StrEnum):
    """What is missing of a member before a phase can be left."""

    REPORT = "has not reported in this rotation"
    OBEDIENCE = "has not obeyed this phase yet"
    ANCHORS = "does not hold the anchors of this phase"
    ISSUER = "still issues with the other authority"
    LEAVES = "has leaves of the other authority that live"
    SIGNATURE = "does not sign what it says that it holds"
    BUNDLE = "has no anchors here by which its word could be verified"
    PROOF = "is said to hold what it has not signed"
    NEWS = "is said to hold what it has signed before a newer word"
    CONTENT = "holds other anchors, under the number of those that are the newest here"


Reports = Mapping[str, Report | Lack]
"""By member: how far it is, or why what is told of it does not count."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """Who holds a phase up, and by what."""

    member: str
    reason: Lack


def blockers(rotation: Rotation, members: frozenset[str], reports: Reports) -> tuple[Blocker, ...]:
    """Why the phase cannot be left yet, in the order of names; empty when it can.

    `members` are all who believe what is signed: whom nobody believes any more (a cluster in quarantine) is not among
    them.
    """
    rule = rotation.rule
    if rule.barrier is Barrier.NONE:
        return ()
    found = ((name, _missing(rotation, reports.get(name))) for name in sorted(members))
    return tuple(Blocker(name, reason) for name, reason in found if reason is not None)


def _missing(rotation: Rotation, report: Report | Lack | None) -> Lack | None:
    rule = rotation.rule
    if report is None:
        return Lack.REPORT
    if isinstance(report, Lack):
        return report
    if report.token < rotation.token:
        return Lack.OBEDIENCE
    if report.anchors != rule.anchors:
        return Lack.ANCHORS
    if rule.barrier is Barrier.ANCHORED:
        return None
    if report.issues is not rule.issuer:
        return Lack.ISSUER
    if not report.living <= {rule.issuer}:
        return Lack.LEAVES
    return None


def advance(rotation: Rotation, members: frozenset[str], reports: Reports) -> Rotation:
    """The next phase if nobody holds it up, else the same rotation."""
    following = rotation.rule.next
    if following is None or blockers(rotation, members, reports):
        return rotation
    return _entered(rotation, following)


def abort(rotation: Rotation) -> Rotation | None:
    """The way back, or None: when the old anchor is being let go there is none, and a new rotation leads on."""
    back = rotation.rule.back
    return None if back is None else _entered(rotation, back)


def _entered(rotation: Rotation, phase: Phase) -> Rotation:
    return replace(rotation, phase=phase, token=replace(rotation.token, step=rotation.token.step + 1))
