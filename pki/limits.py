"""What the operator of an authority leaves to workloads of what their profile allows.

A profile says what may be at all; limits only ever take away from it. Each limit has the name of its setting,
and whoever asked for more is told that name: a longer life is cut to the limit, another name or kind of key is
refused, and so is a life that is too short, because nobody gets more than it asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import ClassVar, Self

from pki.algorithms import USUAL_KINDS, KeyKind
from pki.errors import InvalidName, Refused
from pki.names import matches_name
from pki.profiles import LONGEST_LEAF, SHORTEST_LEAF

SHORTEST = "issuing.shortest"
LONGEST = "issuing.longest"
NAMES = "issuing.names"

LONGEST_ASKED = timedelta(days=36_500)
"""Nobody gets it: it is cut to what is allowed, and a sum with it is still a date."""

LONGEST_TEMPLATE = 512
_SEGMENT = re.compile(r"[A-Za-z0-9._*-]+")


class NameTemplate(str):
    """Paths of SPIFFE IDs: `*` stands for any characters within one segment, and for nothing in the first."""

    __slots__ = ()
    allowed: ClassVar[str] = (
        "a path such as /ns/shop/sa/* or /ns/*/sa/*: segments of A-Z, a-z, 0-9, '.', '_', '-' and '*',"
        " the first without '*'"
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The template in `text`; raises `InvalidName`."""
        empty, *segments = text.split("/")
        readable = not empty and segments and all(map(_SEGMENT.fullmatch, segments))
        if not readable or "*" in segments[0] or {".", ".."} & set(segments) or len(text) > LONGEST_TEMPLATE:
            raise InvalidName(text, cls.allowed)
        return cls(text)

    def covers(self, path: str) -> bool:
        """Whether the path of a SPIFFE ID is one of these."""
        wanted, found = self.split("/"), path.split("/")
        return len(wanted) == len(found) and all(map(matches_name, wanted, found))


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a workload's certificate lives, which keys it may hold, which names it may carry."""

    shortest: timedelta = SHORTEST_LEAF
    longest: timedelta = LONGEST_LEAF
    keys: frozenset[KeyKind] = USUAL_KINDS
    names: tuple[NameTemplate, ...] = (NameTemplate("/ns/*/sa/*"),)


UNLIMITED = Limits()
"""Takes nothing away from what the profiles allow."""


def lifetime_of(seconds: float) -> timedelta:
    """The life that a caller asks for, in whole seconds; raises `Refused`.

    Zero does not mean the usual one: who wants that says nothing. Not a number, infinity and what no calendar
    holds are refused, so that no sum with them is ever made.
    """
    try:
        found = timedelta(seconds=int(seconds)) if isfinite(seconds) else timedelta(0)
    except OverflowError:
        found = timedelta(0)
    if not SHORTEST_LEAF <= found <= LONGEST_ASKED:
        allowed = f"{SHORTEST_LEAF.total_seconds():.0f} to {LONGEST_ASKED.total_seconds():.0f} seconds"
        raise Refused(
            "lifetime",
            f"{seconds:g} seconds is no life for a certificate; allowed: {allowed}, or nothing for the usual one",
        )
    return found
