"""Heads of journals, kept by those who did not write them, so that nobody can take back what an authority has signed.

A journal only grows. So of each authority the furthest head that was ever told is kept. One that lies before it, or at
the same line with another hash, contradicts it: either the journal was cut or rewritten, or an old copy of it was put
back. Then the kept one stays, and the contradiction with it, until a person who knows what happened accepts the other.
Whether a longer journal still holds the kept line only the journal itself can show (`pki.journal.examine`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MOST_HEADS = 8
"""Authorities of which one owner tells at a time."""
MOST_KEPT = 64
"""Authorities of one owner of which heads are kept, ever: none gives way to another, or telling many would hide one."""
HIGHEST_LINE = 1 << 53

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class JournalHead:
    """How far the journal of `authority` (the hash of its key, hex) has come: its lines, and the hash of the last."""

    authority: str
    lines: int
    hash: str

    def __str__(self) -> str:
        return f"{self.lines}:{self.hash}"

    @property
    def is_possible(self) -> bool:
        return (
            _HASH.fullmatch(self.authority) is not None
            and _HASH.fullmatch(self.hash) is not None
            and 1 <= self.lines <= HIGHEST_LINE
        )


@dataclass(frozen=True, slots=True)
class Heads:
    """What an owner says of the journals of its authorities, at most `MOST_HEADS`."""

    owner: str
    heads: tuple[JournalHead, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """The furthest head that was told, and the newest one since the first that contradicts it, if any does."""

    head: JournalHead
    doubt: JournalHead | None = None

    def problem(self, owner: str) -> str | None:
        """In one sentence, what is wrong with the journal; None if nothing is known to be."""
        if self.doubt is None:
            return None
        return (
            f"the journal of {owner} ({self.head.authority[:12]}…) had line {self.head.lines} with hash "
            f"{self.head.hash[:12]}…, and then {self.doubt.lines} lines with hash {self.doubt.hash[:12]}…: it was cut, "
            "rewritten, or replaced by an old copy"
        )


def keep(kept: Kept | None, told: JournalHead) -> Kept:
    """What to keep after `told`. Once there is a contradiction, what follows is not believed either."""
    if kept is None:
        return Kept(told)
    if kept.doubt is not None or told.lines < kept.head.lines:
        return replace(kept, doubt=told)
    if told.lines == kept.head.lines:
        return kept if told == kept.head else replace(kept, doubt=told)
    return Kept(told)


def accepted(kept: Kept) -> Kept:
    """Somebody who knows what happened says that what contradicts is right."""
    return kept if kept.doubt is None else Kept(kept.doubt)
