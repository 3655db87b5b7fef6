"""Waits are jittered, double up to a bound, and are short again after a quiet time."""

from __future__ import annotations

from datetime import UTC, datetime

from federation.retry import Backoff


class Slept:
    """A clock that passes by sleeping, and notes each sleep."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self.elapsed = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.elapsed, UTC)

    def monotonic(self) -> float:
        return self.elapsed

    def running(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.elapsed += seconds


async def test_waits_double_up_to_the_longest_and_begin_anew() -> None:
    clock = Slept()
    backoff = Backoff(clock, 0.1, 1.0)
    for _ in range(6):
        await backoff.wait()
    for slept, span in zip(clock.sleeps, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0], strict=True):
        assert 0 <= slept <= span
    clock.elapsed += 1.001  # the sum of the sleeps is rounded
    await backoff.wait()
    assert clock.sleeps[-1] <= 0.1


async def test_waits_grow_as_they_are_told_to() -> None:
    clock = Slept()
    backoff = Backoff(clock, 1.0, 100.0, growth=1.0)
    for _ in range(50):
        await backoff.wait()
    assert max(clock.sleeps) <= 1.0


async def test_who_was_let_in_for_a_while_is_back_soon() -> None:
    clock = Slept()
    backoff = Backoff(clock, 0.1, 1000.0)
    for _ in range(12):
        await backoff.wait()
    backoff.reset()
    await backoff.wait()
    assert clock.sleeps[-1] <= 0.1


async def test_waits_are_drawn_from_all_of_their_span() -> None:
    clock = Slept()
    backoff = Backoff(clock, 1.0, 1.0)
    for _ in range(200):
        await backoff.wait()
    assert min(clock.sleeps) < 0.25
    assert max(clock.sleeps) > 0.75
