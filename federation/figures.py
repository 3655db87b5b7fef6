"""What can be watched of the authorities of a process, as one value: made when somebody looks, and kept by nobody.

Everything in it that becomes a label comes from a closed set, or from the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from federation.held import Version
from pki.tally import Tally


@dataclass(frozen=True, slots=True)
class JournalFigures:
    """One journal that can be written now: `failures` since the start, the time of its last record on disk."""

    failures: int
    failing: bool
    written: datetime | None


@dataclass(frozen=True, slots=True)
class Figures:
    """`ends` is by what ends (`own`: the certificate with which the process speaks TLS), `versions` by trust domain,
    `bans` by kind. `doubted` counts journals of others that contradict what was kept of them.
    """

    tallies: tuple[Tally, ...]
    renewals_failed: int
    ends: Mapping[str, datetime]
    versions: Mapping[str, Version]
    journals: tuple[JournalFigures, ...]
    doubted: int
    bans: Mapping[str, int]


def by_kind(kinds: Iterable[str], all_kinds: Iterable[str]) -> dict[str, int]:
    """How many there are of each kind, also of those of which there are none."""
    found = dict.fromkeys(all_kinds, 0)
    for kind in kinds:
        found[kind] += 1
    return found
