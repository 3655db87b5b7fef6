"""The chain of an authority's journal: each line is sealed by a hash over all lines before it.

A line is `<SHA-256 of (previous hash, record), hex> <record, JSON>`, and its first record says whose journal it is.
A long journal is cut into parts. Each part but the first begins with a `Continued`, which names the line and the hash
that it goes on from and carries what the authority still has to know, so no older part is needed to go on; whoever has
both sees that what is carried is what the older one adds up to.

Pure: bytes in, `Position` or `JournalError` out. An edit, a removal and a change of order show by themselves, a removal
of the end only against a head that somebody else kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pki.errors import JournalError
from pki.ledger import Continued, Ledger, Opened, Record

_HASH_DIGITS = 64
GENESIS = "0" * _HASH_DIGITS

_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Head:
    """How far a journal has come: how many lines it has, and the hash of the last one, hex."""

    lines: int = 0
    hash: str = GENESIS


@dataclass(slots=True)
class Replayed:
    """What lines add up to. `authority` is the hash of its key, `since` the head before the first line that is at hand,
    `size` the bytes of the whole lines of the last part.
    """

    authority: str = ""
    since: Head = field(default_factory=Head)
    head: Head = field(default_factory=Head)
    ledger: Ledger = field(default_factory=Ledger)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line of a part: its number in the file, its seal, and the record as bytes and as a value."""

    number: int
    seal: bytes
    body: bytes
    record: Record


def seal(head: Head, *records: Record) -> tuple[bytes, Head]:
    """The lines of `records` after `head`, and the head that they make."""
    lines = bytearray()
    for record in records:
        body = _encoder.encode(record)
        head = _after(head, body)
        lines += head.hash.encode() + b" " + body + b"\n"
    return bytes(lines), head


def lines(path: Path, data: bytes) -> Iterator[Line]:
    """The whole lines in `data`; a rest without a newline is what a crash cut short. `path` is for the errors."""
    start, number = 0, 0
    while (end := data.find(b"\n", start)) >= 0:
        number += 1
        sealed, _, body = data[start:end].partition(b" ")
        try:
            record = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise JournalError(path, number, "is damaged: not a record") from error
        yield Line(number, sealed, body, record)
        start = end + 1


def replay(path: Path, data: bytes, before: Replayed | None = None, kept: Collection[Head] = ()) -> Replayed:
    """Check one part, after the part `before` it if that is at hand, and say what all of it adds up to.

    `kept` are heads that were stored elsewhere: where the line of one is reached, it must be this one.
    """
    found = (
        Replayed() if before is None else Replayed(before.authority, before.since, before.head, before.ledger)
    )
    for line in lines(path, data):
        if line.number == 1:
            _begin(path, line, found, before)
        elif isinstance(line.record, Continued):
            raise JournalError(path, line.number, "continues another part in the middle of this one")
        found.head = _after(found.head, line.body)
        if found.head.hash.encode() != line.seal:
            raise JournalError(
                path, line.number, "does not follow from the lines before it: edited, removed or moved"
            )
        if (reason := found.ledger.objection(line.record)) is not None:
            raise JournalError(path, line.number, reason)
        found.ledger.add(line.record)
        if any(one.lines == found.head.lines and one.hash != found.head.hash for one in kept):
            raise JournalError(path, line.number, "is not the line that was here when the head was kept")
        found.size += len(line.seal) + len(line.body) + 2
    return found


def _begin(path: Path, line: Line, found: Replayed, before: Replayed | None) -> None:
    """Take in whose journal the first line of a part says it is, and from where it goes on."""
    match line.record:
        case Opened(authority=authority) if before is None:
            found.authority = authority
        case Continued(authority=authority) as first:
            if before is None:
                found.authority, found.head = authority, Head(*first.kept)
                found.since = found.head
            elif (authority, Head(*first.kept)) != (before.authority, before.head):
                raise JournalError(path, line.number, "does not go on where the part before it ends")
            elif first != before.ledger.continued(first.at, authority, first.lines, first.hash):
                raise JournalError(
                    path, line.number, "carries over what the part before it does not add up to"
                )
        case _:
            raise JournalError(path, line.number, "is not the beginning of a journal")


def _after(head: Head, body: bytes) -> Head:
    return Head(head.lines + 1, hashlib.sha256(head.hash.encode() + body).hexdigest())
