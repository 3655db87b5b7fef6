"""What is not passed on, and why: remembered and told within bounds, however much there is of it.

A refusal is a value, never the end of a stream. Its texts may quote what a stranger sent, so they are cut; and of many
refusals the first are kept by key, the rest is a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from federation.admit import Refused

LONGEST_KEY = 256
"""Characters of a key in a refusal; every key that could be admitted is shorter."""
LONGEST_DETAIL = 512
"""Characters of the sentence in a refusal."""
MOST_KEPT = 1000
"""Refusals that are kept one by one."""
FIRST_FEW = 3
"""Refusals that a line of the log quotes."""
OTHERS = "others"
"""Stands for the keys of refusals that are only counted; it is no key of anybody."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that is not passed on, and which rule it breaks."""

    key: str
    seq: int
    why: Refused

    @classmethod
    def of(cls, key: str, seq: int, why: Refused) -> Refusal:
        """With its texts cut to what may be told."""
        return cls(key[:LONGEST_KEY], seq, Refused(why.rule, why.detail[:LONGEST_DETAIL]))

    def __str__(self) -> str:
        return f"{self.key}: {self.why.detail}"


class Refusals:
    """The newest refusal of each key, at most `MOST_KEPT` of them; `cut` counts the others, repetitions included."""

    def __init__(self) -> None:
        self._kept: dict[str, Refusal] = {}
        self.cut = 0
        self.rules: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._kept) + self.cut

    def __iter__(self) -> Iterator[Refusal]:
        """What is kept, and one that stands for the others."""
        yield from self._kept.values()
        if self.cut:
            yield Refusal(OTHERS, 0, Refused("limit", f"{self.cut} more entries are refused"))

    def add(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            self.rules[refusal.why.rule] += 1
            if refusal.key in self._kept or len(self._kept) < MOST_KEPT:
                self._kept[refusal.key] = refusal
            else:
                self.cut += 1

    def withdraw(self, key: str) -> None:
        """Its owner has said something else under `key`."""
        self._kept.pop(key[:LONGEST_KEY], None)

    def first(self) -> list[str]:
        """The first few in words, for a line of the log."""
        return [str(refusal) for refusal, _ in zip(self._kept.values(), range(FIRST_FEW), strict=False)]
