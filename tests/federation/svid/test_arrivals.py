"""Whose certificate is done with: values in, serial numbers out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.svid import arrivals as module
from federation.svid.arrivals import Arrivals


def test_one_before_is_done_with_when_somebody_comes_with_the_next_and_not_when_that_is_given() -> None:
    arrivals = Arrivals()
    arrivals.given(2, replaces=1)
    assert not arrivals.gone
    arrivals.came(1)
    assert not arrivals.gone, "the answer may be lost"
    arrivals.came(2)
    assert arrivals.gone == {1}
    arrivals.came(2)
    assert arrivals.gone == {1}


def test_an_answer_that_was_lost_is_done_with_when_the_repeated_one_came() -> None:
    arrivals = Arrivals()
    for serial in (2, 3, 4):
        arrivals.given(serial, replaces=1)
    arrivals.came(3)
    assert arrivals.gone == {1, 2, 4}
    arrivals.given(5, replaces=3)
    arrivals.came(5)
    assert arrivals.gone == {1, 2, 3, 4}


def test_who_comes_with_a_first_certificate_has_done_with_nothing() -> None:
    arrivals = Arrivals()
    arrivals.came(7)
    assert not arrivals.gone


def test_r8_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    arrivals = Arrivals()
    for serial in range(1, 101):
        arrivals.given(1000 + serial, replaces=serial)
        arrivals.given(2000 + serial, replaces=serial)
        if serial % 2:
            arrivals.came(2000 + serial)
    assert len(arrivals._before) <= 10
    assert len(arrivals._after) <= 10
    assert len(arrivals.gone) <= 10
    arrivals.came(1001)
    assert 1 not in arrivals.gone, "it was forgotten, so it is waited for"


def test_r8_of_answers_in_place_of_one_certificate_only_the_newest_are_remembered() -> None:
    """Who has the same certificate replaced all the time makes no others forgotten, and no work for later."""
    arrivals = Arrivals()
    arrivals.given(7, replaces=6)
    newest = range(100, 100 + 10 * module.MOST_ANSWERS)
    for serial in newest:
        arrivals.given(serial, replaces=1)
    assert len(arrivals._before) == 1 + module.MOST_ANSWERS
    arrivals.came(newest[0])
    assert not arrivals.gone, "it was forgotten, so it is waited for"
    arrivals.came(newest[-1])
    assert arrivals.gone == {1, *newest[-module.MOST_ANSWERS : -1]}
    arrivals.came(7)
    assert 6 in arrivals.gone
    assert not arrivals._before
    assert not arrivals._after


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_of_a_line_the_last_certificate_that_somebody_came_with_is_never_done_with(lost: list[bool]) -> None:
    """A holder that asks again when an answer is lost, and otherwise goes on with what it was given."""
    arrivals, has = Arrivals(), 1
    for serial, is_lost in enumerate(lost, start=2):
        arrivals.came(has)
        arrivals.given(serial, replaces=has)
        assert has not in arrivals.gone
        has = has if is_lost else serial
    arrivals.came(has)
    assert has not in arrivals.gone
    given_later = set(range(has + 1, len(lost) + 2))
    assert arrivals.gone == set(range(1, len(lost) + 2)) - {has} - given_later
