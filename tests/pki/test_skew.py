from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import ClockError
from pki.skew import HOLD, Reading, check_course, check_forward, check_skew, follow
from tests.pki.world import NOW


@pytest.mark.parametrize(
    ("off", "says"), [(301, "301 s ahead of"), (-301, "301 s behind"), (-86400, "86400 s behind")]
)
def test_s6_skew_over_five_minutes_says_how_much(off: int, says: str) -> None:
    with pytest.raises(ClockError, match=f"{says} the clock of the hub") as refused:
        check_skew(NOW + timedelta(seconds=off), NOW, "the hub")
    assert refused.value.off == timedelta(seconds=off)


@pytest.mark.parametrize("off", [0, 1, -1, 300, -300])
def test_skew_up_to_five_minutes_passes(off: int) -> None:
    check_skew(NOW + timedelta(seconds=off), NOW, "the hub")


def test_s6_a_clock_may_step_back_a_little() -> None:
    check_forward(NOW, NOW + timedelta(seconds=5), "now")
    with pytest.raises(ClockError, match="6 s behind the last entry"):
        check_forward(NOW, NOW + timedelta(seconds=6), "the last entry")


def reading(wall: float, running: float) -> Reading:
    return Reading(NOW + timedelta(seconds=wall), running)


def doubted(*readings: tuple[float, float]) -> list[bool]:
    """Which of the readings (seconds on both clocks) are doubted."""
    course, found = None, []
    for each in readings:
        course = follow(course, reading(*each))
        found.append(course.doubted is not None)
    return found


@pytest.mark.parametrize("jump", [301, -301, 86400 * 365])
def test_s6_a_clock_that_jumped_is_believed_once_it_stayed_so(jump: int) -> None:
    seen = [
        (0, 0),
        (10, 10),
        (11 + jump, 11),
        (40 + jump, 40),
        (70 + jump, 70),
        (71 + jump, 71),
        (80 + jump, 80),
    ]
    assert doubted(*seen) == [False, False, True, True, True, False, False]


def test_s6_a_clock_that_is_set_right_again_is_believed_at_once() -> None:
    assert doubted((0, 0), (1000, 1), (2, 2)) == [False, True, False]


def test_s6_a_second_jump_begins_a_doubt_of_its_own() -> None:
    assert doubted((0, 0), (1000, 1), (9000, 50), (9050, 100), (9060, 110)) == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_s6_sleep_and_slow_drift_are_no_jumps() -> None:
    day = 86400.0
    assert (
        doubted((0, 0), (30 * day, 30 * day), (60 * day + 200, 60 * day), (90 * day + 400, 90 * day))
        == [False] * 4
    )


def test_s6_the_refusal_says_how_far_it_jumped() -> None:
    later = reading(4000, 400)
    course = follow(follow(None, reading(0, 0)), later)
    with pytest.raises(
        ClockError, match="3600 s ahead of the time that passed; if it is right now"
    ) as refused:
        check_course(course, later)
    assert refused.value.off == timedelta(hours=1)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(-1e6, 1e6)), max_size=20))
def test_s6_a_doubt_ends_with_a_clock_that_is_left_alone(steps: list[tuple[float, float]]) -> None:
    course, running, wall = follow(None, reading(0, 0)), 0.0, 0.0
    for passed, jump in steps:
        running, wall = running + passed, wall + passed + jump
        course = follow(course, reading(wall, running))
    for passed in (1, HOLD):
        course = follow(course, reading(wall + passed, running + passed))
    course = follow(course, reading(wall + HOLD + 1, running + HOLD + 1))
    assert course.doubted is None
