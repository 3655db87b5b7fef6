"""The records of an authority's journal, and the ledger that they add up to: what still lives, and what is revoked.

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
    """About to sign. `digest` covers the whole template; it, `serial`, `spki` and `replaces` are hex.

    `epoch` is that in the subject of an authority, 0 for all else. `bundle` is the sequence of the trust bundle that
    the holder of a leaf is given with it, or of one before that; 0 where nobody counted.
    """

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
    epoch: int = 0
    bundle: int = 0


class Released(msgspec.Struct, frozen=True, tag="released", forbid_unknown_fields=True, omit_defaults=True):
    """Signed, looked at a second time, about to be handed out. `certificate` is the SHA-256 of its DER, hex.

    `numbered` is its serial number where the one who signed chose another than that of the intent.
    """

    at: datetime
    serial: str
    certificate: str
    numbered: str | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed", forbid_unknown_fields=True):
    """Nothing was handed out for the intent with this serial."""

    at: datetime
    serial: str
    reason: str


class Revoked(msgspec.Struct, frozen=True, tag="revoked", forbid_unknown_fields=True):
    """A certificate that was handed out must not be believed any more; `reason` is one of RFC 5280 §5.3.1."""

    at: datetime
    serial: str
    reason: str
    who: str
    why: str


class Superseded(msgspec.Struct, frozen=True, tag="superseded", forbid_unknown_fields=True):
    """The certificate `serial` is replaced by one for the key `by`, from another authority of the same trust domain."""

    at: datetime
    serial: str
    by: str


class Listed(msgspec.Struct, frozen=True, tag="listed", forbid_unknown_fields=True):
    """About to sign the revocation list `number`, which lists all that is revoked so far."""

    at: datetime
    number: int
    next_update: datetime


class Banned(msgspec.Struct, frozen=True, tag="banned", forbid_unknown_fields=True):
    """Somebody is kept out: a `kind` of name and the name, as whoever bans has them."""

    at: datetime
    kind: str
    subject: str
    reason: str


class Unbanned(msgspec.Struct, frozen=True, tag="unbanned", forbid_unknown_fields=True):
    """A ban is taken back."""

    at: datetime
    kind: str
    subject: str


class Living(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An `Entry`, as it is carried over from one part of a journal to the next. `serial` and keys are hex."""

    serial: str
    profile: str
    identity: str
    spki: str
    not_after: datetime
    successors: tuple[str, ...] = ()
    epoch: int = 0
    bundle: int = 0


class Continued(msgspec.Struct, frozen=True, tag="continued", forbid_unknown_fields=True):
    """The first record of a later part: after which line, with which hash, and what is known there, each sorted.

    `at` is not before anything that was recorded or forgotten.
    """

    at: datetime
    authority: str
    lines: int
    hash: str
    living: tuple[Living, ...]
    pending: tuple[Intent, ...]
    revoked: tuple[Revoked, ...]
    number: int
    bans: tuple[Banned | Unbanned, ...] = ()

    @property
    def kept(self) -> tuple[int, str]:
        """The number and the hash of the line that this one goes on from."""
        return self.lines, self.hash


