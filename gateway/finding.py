"""What a look at one resource may give: a flaw, something it needs, or something that it claims for
itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.snapshot import Key


@dataclass(frozen=True, slots=True, order=True)
class Flaw:
    """A rule that is broken, and where inside the resource."""

    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Need:
    """A resource that must be in the same snapshot."""

    key: Key


@dataclass(frozen=True, slots=True)
class Claim:
    """What no other resource may have too, such as an address to listen on."""

    of: str


Found = Iterator[Flaw | Need | Claim]
