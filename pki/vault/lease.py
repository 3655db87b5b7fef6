"""How long the token of a Vault lasts, and what is to be done for it next. Pure; times are monotonic seconds.

A token is renewed at half of its life. Vault cuts a renewal short when the longest life of the token is near; once a
renewal gives less than half of what the login gave, the next thing to do is to log in anew. A login is rehearsed now
and then, so that a role that was deleted is noticed while the token still lives, and not when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

SHORTEST_RETRY = 2.0
LONGEST_RETRY = 60.0
RETRIES_LEFT = 50
"""Attempts that shall still fit into the life that is left: a retry each 2 % of it."""


class Act(Enum):
    """What is done for a token."""

    LOG_IN = "log in"
    RENEW = "renew"
    REHEARSE = "rehearse a login"


@dataclass(frozen=True, slots=True)
class Lease:
    """A token's life: `span` seconds from `since` on, 0 if it never ends. `first` was the span at its login."""

    since: float
    span: float
    first: float
    renewable: bool

    @classmethod
    def of(cls, granted: Mapping[str, Any], now: float) -> Lease:
        """What the `auth` part of a login says, or, of a token that was made elsewhere, a look-up of it."""
        span = _seconds(granted, "lease_duration") or _seconds(granted, "ttl")
        return cls(now, span, span, granted.get("renewable") is True)

    def renewed(self, granted: Mapping[str, Any], now: float) -> Lease:
        """After a renewal."""
        still = granted.get("renewable") is True
        return replace(self, since=now, span=_seconds(granted, "lease_duration"), renewable=still)

    @property
    def endless(self) -> bool:
        return self.first == 0

    def left(self, now: float) -> float:
        """Seconds until it ends, 0 if it has; infinite if it never does."""
        return float("inf") if self.endless else max(self.since + self.span - now, 0.0)

    @property
    def next(self) -> tuple[Act, float]:
        """What to do for it, and when."""
        if self.endless:
            return Act.RENEW, float("inf")
        worth_renewing = self.renewable and self.span >= self.first / 2
        return Act.RENEW if worth_renewing else Act.LOG_IN, self.since + self.span / 2


def due(lease: Lease | None, rehearse_at: float, now: float) -> tuple[Act, float]:
    """The next thing to do, and when; without a token, a login now."""
    if lease is None or lease.left(now) == 0:
        return Act.LOG_IN, now
    return min((lease.next, (Act.REHEARSE, rehearse_at)), key=lambda each: each[1])


def retry_in(lease: Lease | None, asked: float | None, now: float) -> float:
    """Seconds to the next attempt after a failure: by the time that is left, and never sooner than Vault asked for."""
    left = 0.0 if lease is None else lease.left(now)
    return max(min(max(left / RETRIES_LEFT, SHORTEST_RETRY), LONGEST_RETRY), asked or 0.0)


def _seconds(granted: Mapping[str, Any], name: str) -> float:
    value = granted.get(name)
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
    )
