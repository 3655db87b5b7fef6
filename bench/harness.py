"""The protocol of every benchmark: a pair is ours and the peer, one after the other, and which comes first alternates.

The machine is never quite the same twice, but nearly so within a pair. So what is compared is the ratio within each
pair, and what is reported is the median of the ratios with their quartiles. No sample is thrown away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median, quantiles

PAIRS = 5


class Judged(Enum):
    """Which figure of a row is held against its goal. In all of them less is better."""

    RATIO = "median ratio"
    """The median over the pairs of ours / peer."""
    MEDIAN = "median"
    """The median of ours: there is nothing to compare it with."""
    WORST = "worst"
    """The worst of ours: the goal holds each time, not usually."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ours` and `peer` are samples in `unit`, in pairs; without a peer `peer` is empty."""

    name: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    judged: Judged
    goal: float | None
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours / peer of each pair; empty without a peer, or where a peer measured nothing."""
        if len(self.peer) != len(self.ours) or not all(self.peer):
            return ()
        return tuple(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def figure(self) -> float:
        """What is held against the goal. Raises ValueError for a row without samples."""
        match self.judged:
            case Judged.RATIO:
                return median(self.ratios)
            case Judged.MEDIAN:
                return median(self.ours)
            case Judged.WORST:
                return max(self.ours)

    @property
    def holds(self) -> bool:
        """Whether the goal is reached; a figure without a goal is only shown."""
        return self.goal is None or self.figure <= self.goal


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """The quartiles of `samples`, both the sample itself if there is one only."""
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return low, high


async def alternate(
    ours: Callable[[], Awaitable[float]], peer: Callable[[], Awaitable[float]], pairs: int = PAIRS
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The samples of both sides in `pairs` pairs: ours first, peer first, ours first, and so on."""
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(pairs):
        if number % 2 == 0:
            mine.append(await ours())
            theirs.append(await peer())
        else:
            theirs.append(await peer())
            mine.append(await ours())
    return tuple(mine), tuple(theirs)
