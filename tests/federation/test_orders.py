"""What a hub may order: a hostile one begins little, and ends nothing that it did not begin."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import FederationError
from federation.orders import DAY, FILE, Action, Allowed, Orders, objection
from tests.federation.world import NOW

ACTIONS: tuple[Action, ...] = get_args(Action)


class SetClock:
    """The time that a test says."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0

    def running(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


async def obeyed(orders: Orders, action: Action, ordered: bool | None = None) -> bool:
    with suppress(FederationError):
        async with orders.obeying(action, lambda: ordered):
            return True
    return False


async def test_of_a_hundred_orders_to_rotate_only_a_few_are_obeyed(tmp_path: Path, clock: SetClock) -> None:
    orders = Orders.open(tmp_path, Allowed(a_day=4), clock)
    found = await asyncio.gather(*(obeyed(orders, "start") for _ in range(100)))
    assert found.count(True) == 4


async def test_renewing_all_leaves_counts_as_well(tmp_path: Path, clock: SetClock) -> None:
    orders = Orders.open(tmp_path, Allowed(a_day=3), clock)
    for action in ("leaves", "start", "leaves"):
        assert await obeyed(orders, action)
    assert not await obeyed(orders, "leaves")
    assert not await obeyed(orders, "start")
    assert await obeyed(orders, "advance", ordered=True), "which ends what was begun"


async def test_no_restart_forgets_what_was_ordered(tmp_path: Path, clock: SetClock) -> None:
    for _ in range(4):
        assert await obeyed(Orders.open(tmp_path, Allowed(a_day=4), clock), "start")
    assert not await obeyed(Orders.open(tmp_path, Allowed(a_day=4), clock), "start")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_the_next_may_come_a_day_after_the_oldest(tmp_path: Path, clock: SetClock) -> None:
    orders = Orders.open(tmp_path, Allowed(a_day=2), clock)
    assert await obeyed(orders, "start")
    clock.time += timedelta(hours=1)
    assert await obeyed(orders, "start")
    clock.time = NOW + DAY - timedelta(seconds=1)
    with pytest.raises(FederationError, match=r"2 times within a day.*from_hub_a_day") as refused:
        async with orders.obeying("start", lambda: None):
            pass
    assert (NOW + DAY).isoformat(timespec="minutes") in refused.value.hint
    clock.time = NOW + DAY
    assert await obeyed(orders, "start")
    assert not await obeyed(orders, "start")


def test_after_the_limit_was_lowered_the_moment_that_is_told_is_one_at_which_it_is_obeyed() -> None:
    obeyed = tuple(NOW + timedelta(hours=hour) for hour in range(4))
    for most in range(1, 5):
        why = objection("start", Allowed(a_day=most), None, obeyed, NOW + timedelta(hours=5))
        assert why is not None
        free = obeyed[4 - most] + DAY
        assert free.isoformat(timespec="minutes") in why[1]
        assert objection("start", Allowed(a_day=most), None, obeyed, free) is None
        assert objection("start", Allowed(a_day=most), None, obeyed, free - timedelta(seconds=1)) is not None


async def test_a_clock_that_is_set_back_frees_nothing(tmp_path: Path, clock: SetClock) -> None:
    orders = Orders.open(tmp_path, Allowed(a_day=1), clock)
    assert await obeyed(orders, "start")
    clock.time = NOW - timedelta(days=400)
    assert not await obeyed(orders, "start")


async def test_what_cannot_be_counted_is_not_obeyed(tmp_path: Path, clock: SetClock) -> None:
    orders = Orders.open(tmp_path / "gone", Allowed(), clock)
    with pytest.raises(FederationError, match="cannot be counted"):
        async with orders.obeying("start", lambda: None):
            raise AssertionError("it was obeyed")


def test_a_damaged_file_is_named(tmp_path: Path, clock: SetClock) -> None:
    for damaged in ("nonsense", '{"obeyed":["2026-01-01T00:00:00"]}', '{"obeyed":[],"more":1}'):
        path = tmp_path / FILE
        path.touch(0o600)
        path.write_text(damaged)
        with pytest.raises(FederationError, match=FILE) as refused:
            Orders.open(tmp_path, Allowed(), clock)
        assert "remove it" in refused.value.hint


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("ordered", [None, True, False])
def test_a_cluster_that_takes_no_orders_says_by_which_setting(action: Action, ordered: bool | None) -> None:
    why = objection(action, Allowed(from_hub=False), ordered, (), NOW)
    assert why is not None
    assert "rotation.from_hub: false" in why[0]


def test_a_second_start_is_refused_in_the_words_of_the_one_who_rotates() -> None:
    refused = objection("start", Allowed(), True, (), NOW)
    assert refused is not None
    assert refused[0] == "rotation: one is running already"


@pytest.mark.parametrize("action", ["abort", "advance", "start"])
def test_what_the_cluster_began_itself_is_not_the_hubs(action: Action) -> None:
    why = objection(action, Allowed(), False, (), NOW)
    assert why is not None
    assert "begun in this cluster" in why[0]
    assert objection("abort", Allowed(), True, (), NOW) is None
    assert objection("advance", Allowed(), True, (), NOW) is None


MOMENTS = st.lists(st.integers(0, 5 * 86400), max_size=30).map(
    lambda seconds: sorted(NOW + timedelta(seconds=each) for each in seconds)
)


@given(MOMENTS, st.integers(1, 5))
def test_within_any_day_no_more_are_obeyed_than_allowed(moments: list[datetime], most: int) -> None:
    done: tuple[datetime, ...] = ()
    for now in moments:
        if objection("start", Allowed(a_day=most), None, done, now) is None:
            done = (*done, now)
    for at in done:
        assert sum(at <= other < at + DAY for other in done) <= most
    refused = [now for now in moments if now not in done]
    for now in refused:
        assert sum(now - DAY < other <= now for other in done) >= most, "nobody is refused without need"
