from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from federation import ports
from federation.events import ExportChanged, LocalChanged, LocalGone, MemberChanged, Tick
from federation.model import ListenPort, Port, Service, View
from federation.ports import HOLD
from federation.reduce import reduce
from tests.federation.world import ECHO, ME, NOW, backend, joined, local, member, spec, view_after

SMALL = replace(ME, port_range=(20000, 20003))
OTHER = Service("default", "other")
THIRD = Service("default", "third")


def numbers(view: View) -> dict[tuple[str, int], int]:
    return {
        (service.name, port): kept.number
        for service, held in view.ports.items()
        for port, kept in held.items()
        if kept.released_at is None
    }


def export(*services: Service, count: int = 1) -> tuple[LocalChanged, ...]:
    listed = tuple(Port(f"p{number}", number) for number in range(1, count + 1))
    return tuple(LocalChanged(local(backend(1), service=service, ports=listed)) for service in services)


def test_the_lowest_free_number_is_given_and_kept() -> None:
    view = view_after(*joined("east"), *export(ECHO), *export(OTHER, count=2), me=SMALL)
    assert numbers(view) == {("echo", 1): 20000, ("other", 1): 20001, ("other", 2): 20002}
    assert numbers(view_after(*export(OTHER), *export(ECHO, count=2), start=view)) == {
        ("echo", 1): 20000,
        ("echo", 2): 20003,
        ("other", 1): 20001,
    }


def test_a_released_number_waits_a_day_for_its_service() -> None:
    view = view_after(*joined("east"), *export(ECHO, OTHER), LocalGone(ECHO), me=SMALL)
    assert view.ports[ECHO][1] == ListenPort(20000, NOW)
    early = view_after(Tick(NOW + HOLD - timedelta(seconds=1), 1.0), *export(THIRD), start=view)
    assert numbers(early) == {("other", 1): 20001, ("third", 1): 20002}
    assert numbers(view_after(*export(ECHO), start=early))["echo", 1] == 20000
    late = view_after(Tick(NOW + HOLD, 1.0), *export(THIRD), start=view)
    assert numbers(late) == {("other", 1): 20001, ("third", 1): 20000}
    assert ECHO not in late.ports


def test_a_released_number_does_not_wait_anew_when_the_service_is_looked_at_again() -> None:
    view = view_after(*joined("east"), *export(ECHO), LocalGone(ECHO), me=SMALL)
    later = view_after(Tick(NOW + timedelta(hours=9), 1.0), start=view)
    assert ports.settle(later, ECHO, frozenset()).ports[ECHO][1] == ListenPort(20000, NOW)


def test_an_export_that_is_withheld_takes_no_number() -> None:
    view = view_after(*joined("east", "west"), MemberChanged(member("west", may_export=())))
    assert numbers(view_after(ExportChanged(spec("west")), start=view)) == {}


def test_an_exhausted_range_gives_none_until_a_number_comes_back() -> None:
    full = view_after(*joined("east"), *export(ECHO, count=4), *export(OTHER), me=SMALL)
    assert len(numbers(full)) == 4
    assert ("other", 1) not in numbers(full)
    gone = view_after(LocalGone(ECHO), start=full)
    assert numbers(gone) == {}
    assert numbers(view_after(Tick(NOW + HOLD, 1.0), start=gone)) == {("other", 1): 20000}


def test_who_waits_for_a_number_is_touched_when_it_comes() -> None:
    full = view_after(*joined("east"), *export(ECHO, count=4), *export(OTHER), LocalGone(ECHO), me=SMALL)
    _, touched = reduce(full, Tick(NOW + HOLD, 1.0))
    assert touched == frozenset({OTHER})


def restarted(before: View) -> View:
    return View(before.me, NOW + timedelta(hours=1), ports=before.ports)


def test_numbers_outlive_a_restart_and_those_of_nobody_are_released() -> None:
    before = view_after(*joined("east"), *export(ECHO, OTHER, THIRD), me=SMALL)
    after = view_after(*joined("east"), *export(THIRD), *export(OTHER), start=restarted(before))
    assert numbers(after) == {("other", 1): 20001, ("third", 1): 20002}
    assert after.ports[ECHO][1] == ListenPort(20000, NOW + timedelta(hours=1))


def test_a_number_out_of_a_changed_range_is_given_anew() -> None:
    before = view_after(*joined("east"), *export(ECHO), me=SMALL)
    moved = replace(restarted(before), me=replace(ME, port_range=(30000, 30009)))
    assert numbers(view_after(*joined("east"), *export(ECHO), start=moved)) == {("echo", 1): 30000}


def test_other_protocols_need_no_listener() -> None:
    dns = LocalChanged(local(backend(1), ports=(Port("dns", 53, "UDP"),)))
    assert numbers(view_after(*joined("east"), dns)) == {}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([ECHO, OTHER, THIRD]), st.frozensets(st.integers(1, 4), max_size=4)),
        st.integers(1, 30),
    ),
    max_size=25,
)


@given(STEPS)
def test_no_number_is_given_twice_and_free_ones_are_counted_right(
    steps: list[tuple[Service, frozenset[int]] | int],
) -> None:
    view = View(replace(ME, port_range=(1, 6)), NOW)
    last_holder: dict[int, tuple[tuple[Service, int], int]] = {}
    for step in steps:
        match step:
            case int(hours):
                view = ports.expire(replace(view, now=view.now + timedelta(hours=hours)))
            case (service, wanted):
                view = ports.settle(view, service, wanted)
        held = {
            (service, port): kept for service, ports_ in view.ports.items() for port, kept in ports_.items()
        }
        taken = [kept.number for kept in held.values()]
        assert len(set(taken)) == len(taken)
        free = [number for first, last in view.free or () for number in range(first, last + 1)]
        assert sorted([*taken, *free]) == list(range(1, 7)) or view.free is None
        assert set(view.released) == {key for key, kept in held.items() if kept.released_at is not None}
        hour = round((view.now - NOW) / timedelta(hours=1))
        for key, kept in held.items():
            before, seen = last_holder.get(kept.number, (key, hour))
            assert before == key or hour - seen >= 24
            if kept.released_at is None:
                last_holder[kept.number] = (key, hour)
