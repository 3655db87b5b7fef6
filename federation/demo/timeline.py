"""Who answered, moment by moment: what turns a list of answers into a line that can be looked at.

A failure is never hidden: one of it makes its whole moment a failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from federation.demo.load import Answer


@dataclass(frozen=True, slots=True)
class Stretch:
    """So many cells in a row in which `who` answered most; None: a request failed in each."""

    who: str | None
    cells: int


def timeline(answers: Sequence[Answer], width: int) -> tuple[Stretch, ...]:
    """The answers in at most `width` cells of equal time, by the begin of their requests."""
    if not answers or width < 1:
        return ()
    first = min(answer.began for answer in answers)
    span = max(answer.began for answer in answers) - first
    cells: dict[int, Counter[str | None]] = {}
    for answer in answers:
        place = min(int((answer.began - first) / span * width), width - 1) if span else 0
        cells.setdefault(place, Counter())[answer.who] += 1
    whos = (_shown(cells[place]) for place in sorted(cells))
    return tuple(Stretch(who, sum(1 for _ in same)) for who, same in groupby(whos))


def _shown(cell: Counter[str | None]) -> str | None:
    return None if None in cell else cell.most_common(1)[0][0]
