"""The clock of the tests is itself tested: others rely on its order and on its standing still."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from federation.clock import Clock, ManualClock, SystemClock


async def test_the_system_clock_is_in_utc_and_rises() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.now().utcoffset() == timedelta(0)


async def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
    clock.advance(90)
    assert clock.now() == datetime(2026, 5, 1, 0, 1, 30, tzinfo=UTC)
    assert clock.monotonic() == 90
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


async def test_sleepers_wake_when_due_the_earliest_first() -> None:
    clock = ManualClock()
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2, 60):
            group.create_task(sleeper(seconds))
        while clock.sleepers < 4:
            await asyncio.sleep(0)
        clock.advance(3)
        while len(woken) < 3:
            await asyncio.sleep(0)
        assert woken == [1, 2, 3]
        assert clock.sleepers == 1
        clock.advance(57)
    assert woken == [1, 2, 3, 60]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(5))
    while not clock.sleepers:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0
    clock.advance(10)
