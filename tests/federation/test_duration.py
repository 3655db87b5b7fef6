"""Durations are written with a unit, and read back as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("0s", 0), ("10s", 10), ("5m", 300), ("24h", 86400), ("30d", 2592000)],
)
def test_reads_a_whole_number_and_a_unit(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10", "without its unit"),
        ("", "not a duration"),
        ("10 s", "not a duration"),
        ("-5s", "not a duration"),
        ("1.5h", "not a duration"),
        ("10S", "not a duration"),
        ("٣s", "not a duration"),
        ("10s\n", "not a duration"),
        ("36501d", "longer than 100 years"),
    ],
)
def test_refuses_everything_else(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Duration.parse(text)


@given(st.integers(0, 100 * 365 * 86_400_000))
def test_what_is_written_reads_back(milliseconds: int) -> None:
    duration = Duration(milliseconds / 1000)
    assert Duration.parse(str(duration)) == duration


def test_is_written_in_the_largest_unit_that_leaves_no_rest() -> None:
    assert [str(Duration(s)) for s in (0, 0.35, 90, 120, 86400)] == ["0s", "350ms", "90s", "2m", "24h"]
