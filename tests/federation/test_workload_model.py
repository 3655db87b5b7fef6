"""S4: every state that a rotation can reach with one workload, whose answers may be lost and whose agent may restart.

The code that decides is walked as it is: the phases, who is waited for, and which certificates count as done with. A
workload is a verifier that obeys no phase: it gets anchors and a leaf together when it renews, and says nothing of
itself. So the model of those who report (`test_rotation_model`) covers what it may hold, and this one how its agent
knows. A step that is not taken is a workload that is away, or an answer that is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace

import pytest

from federation.onlookers import WORKLOADS, behind, report
from federation.svid.arrivals import Arrivals
from federation.turning import Own, other, reports, survivors
from pki.ledger import Entry
from pki.profiles import SVID
from pki.rotation import BOTH, Phase, Rotation, Side, Token, abort, advance
from tests.federation.world import JOINED, NOW

ME, DOMAIN, WORKLOAD = "east", "east.mesh.example", "spiffe://east.mesh.example/ns/shop/sa/cart"
MOST = 4
"""Certificates in one line."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a workload holds: a certificate, by its serial number, and the version of the bundle that came with it."""

    serial: int
    bundle: int


@dataclass(frozen=True, slots=True)
class State:
    """`ledger` has the certificates in their order, each with its authority; `flying` are answers that may still come,
    and `story` what the agent heard of them since it started: (given, in place of) or (come, 0).
    """

    rotation: Rotation
    published: tuple[frozenset[Side], ...]
    ledger: tuple[tuple[Side, Entry], ...]
    has: Leaf
    flying: frozenset[Leaf] = frozenset()
    story: tuple[tuple[int, int], ...] = ()


FIRST = State(
    Rotation(Token(1)),
    (frozenset({Side.OLD}),),
    ((Side.OLD, Entry(1, SVID.name, WORKLOAD, "key 1", NOW, bundle=1)),),
    Leaf(1, 1),
)

Gone = Callable[[State], Set[int]]


def arrived(state: State) -> Set[int]:
    """As the agent knows it."""
    arrivals = Arrivals()
    for serial, replaced in state.story:
        if replaced:
            arrivals.given(serial, replaced)
        else:
            arrivals.came(serial)
    return frozenset(arrivals.gone)


def following(now: State, gone: Gone) -> Rotation:
    """The next phase, as far as the evidence allows it; all other members are ready."""
    rotation, done = now.rotation, gone(now)
    issuer = rotation.rule.issuer
    ended = [entry for side, entry in now.ledger if side is other(issuer)]
    old = survivors(ended, "", False, {}, JOINED, done)
    version = (1, len(now.published))
    mine = Own(version, now.published[-1], version, issuer, BOTH if any(old) else frozenset({issuer}))
    entries = [entry for _, entry in now.ledger]
    waited_for = behind(entries, len(now.published), done, lambda _: False, JOINED)
    found = reports(rotation, ME, mine, DOMAIN, {}) | {
        WORKLOADS: report(rotation, lambda: next(waited_for, None) is None)
    }
    return advance(rotation, frozenset(found), found)


def steps(now: State, gone: Gone) -> Iterator[State]:
    rotation = now.rotation
    yield replace(now, rotation=following(now, gone))
    if (back := abort(rotation)) is not None:
        yield replace(now, rotation=back)
    if rotation.rule.anchors != now.published[-1]:
        yield replace(now, published=(*now.published, rotation.rule.anchors))
    yield replace(now, story=())  # the agent restarts
    yield replace(now, story=_told(now.story, (now.has.serial, 0)))
    if len(now.ledger) < MOST:
        yield _asked(now)
    for answer in now.flying:
        yield replace(now, has=answer, flying=frozenset())


def _asked(now: State) -> State:
    """It asks with what it has, and for the same key if it had asked before."""
    serial, key = len(now.ledger) + 1, f"key after {now.has.serial}"
    version = len(now.published)
    replaced = tuple(
        (
            side,
            replace(entry, successors=entry.successors | {key}) if entry.serial == now.has.serial else entry,
        )
        for side, entry in now.ledger
    )
    made = Entry(serial, SVID.name, WORKLOAD, key, NOW, bundle=version)
    story = _told(_told(now.story, (now.has.serial, 0)), (serial, now.has.serial))
    return replace(
        now,
        ledger=(*replaced, (now.rotation.rule.issuer, made)),
        flying=now.flying | {Leaf(serial, version)},
        story=story,
    )


def _told(story: tuple[tuple[int, int], ...], word: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return story if word in story else (*story, word)


class Unsafe(Exception):
    """A workload and the door at which it renews do not believe each other."""


def safe(now: State) -> bool:
    whose = {entry.serial: side for side, entry in now.ledger}
    believes = now.published[now.has.bundle - 1]
    return now.rotation.rule.issuer in believes and whose[now.has.serial] in now.published[-1]


def explore(gone: Gone = arrived) -> set[State]:
    found, waiting = {FIRST}, deque([FIRST])
    while waiting:
        now = waiting.popleft()
        if not safe(now):
            raise Unsafe(now)
        for each in steps(now, gone):
            if each not in found:
                found.add(each)
                waiting.append(each)
    return found


def test_s4_no_state_has_a_workload_that_cannot_renew() -> None:
    found = explore()
    assert {state.rotation.phase for state in found} == set(Phase)
    ends = [state for state in found if state.rotation.phase is Phase.DONE]
    assert {len(state.ledger) for state in ends} == {3, MOST}, "once for the anchors, once for the leaf"


def _replaced(now: State) -> Set[int]:
    """As if every answer arrived."""
    return {entry.serial for _, entry in now.ledger if entry.successors}


def _nobody_counts(now: State) -> Set[int]:
    """As if nobody waited for workloads."""
    return {entry.serial for _, entry in now.ledger}


def _last_alone(now: State) -> Set[int]:
    """As if only the newest certificate could be in use."""
    return {entry.serial for _, entry in now.ledger[:-1]}


@pytest.mark.parametrize("gone", [_replaced, _nobody_counts, _last_alone])
def test_s4_with_less_evidence_there_is_a_state_that_is_not_safe(gone: Gone) -> None:
    with pytest.raises(Unsafe):
        explore(gone)
