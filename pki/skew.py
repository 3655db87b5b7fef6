"""How far two wall clocks may be apart before certificates and tokens stop meaning the same to both."""

from __future__ import annotations

from datetime import datetime, timedelta

from pki.errors import ClockError

MOST_SKEW = timedelta(minutes=5)
MOST_BACKWARD = timedelta(seconds=5)
"""A clock that is being disciplined may step back this far; more means that it cannot be trusted."""


def check_skew(ours: datetime, theirs: datetime, whose: str) -> None:
    """Raise `ClockError`, which says how much, if a peer's clock, as it says in an answer, is over 5 minutes off."""
    if abs(ours - theirs) > MOST_SKEW:
        raise ClockError(ours, theirs, f"the clock of {whose}")


def check_forward(now: datetime, last: datetime, what: str) -> None:
    """Raise `ClockError` when the wall clock is behind `last`, something that has already happened."""
    if now < last - MOST_BACKWARD:
        raise ClockError(now, last, what)
