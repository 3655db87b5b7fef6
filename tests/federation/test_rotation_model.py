"""S4: every state that a rotation can reach, with two to four members, one step of one of them at a time.

The code that drives rotations is walked as it is: `pki.rotation` says which phase comes next, on the evidence that
`federation.turning` makes of what everybody says. Only the members are a model. Each holds a version of the bundle and
says so, now or later; some present leaves. A workload is a leaf of the first member, the driver's own cluster: in the
rotation of a cluster's authority nobody else presents any, in that of the root everybody does. A step that is not taken
is a member that is offline, frozen or crashed: what it holds is what it had stored. Publishing is a step of its own, so
the driver may die between a phase and its bundle. Members are alike, so states that differ by their order are one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from federation.held import Held
from federation.turning import Own, other, reports
from pki import rotation
from pki.rotation import BOTH, Barrier, Phase, Report, Rotation, Side, Token, abort, advance

NAMES = ("a", "b", "c", "d")
DOMAIN = "a.mesh.example"
NONE, OLD = frozenset[Side](), frozenset({Side.OLD})


@dataclass(frozen=True, slots=True)
class Driver:
    """The rotation as it is written down, the anchors of each published version, and who still works on what it was
    asked to sign."""

    rotation: Rotation
    published: tuple[frozenset[Side], ...] = (OLD,)
    signing: frozenset[Side] = NONE
    entered: int = 0
    """How many versions there were when the phase was entered."""

    @property
    def realised(self) -> bool:
        """Whether what the phase wants is published (`pki.succession`)."""
        rule = self.rotation.rule
        return rule.anchors == self.published[-1] and not (rule.anew and len(self.published) == self.entered)

    def entering(self, following: Rotation) -> Driver:
        return replace(self, rotation=following, entered=len(self.published))


@dataclass(frozen=True, slots=True)
class Member:
    """`holds` counts versions of the bundle, `presents` are whose leaves it may show; `said` and `told` is what it last
    said of these. `granted` has signed what it may not have taken yet; None for who gets nothing signed from others.
    `knows` is who issues, as it has heard, always together with the version.
    """

    holds: int = 1
    knows: Side = Side.OLD
    said: int = 1
    presents: frozenset[Side] = NONE
    told: frozenset[Side] = NONE
    granted: Side | None = None


OWN = Member(presents=OLD)
ROOTED = Member(presents=OLD, told=OLD, granted=Side.OLD)

State = tuple[Driver, tuple[Member, ...]]
Evidence = Callable[[State], Mapping[str, Report]]


def of_cluster(members: int) -> State:
    """The authority of a cluster is replaced: its leaves are all in that cluster."""
    return Driver(Rotation(Token(1))), (OWN, *(Member(),) * (members - 1))


def of_root(members: int) -> State:
    """The root is replaced: everybody presents what it has signed."""
    return Driver(Rotation(Token(1))), (OWN, *(ROOTED,) * (members - 1))


def evidence(state: State) -> dict[str, Report]:
    """What the driver knows, as the code makes it of the members' words."""
    driver, (own, *others) = state
    issuer = driver.rotation.rule.issuer
    others_live = other(issuer) in own.presents | driver.signing
    mine = Own(
        published=(1, len(driver.published)),
        anchors=driver.published[-1],
        held=(1, own.said),
        issues=issuer,
        living=BOTH if others_live else frozenset({issuer}),
    )
    named = dict(zip(NAMES[1:], others, strict=False))
    held = {name: Held(name, ((DOMAIN, 1, each.said),)) for name, each in named.items()}
    living = {name: each.told | {each.granted} for name, each in named.items() if each.granted is not None}
    return reports(driver.rotation, NAMES[0], mine, DOMAIN, held, living)


def driver_steps(state: State, known: Evidence) -> Iterator[State]:
    driver, members = state
    now, issuer = driver.rotation, driver.rotation.rule.issuer
    following = advance(now, frozenset(NAMES[: len(members)]), known(state))
    if driver.realised and following != now:
        yield driver.entering(following), members
    if (back := abort(now)) is not None:
        yield driver.entering(back), members
    if not driver.realised:
        published = (*driver.published, now.rule.anchors)
        yield replace(driver, published=published), members
    if issuer not in driver.signing:
        yield replace(driver, signing=driver.signing | {issuer}), members
    for side in driver.signing:
        done = replace(driver, signing=driver.signing - {side})
        own, *others = members
        yield done, (replace(own, presents=own.presents | {side}), *others)
        for index, each in enumerate(others):
            if each.granted not in (None, side):
                yield done, (own, *others[:index], replace(each, granted=side), *others[index + 1 :])


