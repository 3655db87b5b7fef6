"""What a journal tells people: each certificate once, with who asked for it, why, and what came of it.

`history` sums up, `told` reads line by line. Pure, and a reading alone: whether the journal can be believed is
`pki.journal.examine`'s question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import assert_never

from pki.ledger import (
    Banned,
    Continued,
    Failed,
    Intent,
    Listed,
    Opened,
    Record,
    Released,
    Revoked,
    Superseded,
    Unbanned,
)


class Outcome(Enum):
    OPEN = "open"
    """Neither handed out nor given up yet."""
    RELEASED = "released"
    FAILED = "failed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Signed:
    """One certificate of a journal; `note` is the reason of a failure or of a revocation."""

    intent: Intent
    outcome: Outcome
    certificate: str | None = None
    note: str = ""


def history(
    records: Iterable[Record],
    since: datetime | None = None,
    identity: str | None = None,
    most: int | None = None,
) -> tuple[Signed, ...]:
    """The certificates in these records that were asked for since then, and for exactly this identity, in the order in
    which they were asked for; the newest `most` if that is said, and then no more than twice as many are held.

    What was carried over from parts that are not at hand is told only if it was revoked or failed since.
    """

    def wanted(intent: Intent) -> bool:
        return (since is None or intent.at >= since) and (identity is None or intent.identity == identity)

    found: dict[str, Signed] = {}
    for record in records:
        _take(record, found, wanted)
        if most is not None and len(found) > 2 * most:
            found = _newest(found, most)
    return tuple((found if most is None else _newest(found, most)).values())


def _newest(found: Mapping[str, Signed], most: int) -> dict[str, Signed]:
    return dict(sorted(found.items(), key=lambda item: item[1].intent.at)[-most:])


def _take(record: Record, found: dict[str, Signed], wanted: Callable[[Intent], bool]) -> None:
    match record:
        case Intent(serial=serial) if wanted(record):
            found[serial] = Signed(record, Outcome.OPEN)
        case Released(serial=serial, certificate=certificate) if serial in found:
            found[serial] = replace(found[serial], outcome=Outcome.RELEASED, certificate=certificate)
        case Failed(serial=serial, reason=reason) if serial in found:
            found[serial] = replace(found[serial], outcome=Outcome.FAILED, note=reason)
        case Revoked(serial=serial) if serial in found:
            note = f"{record.reason}, by {record.who}: {record.why}"
            found[serial] = replace(found[serial], outcome=Outcome.REVOKED, note=note)
        case Continued(pending=pending):
            for intent in filter(wanted, pending):
                found.setdefault(intent.serial, Signed(intent, Outcome.OPEN))


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a journal for people: its number, whom or what it is `about`, and what it `says`."""

    line: int
    record: Record
    about: str
    says: str


def told(records: Iterable[Record]) -> Iterator[Told]:
    """Every record, in its order. A certificate is told by whom it is for, or its serial number if it had ended before
    the part of the journal began.
    """
    whose: dict[str, str] = {}
    line = 0
    for record in records:
        line = line + 1
        match record:
            case Continued():
                line = record.lines + 1
                whose = {one.serial: one.identity for one in record.living}
                whose |= {one.serial: one.identity for one in record.pending}
            case Intent():
                whose[record.serial] = record.identity
            case Released() if record.numbered is not None and record.serial in whose:
                whose[record.numbered] = whose[record.serial]
        yield Told(line, record, *_words(record, whose))


def _words(record: Record, whose: dict[str, str]) -> tuple[str, str]:
    match record:
        case Opened():
            return record.authority, "the journal of the authority with this key begins"
        case Intent():
            renews = f", replaces {record.replaces}" if record.replaces else ""
            asked = f"asked for by {record.who}{_because(record.why)}"
            says = f"{record.profile} {record.serial} until {_day(record.not_after)}{renews}, {asked}"
            return record.identity, says
        case Released():
            under = f" under the number {record.numbered}" if record.numbered else ""
            return _named(record.serial, whose), f"{record.serial} is handed out{under}"
        case Failed():
            return _named(record.serial, whose), f"{record.serial} is not handed out: {record.reason}"
        case Revoked():
            says = f"{record.serial} is revoked by {record.who}, {record.reason}{_because(record.why)}"
            return _named(record.serial, whose), says
        case Superseded():
            return _named(record.serial, whose), f"{record.serial} is replaced by one for the key {record.by}"
        case Listed():
            return f"list {record.number}", f"of what is revoked, good until {_day(record.next_update)}"
        case Banned():
            return f"{record.kind} {record.subject}", f"is banned: {record.reason}"
        case Unbanned():
            return f"{record.kind} {record.subject}", "the ban is taken back"
        case Continued():
            carried = f"{len(record.living)} certificates that live, {len(record.bans)} bans"
            return record.authority, f"goes on after line {record.lines}, and carries over {carried}"
        case _:
            assert_never(record)


def _named(serial: str, whose: dict[str, str]) -> str:
    return whose.get(serial, f"serial {serial}")


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
