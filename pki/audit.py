"""What a journal tells people: each certificate once, with who asked for it, why, and what came of it.

Pure, and a reading alone: whether the journal can be believed is `pki.journal.examine`'s question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from pki.ledger import Continued, Failed, Intent, Record, Released, Revoked


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


def history(records: Iterable[Record]) -> tuple[Signed, ...]:
    """Every certificate in these records, in the order in which they were asked for.

    What was carried over from parts that are not at hand is told only if it was revoked or failed since.
    """
    found: dict[str, Signed] = {}
    for record in records:
        _take(record, found)
    return tuple(found.values())


def _take(record: Record, found: dict[str, Signed]) -> None:
    match record:
        case Intent(serial=serial):
            found[serial] = Signed(record, Outcome.OPEN)
        case Released(serial=serial, certificate=certificate) if serial in found:
            found[serial] = replace(found[serial], outcome=Outcome.RELEASED, certificate=certificate)
        case Failed(serial=serial, reason=reason) if serial in found:
            found[serial] = replace(found[serial], outcome=Outcome.FAILED, note=reason)
        case Revoked(serial=serial) if serial in found:
            note = f"{record.reason}, by {record.who}: {record.why}"
            found[serial] = replace(found[serial], outcome=Outcome.REVOKED, note=note)
        case Continued(pending=pending):
            for intent in pending:
                found.setdefault(intent.serial, Signed(intent, Outcome.OPEN))


def selected(
    signed: Iterable[Signed], since: datetime | None = None, identity: str | None = None
) -> tuple[Signed, ...]:
    """Those that were asked for since then, and for exactly this identity."""
    return tuple(
        one
        for one in signed
        if (since is None or one.intent.at >= since) and (identity is None or one.intent.identity == identity)
    )
