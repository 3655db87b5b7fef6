"""Who answered, moment by moment, as a line of cells."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.demo.load import Answer
from federation.demo.timeline import Stretch, timeline


def answer(began: float, who: str | None) -> Answer:
    return Answer(began, 0.01, who)


def test_stretches_follow_each_other_as_the_answers_did() -> None:
    answers = [answer(moment / 10, "east" if moment < 20 else "west") for moment in range(30)]
    assert timeline(answers, 30) == (Stretch("east", 20), Stretch("west", 10))


def test_a_failure_shows_however_many_others_were_answered_beside_it() -> None:
    answers = [*(answer(0.0, "east") for _ in range(99)), answer(0.0, None), answer(1.0, "west")]
    assert timeline(answers, 10) == (Stretch(None, 1), Stretch("west", 1))


def test_a_moment_without_a_request_takes_no_cell() -> None:
    assert timeline([answer(0.0, "east"), answer(9.0, "east")], 10) == (Stretch("east", 2),)


@pytest.mark.parametrize("width", [0, 10])
def test_nothing_asked_nothing_shown(width: int) -> None:
    assert timeline([], width) == ()


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.sampled_from(["east", "west", None])), max_size=50),
    st.integers(0, 200),
)
def test_it_fits_and_neighbours_differ(requests: list[tuple[float, str | None]], width: int) -> None:
    found = timeline([answer(*request) for request in requests], width)
    assert sum(stretch.cells for stretch in found) <= width
    assert all(one.who != other.who for one, other in pairwise(found))
    if width and any(who is None for _, who in requests):
        assert any(stretch.who is None for stretch in found)
