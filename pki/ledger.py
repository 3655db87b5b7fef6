"""The records of an authority's journal, and the ledger that they add up to: which certificates still live.

Pure. `Ledger` is fed records in their order and answers what issuing needs to know: whether a serial number
is new, whom a key belongs to, and whether a certificate has been replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from heapq import heappop, heappush

import msgspec

from pki.skew import MOST_SKEW


class Opened(msgspec.Struct, frozen=True, tag="opened", forbid_unknown_fields=True):
    """The first record: whose journal this is, by the hash of the authority's key (hex SHA-256 of its SPKI)."""

    at: datetime
    authority: str


class Intent(msgspec.Struct, frozen=True, tag="intent", forbid_unknown_fields=True, omit_defaults=True):
    """About to sign. `digest` covers the whole template; it, `serial`, `spki` and `replaces` are hex."""

    at: datetime
    serial: str
    digest: str
    profile: str
    identity: str
    spki: str
    not_after: datetime
    who: str
    why: str
    replaces: str | None = None


class Released(msgspec.Struct, frozen=True, tag="released", forbid_unknown_fields=True):
    """Signed, looked at a second time, about to be handed out. `certificate` is the SHA-256 of its DER, hex."""

    at: datetime
    serial: str
    certificate: str


class Failed(msgspec.Struct, frozen=True, tag="failed", forbid_unknown_fields=True):
    """Nothing was handed out for the intent with this serial."""

    at: datetime
    serial: str
    reason: str


Record = Opened | Intent | Released | Failed


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate that was handed out. `successors` are the keys (SPKI hashes) of those that replaced it."""

    serial: int
    profile: str
    identity: str
    spki: str
    not_after: datetime
    successors: frozenset[str] = frozenset()


class Ledger:
    """Certificates that may still be valid on somebody's clock, and intents without a result."""

    def __init__(self) -> None:
        self.pending: dict[str, Intent] = {}
        self.last: datetime | None = None
        """The latest time in any record."""
        self._entries: dict[str, Entry] = {}
        self._ends: list[tuple[datetime, str]] = []
        self._serials: dict[str, set[str]] = {}

    def objection(self, *records: Record) -> str | None:
        """Why these records cannot come next, in this order, or None."""
        begun: set[str] = set()
        ended: set[str] = set()
        for place, record in enumerate(records):
            match record:
                case Opened():
                    if place or self.last is not None:
                        return "the journal is opened a second time"
                case Intent(serial=serial):
                    if self._taken(serial) or serial in begun:
                        return f"serial {serial} is used a second time"
                    begun.add(serial)
                case Released(serial=serial) | Failed(serial=serial):
                    if serial in ended or (serial not in begun and serial not in self.pending):
                        return f"serial {serial} has a result without an intent"
                    ended.add(serial)
        return None

    def add(self, record: Record) -> None:
        """Take the next record, to which there is no objection."""
        match record:
            case Opened():
                pass
            case Intent():
                self.pending[record.serial] = record
            case Released():
                self._release(self.pending.pop(record.serial))
            case Failed():
                del self.pending[record.serial]
        self.last = record.at if self.last is None else max(self.last, record.at)

    def entry(self, serial: int) -> Entry | None:
        """The living certificate with this serial number."""
        return self._entries.get(f"{serial:x}")

    def uses(self, serial: int) -> bool:
        """Whether this serial number is taken."""
        return self._taken(f"{serial:x}")

    def holder(self, spki: str) -> str | None:
        """The identity to which this key belongs, or None for a key that has no living certificate."""
        return next((self._entries[serial].identity for serial in self._serials.get(spki, ())), None)

    def forget(self, now: datetime) -> None:
        """Let go of all entries that have ended, clock skew allowed for; costs what it lets go of."""
        while self._ends and now > self._ends[0][0] + MOST_SKEW:
            _, serial = heappop(self._ends)
            spki = self._entries.pop(serial).spki
            self._serials[spki].remove(serial)
            if not self._serials[spki]:
                del self._serials[spki]

    def living(self, now: datetime) -> tuple[Entry, ...]:
        """All entries that have not ended; the others are forgotten."""
        self.forget(now)
        return tuple(self._entries.values())

    def _taken(self, serial: str) -> bool:
        return serial in self._entries or serial in self.pending

    def _release(self, intent: Intent) -> None:
        self._entries[intent.serial] = Entry(
            int(intent.serial, 16), intent.profile, intent.identity, intent.spki, intent.not_after
        )
        heappush(self._ends, (intent.not_after, intent.serial))
        self._serials.setdefault(intent.spki, set()).add(intent.serial)
        old = self._entries.get(intent.replaces) if intent.replaces is not None else None
        if old is not None and intent.replaces is not None:
            self._entries[intent.replaces] = replace(old, successors=old.successors | {intent.spki})
