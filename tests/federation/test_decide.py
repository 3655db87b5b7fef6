"""From events to plans: taken step by step they are those from scratch, and a step costs what it touches."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from federation import decide
from federation.decide import Decisions
from federation.events import (
    Event,
    ExportChanged,
    ExportGone,
    GatewayReported,
    LoadChanged,
    LocalChanged,
    LocalGone,
    MemberGone,
    Tick,
)
from federation.model import Load, Path, Service, View
from tests.federation.test_decisions import EMPTY, START, any_events
from tests.federation.world import (
    ECHO,
    ME,
    NOW,
    backend,
    gateway,
    joined,
    load,
    local,
    spec,
    view_after,
)

batches = st.lists(st.lists(any_events, max_size=6), max_size=8)


def same(one: Decisions, other: Decisions) -> bool:
    return (
        one.view == other.view and one.fabric == other.fabric and dict(one.services) == dict(other.services)
    )


@given(st.sampled_from([START, EMPTY]), batches)
@settings(max_examples=200)
def test_decisions_step_by_step_are_those_from_scratch(view: View, history: list[list[Event]]) -> None:
    decisions = decide.start(view)
    for batch in history:
        step = decide.advance(decisions, batch)
        before, decisions = decisions, step.after
        assert same(decisions, decide.start(decisions.view))
        assert step.changed <= step.touched
        for service in before.services.keys() | decisions.services.keys():
            differs = before.services.get(service) != decisions.services.get(service)
            assert differs <= (service in step.changed), f"{service} was decided anew and nobody said so"


@given(st.lists(any_events, max_size=12))
def test_events_taken_together_or_one_by_one_come_to_the_same(events: list[Event]) -> None:
    together = decide.advance(decide.start(START), events).after
    one_by_one = decide.start(START)
    for event in events:
        one_by_one = decide.advance(one_by_one, [event]).after
    assert same(together, one_by_one)


def offering(count: int) -> tuple[Decisions, list[Service]]:
    """`count` services that `west` exports and we have too."""
    services = [Service("default", f"s{number}") for number in range(count)]
    events: list[Event] = [*joined("east", "west")]
    for each in services:
        events += [
            ExportChanged(spec("west", service=each)),
            LoadChanged(load("west", service=each)),
            LocalChanged(local(backend(1), service=each)),
        ]
    return decide.start(view_after(*events)), services


def test_one_change_among_a_thousand_decides_one() -> None:
    decisions, services = offering(1000)
    assert len(decisions.services) == 1000
    for event in (
        LoadChanged(load("west", 1, service=services[500])),
        LocalChanged(local(service=services[501])),
        LocalGone(services[502]),
        ExportGone("west", services[503]),
    ):
        step = decide.advance(decisions, [event])
        assert len(step.changed) == 1
        assert step.changed == step.touched
        changed = {each for each in services if decisions.services[each] is not step.after.services.get(each)}
        assert changed == step.changed
        decisions = step.after


def test_what_says_nothing_new_decides_nothing() -> None:
    decisions, services = offering(10)
    again = load("west", service=services[0], seq=7)
    assert isinstance(again, Load)
    for event in (
        LoadChanged(again),
        ExportChanged(replace(spec("west", service=services[0]), at=again.at)),
        LocalChanged(local(backend(1), service=services[0])),
        Tick(NOW, 1.0),
    ):
        step = decide.advance(decisions, [event])
        assert step.changed == frozenset()
        assert dict(step.after.services) == dict(decisions.services)


def test_a_service_that_nobody_has_any_more_loses_its_decision() -> None:
    decisions, services = offering(2)
    step = decide.advance(decisions, [LocalGone(services[0]), ExportGone("west", services[0])])
    assert step.changed == {services[0]}
    assert set(step.after.services) == {services[1]}


def test_what_concerns_a_cluster_decides_its_services_alone() -> None:
    decisions, services = offering(3)
    lone = Service("default", "lone")
    decisions = decide.advance(decisions, [LocalChanged(local(backend(1), service=lone))]).after
    down = GatewayReported(gateway(), {"west": Path(0, 1)}, {})
    assert decide.advance(decisions, [down]).changed == set(services)
    gone = decide.advance(decisions, [MemberGone("west")])
    assert gone.changed >= set(services)
    assert gone.after.fabric.peers == ()


def test_an_unknown_service_is_no_decision() -> None:
    assert dict(decide.start(View(ME, NOW)).services) == {}
    step = decide.advance(decide.start(View(ME, NOW)), [LocalChanged(local(exported=False))])
    assert ECHO in step.touched
    assert step.changed == frozenset()
