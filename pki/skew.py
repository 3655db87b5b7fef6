"""How far two wall clocks may be apart before certificates and tokens stop meaning the same to both, and when a wall
clock that was set is believed again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pki.errors import ClockError

MOST_SKEW = timedelta(minutes=5)
MOST_BACKWARD = timedelta(seconds=5)
"""A clock that is being disciplined may step back this far; more means that it cannot be trusted."""

MOST_JUMP = MOST_SKEW
HOLD = 60.0
"""Seconds for which a clock that jumped must go on from there until it is believed: a wrong time is often set right at
once, and what was signed or forgotten meanwhile would stay.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the wall clock said, and the seconds on a clock that nobody can set."""

    wall: datetime
    running: float

    def off(self, later: Reading) -> timedelta:
        """How far the wall clock of `later` is ahead of where it ought to be by the time that passed."""
        return later.wall - self.wall - timedelta(seconds=later.running - self.running)


@dataclass(frozen=True, slots=True)
class Course:
    """The last reading that is believed, and the first one that is not, if the clock jumped."""

    believed: Reading
    doubted: Reading | None = None


def follow(course: Course | None, reading: Reading) -> Course:
    """Take in a reading. What jumped over 5 minutes, either way, is doubted until it stayed so for 60 seconds."""
    if course is None or abs(course.believed.off(reading)) <= MOST_JUMP:
        return Course(reading)
    if course.doubted is None or abs(course.doubted.off(reading)) > MOST_JUMP:
        return Course(course.believed, reading)
    if reading.running - course.doubted.running >= HOLD:
        return Course(reading)
    return course


def check_course(course: Course, reading: Reading) -> None:
    """Raise `ClockError` if `reading`, the last one of `course`, is doubted."""
    if course.doubted is not None:
        ought = reading.wall - course.believed.off(reading)
        raise ClockError(
            reading.wall, ought, f"the time that passed; if it is right now, it is believed in {HOLD:.0f} s"
        )


def check_skew(ours: datetime, theirs: datetime, whose: str) -> None:
    """Raise `ClockError`, which says how much, if a peer's clock, as it says in an answer, is over 5 minutes off."""
    if abs(ours - theirs) > MOST_SKEW:
        raise ClockError(ours, theirs, f"the clock of {whose}")


def check_forward(now: datetime, last: datetime, what: str) -> None:
    """Raise `ClockError` when the wall clock is behind `last`, something that has already happened."""
    if now < last - MOST_BACKWARD:
        raise ClockError(now, last, what)
