"""The protocol of every benchmark: a pair is ours and the peer in short slices by turns, and who begins alternates.

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


@dataclass(frozen=True, slots=True)
class Cost:
    """What so many operations took, in the unit of their row."""

    spent: float
    operations: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.spent + other.spent, self.operations + other.operations)

    @property
    def each(self) -> float:
        return self.spent / self.operations


async def alternate(
    ours: Callable[[], Awaitable[Cost]], peer: Callable[[], Awaitable[Cost]], slices: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The cost of an operation on both sides in each pair, of `slices` slices a side. Both warm up with one slice."""
    await ours()
    await peer()
    mine: list[float] = []
    theirs: list[float] = []
    for pair in range(PAIRS):
        ours_spent = peer_spent = Cost(0.0, 0)
        for number in range(slices):
            if (pair + number) % 2 == 0:
                ours_spent += await ours()
                peer_spent += await peer()
            else:
                peer_spent += await peer()
                ours_spent += await ours()
        mine.append(ours_spent.each)
        theirs.append(peer_spent.each)
    return tuple(mine), tuple(theirs)
