from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.health import PathState, Verdict, grow_silent, path_state, verdict
from federation.model import Freshness, Lease, LeaseSettings, Path

SETTINGS = LeaseSettings()


def leases(**silences: float) -> dict[str, Lease]:
    return {
        name: Lease(1, silence, Freshness.SUSPECT if silence >= SETTINGS.suspect_after else Freshness.FRESH)
        for name, silence in silences.items()
    }


def freshness(found: dict[str, Lease]) -> dict[str, Freshness]:
    return {name: lease.freshness for name, lease in found.items()}


@pytest.mark.parametrize(
    ("silence", "expected"),
    [
        (14.9, Freshness.FRESH),
        (15.0, Freshness.SUSPECT),
        (59.9, Freshness.SUSPECT),
        (60.0, Freshness.EXPIRED),
    ],
)
def test_a_lease_ages_with_silence(silence: float, expected: Freshness) -> None:
    assert grow_silent(leases(west=0.0), silence, SETTINGS)["west"].freshness is expected


def test_three_peers_may_all_expire() -> None:
    grown = grow_silent(leases(a=59.0, b=59.0, c=59.0), 1.0, SETTINGS)
    assert set(freshness(grown).values()) == {Freshness.EXPIRED}


def test_when_most_of_four_are_silent_we_are_the_ones_cut_off() -> None:
    grown = grow_silent(leases(a=59.0, b=59.0, c=16.0, d=0.0), 1.0, SETTINGS)
    assert freshness(grown) == {
        "a": Freshness.SUSPECT,
        "b": Freshness.SUSPECT,
        "c": Freshness.SUSPECT,
        "d": Freshness.FRESH,
    }
    back = {**grown, "c": Lease(2, 0.0, Freshness.FRESH)}
    assert freshness(grow_silent(back, 1.0, SETTINGS)) == {
        "a": Freshness.EXPIRED,
        "b": Freshness.EXPIRED,
        "c": Freshness.FRESH,
        "d": Freshness.FRESH,
    }


def test_half_of_four_is_not_most() -> None:
    grown = grow_silent(leases(a=59.0, b=59.0, c=0.0, d=0.0), 1.0, SETTINGS)
    assert [name for name, lease in grown.items() if lease.freshness is Freshness.EXPIRED] == ["a", "b"]


def test_those_that_expired_before_do_not_count_as_silent_now() -> None:
    long_gone = {name: Lease(1, 999.0, Freshness.EXPIRED) for name in ("a", "b", "c")}
    grown = grow_silent({**long_gone, **leases(d=59.0, e=0.0)}, 1.0, SETTINGS)
    assert freshness(grown)["d"] is Freshness.EXPIRED
    assert all(freshness(grown)[name] is Freshness.EXPIRED for name in long_gone)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 200), max_size=8), st.lists(st.floats(0, 30))
)
def test_silence_alone_never_makes_a_lease_fresher(silences: dict[str, float], ticks: list[float]) -> None:
    order = [Freshness.FRESH, Freshness.SUSPECT, Freshness.EXPIRED]
    held = leases(**silences)
    for elapsed in ticks:
        grown = grow_silent(held, elapsed, SETTINGS)
        assert all(
            order.index(grown[name].freshness) >= order.index(held[name].freshness) and lease.count == 1
            for name, lease in grown.items()
        )
        held = grown


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], PathState.UNKNOWN),
        ([Path(0, 0)], PathState.UNKNOWN),
        ([Path(0, 2)], PathState.DOWN),
        ([Path(1, 2)], PathState.UP),
        ([Path(0, 2), Path(1, 2)], PathState.UP),
        ([Path(0, 2), Path(0, 0)], PathState.DOWN),
    ],
)
def test_a_path_is_up_while_any_of_our_gateways_gets_through(seen: list[Path], expected: PathState) -> None:
    assert path_state(seen) is expected


@pytest.mark.parametrize("freshness", Freshness)
@pytest.mark.parametrize("path", PathState)
def test_a_lease_alone_never_moves_traffic(freshness: Freshness, path: PathState) -> None:
    found = verdict(freshness, path)
    assert (found in (Verdict.PATH_DOWN, Verdict.LOST)) is (path is PathState.DOWN)
    assert (found in (Verdict.STALE, Verdict.LOST)) is (freshness is Freshness.EXPIRED)
