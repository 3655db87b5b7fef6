"""How many certificates somebody may have in a time: a bucket that fills steadily and never overflows. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """`rate` a second in the long run, `burst` at once."""

    rate: float
    burst: float


@dataclass(frozen=True, slots=True)
class Level:
    """What was left in a bucket at a moment (s)."""

    left: float
    at: float


@dataclass(frozen=True, slots=True)
class Spent:
    """The bucket afterwards; nothing was taken from it if there is a time to `wait` (s)."""

    level: Level
    wait: float


def spend(level: Level | None, quota: Quota, now: float) -> Spent:
    """Take one from a bucket at `now`; a bucket that nobody knows is full."""
    left = quota.burst if level is None else min(quota.burst, level.left + quota.rate * (now - level.at))
    if left >= 1:
        return Spent(Level(left - 1, now), 0.0)
    return Spent(Level(left, now), (1 - left) / quota.rate)
