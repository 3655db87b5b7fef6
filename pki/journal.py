"""What an authority signed, and why: an append-only file, each line sealed by a hash over all before it.

For every certificate there is an `Intent`, on disk before the key is used, and a `Released`, on disk before
the certificate is handed out. If a line cannot be written, nothing is signed. A line is

    <SHA-256 of (previous hash, record), hex> <record, JSON>

and the first record names the authority, so that journals cannot be exchanged. `verify` finds an edit, a
removal and a change of order by itself, and a removal of the end by a head (lines and hash) that somebody
else has kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from pki import durable
from pki.errors import JournalError
from pki.ledger import Entry, Failed, Ledger, Opened, Record

LONGEST_JOURNAL = 1 << 30
"""Bytes; about three million certificates."""

_HASH_DIGITS = 64
_GENESIS = "0" * _HASH_DIGITS

_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Head:
    """How far a journal has come: how many lines it has, and the hash of the last one, hex."""

    lines: int = 0
    hash: str = _GENESIS


class Journal:
    """An open journal. It has one writer: a second process, or a second opening, is refused by a file lock.

    Calls block for an fsync and may come from any thread. After an error nothing can be appended until it is
    opened again, so that no certificate is signed on a journal in doubt.
    """

    def __init__(self, path: Path, authority: str, now: datetime, *, begin: bool = False) -> None:
        """Open the journal of `authority` (the hash of its key); with `begin`, make it if it is not there.

        Raises `JournalError` if it is missing, does not verify, is another authority's or is open elsewhere.
        A line that a crash cut short was never relied on and is dropped; intents without a result are closed
        as failed.
        """
        self._path = path
        self._lock = threading.Lock()
        if begin and not path.exists():
            durable.create(path, b"")
        self._file = _open_locked(path)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._ledger, self._head, self._size = _replay(
                path, durable.read_private(path, LONGEST_JOURNAL), authority
            )
            if self._head.lines == 0 and not begin:
                raise JournalError(path, 0, "has no whole line; restore it together with its authority")
            os.ftruncate(self._file, self._size)
            if self._head.lines == 0:
                self.append(Opened(now, authority))
            for serial in tuple(self._ledger.pending):
                self.append(Failed(now, serial, "interrupted"))
            self._ledger.forget(now)
            undo.pop_all()

    @property
    def head(self) -> Head:
        """For somebody else to keep, so that a removal of the end is noticed."""
        return self._head

    @property
    def last(self) -> datetime | None:
        """The latest time recorded."""
        return self._ledger.last

    def append(self, *records: Record) -> None:
        """Add records, all or none, and return when they are on disk, after one fsync; raises `JournalError`."""
        with self._lock:
            if self._file < 0:
                raise JournalError(self._path, 0, "is closed; nothing is signed until it is opened again")
            if (reason := self._ledger.objection(*records)) is not None:
                raise JournalError(self._path, self._head.lines + 1, reason)
            head, lines = self._head, bytearray()
            for record in records:
                line, head = _seal(head, record)
                lines += line
            self._write(lines, self._head.lines + 1)
            for record in records:
                self._ledger.add(record)
            self._head, self._size = head, self._size + len(lines)

    def entry(self, serial: int) -> Entry | None:
        """The living certificate with this serial number."""
        with self._lock:
            return self._ledger.entry(serial)

    def uses(self, serial: int) -> bool:
        """Whether this serial number is taken."""
        with self._lock:
            return self._ledger.uses(serial)

    def holder(self, spki: str) -> str | None:
        """The identity to which a key (SPKI hash, hex) belongs."""
        with self._lock:
            return self._ledger.holder(spki)

    def ledger(self, now: datetime) -> tuple[Entry, ...]:
        """Every certificate that was handed out and has not ended."""
        with self._lock:
            return self._ledger.living(now)

    def forget(self, now: datetime) -> None:
        """Keep in memory only what has not ended; the file keeps everything."""
        with self._lock:
            self._ledger.forget(now)

    def close(self) -> None:
        """Release the file; appending raises from now on."""
        with self._lock:
            self._shut()

    def _write(self, lines: bytes | bytearray, number: int) -> None:
        try:
            _write_at(self._file, self._size, lines)
            os.fsync(self._file)
        except OSError as error:
            try:
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
            except OSError:
                self._shut()
            raise JournalError(
                self._path, number, f"cannot be written: {error.strerror}; nothing was signed"
            ) from error

    def _shut(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def verify(path: Path, authority: str, kept: Head | None = None) -> Head:
    """Check a journal and return its head; raises `JournalError` with the line that cannot be believed.

    `kept` is an older head that was stored elsewhere: the journal must still contain it.
    """
    try:
        data = durable.read_private(path, LONGEST_JOURNAL)
    except FileNotFoundError as error:
        raise JournalError(path, 0, "does not exist") from error
    head = _replay(path, data, authority, kept)[1]
    if kept is not None and head.lines < kept.lines:
        raise JournalError(path, head.lines, f"ends here, but had {kept.lines} lines when its head was kept")
    return head


def _replay(path: Path, data: bytes, authority: str, kept: Head | None = None) -> tuple[Ledger, Head, int]:
    """Ledger, head and length in bytes of all whole lines."""
    ledger, head, size = Ledger(), Head(), 0
    for number, line in enumerate(_whole_lines(data), start=1):
        seal, _, body = line.partition(b" ")
        try:
            record = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise JournalError(path, number, "is damaged: not a record") from error
        head = Head(number, _hash(head, body))
        if head.hash.encode() != seal:
            raise JournalError(
                path, number, "does not follow from the lines before it: edited, removed or moved"
            )
        if number == 1 and record != Opened(record.at, authority):
            raise JournalError(path, number, "is the journal of another authority")
        if (reason := ledger.objection(record)) is not None:
            raise JournalError(path, number, reason)
        ledger.add(record)
        if kept is not None and kept.lines == number and kept.hash != head.hash:
            raise JournalError(path, number, "is not the line that was here when the head was kept")
        size += len(line) + 1
    return ledger, head, size


def _whole_lines(data: bytes) -> Iterator[bytes]:
    """Lines that end in a newline; a rest without one is what a crash cut short."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end]
        start = end + 1


def _seal(head: Head, record: Record) -> tuple[bytes, Head]:
    body = _encoder.encode(record)
    sealed = Head(head.lines + 1, _hash(head, body))
    return sealed.hash.encode() + b" " + body + b"\n", sealed


def _hash(previous: Head, body: bytes) -> str:
    return hashlib.sha256(previous.hash.encode() + body).hexdigest()


def _open_locked(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise JournalError(path, 0, "does not exist; restore it together with its authority") from error
    except OSError as error:
        raise JournalError(path, 0, f"cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise JournalError(
            path, 0, "is in use by another process; only one may sign with this authority"
        ) from error
    return file


def _write_at(file: int, offset: int, lines: bytes | bytearray) -> None:
    rest, at = memoryview(lines), offset
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
