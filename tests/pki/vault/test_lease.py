"""When a token is renewed, when we log in anew, and how soon we try again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.vault.lease import LONGEST_RETRY, SHORTEST_RETRY, Act, Lease, due, retry_in

FAR = 1e9
SECONDS = st.floats(min_value=0, max_value=1e7, allow_nan=False)


def lease(span: float, *, renewable: bool = True, since: float = 100.0) -> Lease:
    return Lease.of({"lease_duration": span, "renewable": renewable}, since)


def test_without_a_token_and_after_its_end_we_log_in_now() -> None:
    assert due(None, FAR, 7.0) == (Act.LOG_IN, 7.0)
    assert due(lease(60), FAR, 160.0) == (Act.LOG_IN, 160.0)


def test_a_token_is_renewed_at_half_of_its_life() -> None:
    assert due(lease(60), FAR, 101.0) == (Act.RENEW, 130.0)
    assert lease(60).renewed({"lease_duration": 60, "renewable": True}, 130.0).next == (Act.RENEW, 160.0)


@pytest.mark.parametrize(
    ("granted", "act", "at"),
    [
        ({"lease_duration": 29, "renewable": True}, Act.LOG_IN, 144.5),
        ({"lease_duration": 30, "renewable": True}, Act.RENEW, 145.0),
        ({"lease_duration": 60, "renewable": False}, Act.LOG_IN, 160.0),
        ({}, Act.LOG_IN, 130.0),
    ],
)
def test_a_renewal_that_is_cut_short_means_a_login_before_the_end(
    granted: dict[str, Any], act: Act, at: float
) -> None:
    assert lease(60).renewed(granted, 130.0).next == (act, at)


def test_what_cannot_be_renewed_is_had_anew_at_half_of_its_life() -> None:
    assert due(lease(60, renewable=False), FAR, 101.0) == (Act.LOG_IN, 130.0)


def test_a_login_is_rehearsed_while_the_token_lives() -> None:
    assert due(lease(3600), 400.0, 101.0) == (Act.REHEARSE, 400.0)


def test_a_token_that_never_ends_is_only_looked_at() -> None:
    endless = Lease.of({"ttl": 0, "renewable": False}, 100.0)
    assert endless.endless
    assert endless.left(FAR) == float("inf")
    assert due(endless, 400.0, 101.0) == (Act.REHEARSE, 400.0)


@pytest.mark.parametrize("odd", [None, "3600", -5, True, [60]])
def test_a_life_that_is_no_number_counts_as_none(odd: object) -> None:
    assert Lease.of({"lease_duration": odd, "renewable": "yes"}, 0.0) == Lease(0.0, 0.0, 0.0, False)


@given(SECONDS, SECONDS, SECONDS)
def test_we_try_again_before_the_token_ends_and_never_sooner_than_we_are_asked(
    span: float, age: float, asked: float
) -> None:
    held = lease(span + 1, since=0.0)
    wait = retry_in(held, None, age)
    assert SHORTEST_RETRY <= wait <= LONGEST_RETRY
    assert wait <= max(held.left(age), SHORTEST_RETRY)
    assert retry_in(held, asked, age) == max(wait, asked)
    assert retry_in(None, None, age) == SHORTEST_RETRY


@given(st.floats(min_value=1, max_value=1e6), st.booleans(), SECONDS, SECONDS)
def test_something_is_always_done_before_a_token_ends(
    span: float, renewable: bool, rehearse: float, age: float
) -> None:
    held = lease(span, renewable=renewable, since=0.0)
    _, at = due(held, rehearse, min(age, span / 2))
    assert at <= span / 2
