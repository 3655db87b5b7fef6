"""Spans of time as people write them. A bare number is refused, because nobody knows what it counts."""

from __future__ import annotations

import re
from typing import ClassVar, Self

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WRITTEN = re.compile(r"([0-9]{1,13})(ms|s|m|h|d)")
_LONGEST = 100 * 365 * _MILLISECONDS["d"]


class Duration(float):
    """A span in seconds, never negative, written as a whole number and a unit."""

    __slots__ = ()
    allowed: ClassVar[str] = (
        "a whole number with its unit, such as 500ms, 10s, 5m, 24h or 30d (at most 36500d)"
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `500ms`, `10s`, `5m`, `24h`, `30d`. Raises ValueError, with a sentence for the user."""
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise ValueError("a number without its unit" if text.isdigit() else "not a duration")
        milliseconds = int(written[1]) * _MILLISECONDS[written[2]]
        if milliseconds > _LONGEST:
            raise ValueError("longer than 100 years")
        return cls(milliseconds / 1000)

    def __str__(self) -> str:
        """As `parse` reads it, to the millisecond, in the largest unit up to hours that leaves no rest."""
        milliseconds = round(self * 1000)
        unit = next((u for u in ("h", "m", "s") if milliseconds % _MILLISECONDS[u] == 0), "ms")
        return f"{milliseconds // _MILLISECONDS[unit]}{unit}" if milliseconds else "0s"

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"