Record = Opened | Intent | Released | Failed | Revoked | Superseded | Listed | Banned | Unbanned | Continued


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate that was handed out. `successors` are the keys (SPKI hashes) of those that replaced it, `bundle`
    as in its `Intent`.
    """

    serial: int
    profile: str
    identity: str
    spki: str
    not_after: datetime
    successors: frozenset[str] = frozenset()
    epoch: int = 0
    bundle: int = 0


class Ledger:
    """Certificates that may still be valid on somebody's clock, and intents without a result."""

    def __init__(self) -> None:
        self.pending: dict[str, Intent] = {}
        self.last: datetime | None = None
        """The latest time in any record."""
        self.revoked: dict[str, Revoked] = {}
        """By serial number; for ever, as only certificates of authorities are revoked, and of these there are few."""
        self.whose: dict[str, str] = {}
        """The identity in each that is revoked, by serial number; of those that had ended before this part, nothing."""
        self.bans: dict[tuple[str, str], Banned | Unbanned] = {}
        """The last word on each name."""
        self.number = 0
        """That of the newest revocation list."""
        self._forgotten: datetime | None = None
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
                    if isinstance(record, Released) and record.numbered is not None:
                        if self._taken(record.numbered) or record.numbered in begun:
                            return f"serial {record.numbered} is used a second time"
                        begun.add(record.numbered)
                case Revoked(serial=serial):
                    if serial not in self._entries:
                        return f"serial {serial} is revoked and does not live"
                    if serial in self.revoked or serial in ended:
                        return f"serial {serial} is revoked a second time"
                    ended.add(serial)
                case Superseded(serial=serial):
                    if serial not in self._entries:
                        return f"serial {serial} is superseded and does not live"
                case Listed(number=number):
                    if number <= self.number or place:
                        return f"revocation list {number} comes after {self.number}"
                case Banned() | Unbanned():
                    pass
                case Continued():
                    if place:
                        return "the journal is continued in the middle"
        return None

    def add(self, record: Record) -> None:
        """Take the next record, to which there is no objection."""
        match record:
            case Opened():
                pass
            case Intent():
                self.pending[record.serial] = record
            case Released():
                self._release(self.pending.pop(record.serial), record.numbered or record.serial)
            case Failed():
                del self.pending[record.serial]
            case Revoked():
                self.revoked[record.serial] = record
                self.whose[record.serial] = self._entries[record.serial].identity
            case Superseded():
                self._succeed(record.serial, record.by)
            case Listed():
                self.number = record.number
            case Banned() | Unbanned():
                self.bans[record.kind, record.subject] = record
            case Continued():
                self._take_over(record)
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

    def certified(self, spki: str) -> tuple[Entry, ...]:
        """The certificates for this key; some may have ended since somebody forgot last."""
        return tuple(self._entries[serial] for serial in self._serials.get(spki, ()))

    def newest(self, identity: str) -> Entry | None:
        """Of the authorities of a trust domain that live, the one of the highest epoch."""
        found = (one for one in self._entries.values() if one.epoch and one.identity == identity)
        return max(found, key=lambda one: one.epoch, default=None)

    def forget(self, now: datetime) -> None:
        """Let go of all entries that have ended, clock skew allowed for; costs what it lets go of."""
        self._forgotten = now if self._forgotten is None else max(self._forgotten, now)
        while self._ends and now > self._ends[0][0] + MOST_SKEW:
            _, serial = heappop(self._ends)
            spki = self._entries.pop(serial).spki
            self._serials[spki].remove(serial)
            if not self._serials[spki]:
                del self._serials[spki]

    def living(self, now: datetime) -> tuple[Entry, ...]:
        """All entries that have not ended. It forgets nothing: whoever only looks may have a clock that is wrong."""
        since = now - MOST_SKEW
        if not self._ends or since <= self._ends[0][0]:
            return tuple(self._entries.values())
        return tuple(one for one in self._entries.values() if since <= one.not_after)

    def continued(self, at: datetime, authority: str, lines: int, hash_: str) -> Continued:
        """What a later part begins with, so that it needs no part before it; what has ended by then is let go."""
        at = max(moment for moment in (at, self.last, self._forgotten) if moment is not None)
        self.forget(at)
        return Continued(
            at=at,
            authority=authority,
            lines=lines,
            hash=hash_,
            living=tuple(
                Living(
                    serial,
                    one.profile,
                    one.identity,
                    one.spki,
                    one.not_after,
                    tuple(sorted(one.successors)),
                    one.epoch,
                    one.bundle,
                )
                for serial, one in sorted(self._entries.items())
            ),
            pending=tuple(intent for _, intent in sorted(self.pending.items())),
            revoked=tuple(one for _, one in sorted(self.revoked.items())),
            number=self.number,
            bans=tuple(one for _, one in sorted(self.bans.items())),
        )

    def _take_over(self, first: Continued) -> None:
        self._entries, self._ends, self._serials = {}, [], {}
        self.pending = {intent.serial: intent for intent in first.pending}
        self.revoked = {one.serial: one for one in first.revoked}
        self.number = first.number
        self.bans = {(one.kind, one.subject): one for one in first.bans}
        self.whose = {one.serial: one.identity for one in first.living if one.serial in self.revoked}
        for one in first.living:
            self._live(
                Entry(
                    int(one.serial, 16),
                    one.profile,
                    one.identity,
                    one.spki,
                    one.not_after,
                    frozenset(one.successors),
                    one.epoch,
                    one.bundle,
                )
            )

    def _taken(self, serial: str) -> bool:
        return serial in self._entries or serial in self.pending

    def _release(self, intent: Intent, serial: str) -> None:
        self._live(
            Entry(
                int(serial, 16),
                intent.profile,
                intent.identity,
                intent.spki,
                intent.not_after,
                epoch=intent.epoch,
                bundle=intent.bundle,
            )
        )
        if intent.replaces in self._entries:
            self._succeed(intent.replaces, intent.spki)

    def _succeed(self, serial: str, spki: str) -> None:
        old = self._entries[serial]
        self._entries[serial] = replace(old, successors=old.successors | {spki})

    def _live(self, entry: Entry) -> None:
        serial = f"{entry.serial:x}"
        self._entries[serial] = entry
        heappush(self._ends, (entry.not_after, serial))
        self._serials.setdefault(entry.spki, set()).add(serial)