def member_steps(driver: Driver, member: Member) -> Iterator[Member]:
    if driver.realised:
        heard = replace(member, holds=len(driver.published), knows=driver.rotation.rule.issuer)
        if heard != member:
            yield heard
    if (member.said, member.told) != (member.holds, member.presents):
        yield replace(member, said=member.holds, told=member.presents)
    if member.granted == member.knows and member.knows not in member.presents:
        yield replace(member, presents=member.presents | {member.knows})
    elif member.knows in member.presents and member.presents != {member.knows}:
        yield replace(member, presents=frozenset({member.knows}))


class Unsafe(Exception):
    """A leaf that somebody may present, and somebody else does not believe."""


def safe(state: State) -> bool:
    """Whoever may issue, or has issued what may be presented, is believed by everybody."""
    driver, members = state
    presented = {driver.rotation.rule.issuer, *driver.signing}
    for each in members:
        presented |= each.presents
        presented |= {each.granted} if each.granted is not None else set()
    return all(presented <= driver.published[each.holds - 1] for each in members)


def explore(first: State, known: Evidence = evidence) -> dict[State, tuple[State, ...]]:
    """Every reachable state with those that follow from it; stops at the first that is not safe."""
    ranks: dict[Member, int] = {}

    def canonical(state: State) -> State:
        own, *others = state[1]
        return state[0], (own, *sorted(others, key=lambda each: ranks.setdefault(each, len(ranks))))

    def following(state: State) -> Iterator[State]:
        yield from driver_steps(state, known)
        driver, members = state
        for index, member in enumerate(members):
            for changed in member_steps(driver, member):
                yield driver, (*members[:index], changed, *members[index + 1 :])

    start = canonical(first)
    found: dict[State, tuple[State, ...]] = {start: ()}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        if not safe(state):
            raise Unsafe(state)
        found[state] = tuple(dict.fromkeys(canonical(each) for each in following(state)))
        for each in found[state]:
            if each not in found:
                found[each] = ()
                waiting.append(each)
    return found


FIRST = {"2": of_cluster(2), "3": of_cluster(3), "4": of_cluster(4), "root-2": of_root(2)}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST.keys())
def test_s4_no_state_has_a_leaf_that_somebody_does_not_believe_and_each_leads_to_an_end(first: State) -> None:
    found = explore(first)
    assert {state[0].rotation.phase for state in found} == set(Phase)
    before: dict[State, set[State]] = {state: set() for state in found}
    for state, after in found.items():
        for each in after:
            before[each].add(state)
    reached = {state for state in found if state[0].rotation.over and _agree(state)}
    assert {state[0].rotation.phase for state in reached} == {Phase.DONE, Phase.ABORTED}
    waiting = deque(reached)
    while waiting:
        for each in before[waiting.popleft()] - reached:
            reached.add(each)
            waiting.append(each)
    assert reached == set(found)


def _agree(state: State) -> bool:
    driver, members = state
    issuer = driver.rotation.rule.issuer
    return driver.signing <= {issuer} and all(
        driver.published[each.holds - 1] == driver.rotation.rule.anchors
        and each.presents | {each.granted or issuer} == {issuer}
        for each in members
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
        explore(of_cluster(2))


def test_s4_what_was_said_before_a_rotation_was_turned_back_does_not_count_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the same number, who had said so before the next root signed for it would be taken at its word."""
    rules = dict(rotation.RULES)
    rules[Phase.REVERTING] = replace(rules[Phase.REVERTING], anew=False)
    monkeypatch.setattr(rotation, "RULES", rules)
    explore(of_cluster(2))
    with pytest.raises(Unsafe):
        explore(of_root(2))


def _own_only(state: State) -> dict[str, Report]:
    """As if everybody held what the driver's own cluster holds."""
    driver, (own, *others) = state
    return evidence((driver, (own, *(replace(each, said=own.said) for each in others))))


def _without_own(state: State) -> dict[str, Report]:
    """As if the driver's own gateways had what it publishes."""
    driver, (own, *others) = state
    return evidence((driver, (replace(own, said=len(driver.published)), *others)))


def _nothing_under_way(state: State) -> dict[str, Report]:
    """As if all that was asked for were signed."""
    driver, members = state
    return evidence((replace(driver, signing=NONE), members))


def _taken_at_once(state: State) -> dict[str, Report]:
    """As if everybody presented what was signed for it last."""
    driver, (own, *others) = state
    taken = (
        replace(each, told=frozenset({each.granted}) if each.granted is not None else each.told)
        for each in others
    )
    return evidence((driver, (own, *taken)))


HASTY = {
    "others": (of_cluster(2), _own_only),
    "own gateways": (of_cluster(2), _without_own),
    "what is being signed": (of_cluster(2), _nothing_under_way),
    "what others present": (of_root(2), _taken_at_once),
}


@pytest.mark.parametrize(("first", "known"), HASTY.values(), ids=HASTY.keys())
def test_s4_without_the_word_of_each_there_is_a_state_that_is_not_safe(first: State, known: Evidence) -> None:
    with pytest.raises(Unsafe):
        explore(first, known)
