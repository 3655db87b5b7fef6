"""S4: every state that a rotation of the very code can reach with 2 to 4 members, one step of one of them at a time.

A step is: the driver goes on or turns back; a member hears the phase of now, obeys what it last heard (which may be
old), issues, replaces the leaves of the other authority, or reports. A member that takes no step is offline, frozen or
crashed: what it holds is what it had stored. Members are alike, so states that differ by their order are one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import pytest

from pki import rotation
from pki.rotation import Barrier, Phase, Report, Rotation, Side, Token, abort, advance, obey

NAMES = ("a", "b", "c", "d")
BEFORE = Report(Token(0, 0), frozenset({Side.OLD}), Side.OLD, frozenset({Side.OLD}))


@dataclass(frozen=True, slots=True)
class Member:
    """A member as it is, the phase that it has heard of, and what it last reported."""

    now: Report = BEFORE
    heard: Rotation | None = None
    reported: Report | None = None


State = tuple[Rotation, tuple[Member, ...]]


def start(members: int) -> State:
    return Rotation(Token(1)), (Member(),) * members


def driver_steps(state: State) -> Iterator[State]:
    now, members = state
    names = frozenset(NAMES[: len(members)])
    reports = {name: each.reported for name, each in zip(NAMES, members, strict=False) if each.reported}
    following = advance(now, names, reports)
    if following != now:
        yield following, members
    back = abort(now)
    if back is not None:
        yield back, members


def member_steps(now: Rotation, member: Member) -> Iterator[Member]:
    own = member.now
    if member.heard != now:
        yield replace(member, heard=now)
    if member.heard is not None and own.token < member.heard.token:
        yield replace(member, now=obey(own, member.heard))
    if own.issues not in own.living:
        yield replace(member, now=replace(own, living=own.living | {own.issues}))
    elif own.living != {own.issues}:
        yield replace(member, now=replace(own, living=frozenset({own.issues})))
    if member.reported != own:
        yield replace(member, reported=own)


def explore(members: int) -> Mapping[State, tuple[State, ...]]:
    """Every reachable state with those that follow from it; stops at the first that is not safe."""
    names: dict[Member, int] = {}
    steps_of = cache(lambda now, member: tuple(member_steps(now, member)))

    def canonical(state: State) -> State:
        return state[0], tuple(sorted(state[1], key=lambda each: names.setdefault(each, len(names))))

    def following(state: State) -> Iterator[State]:
        yield from driver_steps(state)
        now, all_members = state
        for index, member in enumerate(all_members):
            for changed in steps_of(now, member):
                yield now, (*all_members[:index], changed, *all_members[index + 1 :])

    first = canonical(start(members))
    found: dict[State, tuple[State, ...]] = {}
    waiting = deque([first])
    found[first] = ()
    while waiting:
        state = waiting.popleft()
        if not safe(state):
            raise Unsafe(state)
        after = tuple(dict.fromkeys(canonical(each) for each in following(state)))
        found[state] = after
        for each in after:
            if each not in found:
                found[each] = ()
                waiting.append(each)
    return found


class Unsafe(Exception):
    """A leaf that somebody may present, and somebody else does not believe."""


def safe(state: State) -> bool:
    """Whoever may issue with an authority, or has leaves of it, is believed by everybody."""
    presented = frozenset[Side]().union(*(each.now.living | {each.now.issues} for each in state[1]))
    return all(presented <= each.now.anchors for each in state[1])


@pytest.mark.parametrize("members", [2, 3, 4])
def test_s4_no_reachable_state_has_a_leaf_that_somebody_does_not_believe(members: int) -> None:
    found = explore(members)
    ends = {state[0].phase for state, after in found.items() if state[0].over}
    assert ends == {Phase.DONE, Phase.ABORTED}


def test_s4_from_every_state_there_is_a_way_to_an_end_at_which_everybody_agrees() -> None:
    found = explore(3)
    before: dict[State, set[State]] = {state: set() for state in found}
    for state, after in found.items():
        for each in after:
            before[each].add(state)
    waiting = deque(state for state in found if state[0].over and _agree(state))
    reached = set(waiting)
    while waiting:
        for each in before[waiting.popleft()] - reached:
            reached.add(each)
            waiting.append(each)
    assert reached == set(found)


def _agree(state: State) -> bool:
    rule = state[0].rule
    return all(
        each.now.anchors == rule.anchors and each.now.living == {rule.issuer} == {each.now.issues}
        for each in state[1]
    )


WITHOUT = {
    "barrier A": (Phase.PUBLISHED, Barrier.NONE),
    "barrier B": (Phase.ACTIVE, Barrier.NONE),
    "barrier B on the way back": (Phase.REVERTING, Barrier.NONE),
    "the fence in barrier B": (Phase.ACTIVE, Barrier.ANCHORED),
    "the fence on the way back": (Phase.REVERTING, Barrier.ANCHORED),
}


@pytest.mark.parametrize(("phase", "barrier"), WITHOUT.values(), ids=WITHOUT.keys())
def test_s4_without_a_barrier_there_is_a_state_that_is_not_safe(
    phase: Phase, barrier: Barrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = dict(rotation.RULES)
    rules[phase] = replace(rules[phase], barrier=barrier)
    monkeypatch.setattr(rotation, "RULES", rules)
    with pytest.raises(Unsafe):
        explore(2)
