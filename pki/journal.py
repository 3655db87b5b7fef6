"""What an authority signed, and why: an append-only file, each line sealed by a hash over all before it (`pki.chain`).

For every certificate there is an `Intent`, on disk before the key is used, and a `Released`, on disk before the
certificate is handed out. If a line cannot be written, nothing is signed.

A file that has grown to `LONGEST_PART`, and to twice what its first line carries over, is set aside as
`journal.<number of its last line>`, and a new one goes on from its hash. Parts set aside are never read again, except
to be verified: they may be moved elsewhere at any time.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from pki import chain, durable
from pki.chain import Head as Head
from pki.chain import Replayed
from pki.errors import JournalError, WriteError
from pki.ledger import Banned, Entry, Failed, Ledger, Opened, Record, Revoked, Unbanned

LONGEST_PART = 16 << 20
"""Bytes after which a new file is begun; what is read at a start, too."""
LONGEST_JOURNAL = 1 << 30
"""Bytes that are read of one file at most."""

_LINE_DIGITS = 15


class Journal:
    """An open journal. It has one writer: a second process, or a second opening, is refused by a file lock.

    Appending blocks for an fsync, asking does not; both may come from any thread. `problem` says why the last attempt
    to write failed, None if it did not; `failures` counts those that did. When it is in doubt what is on disk, nothing
    can be appended until the journal is opened again.
    """

    def __init__(
        self,
        path: Path,
        authority: str,
        now: datetime,
        *,
        begin: bool = False,
        longest_part: int = LONGEST_PART,
    ) -> None:
        """Open the journal of `authority` (the hash of its key); with `begin`, make it if it is not there.

        Raises `JournalError` if it is missing, does not verify, is another authority's or is open elsewhere.
        A line that a crash cut short was never relied on and is dropped; intents without a result are closed
        as failed.
        """
        self.problem: str | None = None
        self.failures = 0
        self._path = path
        self._authority = authority
        self._longest_part = longest_part
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._ledger, self._head, self._size = Ledger(), Head(), 0
        self._carried = 0
        if begin and not path.exists():
            durable.create(path, b"")
        self._file = _open_locked(path)
        with ExitStack() as undo:
            undo.callback(self.close)
            for part in earlier_parts(path):
                if part.samefile(path):
                    part.unlink()  # a crash came between setting it aside and beginning the next one
            data = durable.read_private(path, LONGEST_JOURNAL)
            found = chain.replay(path, data)
            if found.head.lines == 0 and not begin:
                raise JournalError(path, 0, "has no whole line; restore it together with its authority")
            if found.authority not in ("", authority):
                raise JournalError(path, 1, "is the journal of another authority")
            self._ledger, self._head, self._size = found.ledger, found.head, found.size
            self._carried = data.find(b"\n") + 1
            os.ftruncate(self._file, self._size)
            if self._head.lines == 0:
                self.append(Opened(now, authority))
            for serial in tuple(self._ledger.pending):
                self.append(Failed(now, serial, "interrupted"))
            self._ledger.forget(now)
            undo.pop_all()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def authority(self) -> str:
        """The hash of the key whose journal this is, hex."""
        return self._authority

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
        with self._writing:
            if self._file < 0:
                raise JournalError(self._path, 0, "is closed; nothing is signed until it is opened again")
            if (reason := self._ledger.objection(*records)) is not None:
                raise JournalError(self._path, self._head.lines + 1, reason)
            lines, head = chain.seal(self._head, *records)
            if self._head.lines and self._size + len(lines) > max(self._longest_part, 2 * self._carried):
                self._begin_part(records[0].at)
                lines, head = chain.seal(self._head, *records)
            self._write(lines)
            with self._lock:
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

    def newest(self, identity: str) -> Entry | None:
        """As `Ledger.newest`."""
        with self._lock:
            return self._ledger.newest(identity)

    def holder(self, spki: str) -> str | None:
        """The identity to which a key (SPKI hash, hex) belongs."""
        with self._lock:
            return self._ledger.holder(spki)

    def certified(self, spki: str) -> tuple[Entry, ...]:
        """As `Ledger.certified`."""
        with self._lock:
            return self._ledger.certified(spki)

    def ledger(self, now: datetime) -> tuple[Entry, ...]:
        """Every certificate that was handed out and has not ended."""
        with self._lock:
            return self._ledger.living(now)

    def revoked(self) -> tuple[Revoked, ...]:
        """Every certificate that was ever revoked."""
        with self._lock:
            return tuple(self._ledger.revoked.values())

    def whose(self) -> dict[str, str]:
        """As `Ledger.whose`."""
        with self._lock:
            return dict(self._ledger.whose)

    @property
    def number(self) -> int:
        """That of the newest revocation list, 0 before the first."""
        return self._ledger.number

    def bans(self) -> tuple[Banned | Unbanned, ...]:
        """The last word on everybody who was ever banned."""
        with self._lock:
            return tuple(self._ledger.bans.values())

    def forget(self, now: datetime) -> None:
        """Keep in memory only what has not ended; the file keeps everything."""
        with self._lock:
            self._ledger.forget(now)

    def close(self) -> None:
        """Release the file; appending raises from now on."""
        with self._writing:
            self._shut()

    def _write(self, lines: bytes) -> None:
        try:
            _write_at(self._file, self._size, lines)
            os.fsync(self._file)
        except OSError as error:
            self._failed(f"cannot be written: {error.strerror}")
            try:
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
            except OSError:
                self._shut()
            raise JournalError(
                self._path, self._head.lines + 1, f"cannot be written: {error.strerror}; nothing was signed"
            ) from error
        self.problem = None

    def _begin_part(self, at: datetime) -> None:
        """Set the file aside under another name, and put one in its place that goes on from it."""
        with self._lock:
            first = self._ledger.continued(at, self._authority, self._head.lines, self._head.hash)
        line, head = chain.seal(self._head, first)
        aside = self._path.with_name(f"{self._path.name}.{self._head.lines:0{_LINE_DIGITS}}")
        try:
            os.link(self._path, aside, follow_symlinks=False)
            durable.write(self._path, line)
            following = _open_locked(self._path)
        except (OSError, WriteError, JournalError) as error:
            reason = error.reason if isinstance(error, WriteError | JournalError) else error.strerror
            self._failed(f"cannot be continued: {reason}")
            with suppress(OSError):
                if self._is_in_place():
                    aside.unlink()
                else:
                    self._shut()
            raise JournalError(
                self._path, self._head.lines + 1, f"cannot be continued: {reason}; nothing was signed"
            ) from error
        os.close(self._file)
        self._file, self._head, self._size, self._carried = following, head, len(line), len(line)

    def _failed(self, how: str) -> None:
        self.problem = f"{self._path} {how}"
        self.failures += 1

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one under our name."""
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except OSError:
            return False

    def _shut(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@runtime_checkable
class Journaled(Protocol):
    """Whoever signs and keeps journals of it here."""

    @property
    def journals(self) -> tuple[Journal, ...]: ...


def earlier_parts(path: Path) -> tuple[Path, ...]:
    """The parts of the journal at `path` that were set aside and are still beside it, oldest first."""
    digits = "[0-9]" * _LINE_DIGITS
    return tuple(sorted(path.parent.glob(f"{path.name}.{digits}")))


def verify(path: Path, authority: str | None = None, kept: Head | None = None) -> Head:
    """As `examine` does, and return the head of the journal."""
    return examine(path, authority, () if kept is None else (kept,)).head


def examine(path: Path, authority: str | None = None, kept: Collection[Head] = ()) -> Replayed:
    """Check a journal, with the parts that are beside it, and say what it adds up to.

    `authority` is whose it must be, None for whoever it says it is of; `kept` are older heads that were stored
    elsewhere: the journal must still contain each. Raises `JournalError` with the line that cannot be believed.
    """
    found: Replayed | None = None
    first = path
    for part, data in _all_parts(path):
        first = part if found is None else first
        found = chain.replay(part, data, found, kept)
        if authority not in (None, found.authority):
            raise JournalError(part, 1, "is the journal of another authority")
    assert found is not None
    if found.head.lines == 0:
        raise JournalError(first, 0, "has no whole line: it is no journal")
    for one in kept:
        _check_kept(first, path, found, one)
    return found


def _check_kept(first: Path, last: Path, found: Replayed, kept: Head) -> None:
    """Whether a head lies within the lines that are at hand; `replay` has compared it if it does."""
    if kept.lines == found.since.lines and kept != found.since:
        raise JournalError(first, 1, "does not go on from the line that was there when the head was kept")
    if kept.lines < found.since.lines:
        where = f"begins after line {found.since.lines}, and its head was kept at line {kept.lines}"
        raise JournalError(first, 0, f"{where}: put the parts set aside beside it")
    if kept.lines > found.head.lines:
        raise JournalError(
            last, found.head.lines, f"ends here, but had {kept.lines} lines when its head was kept"
        )


def records(path: Path) -> Iterator[Record]:
    """Every record of a journal and of the parts that are beside it, the oldest first; nothing is verified.

    One part at a time is in memory. Raises `JournalError` for what is no record.
    """
    for part, data in _each_part(path):
        for line in chain.lines(part, data):
            yield line.record


def _each_part(path: Path) -> Iterator[tuple[Path, bytes]]:
    """As `_all_parts`, one after the other; with those that are set aside meanwhile."""
    read: set[Path] = set()
    while True:
        try:
            for part in _unread(path, read):
                read.add(part)
                yield part, durable.read_private(part, LONGEST_JOURNAL)
            last = durable.read_private(path, LONGEST_JOURNAL)
            if not _unread(path, read):
                yield path, last
                return
        except FileNotFoundError as error:
            if not path.exists():
                raise JournalError(path, 0, "does not exist") from error


def _unread(path: Path, read: Collection[Path]) -> tuple[Path, ...]:
    return tuple(part for part in earlier_parts(path) if part not in read and not part.samefile(path))


def _all_parts(path: Path) -> list[tuple[Path, bytes]]:
    """Each part and its bytes; anew if the journal is continued meanwhile."""
    while True:
        before = earlier_parts(path)
        try:
            whole = tuple(part for part in before if not part.samefile(path))
            parts = [(part, durable.read_private(part, LONGEST_JOURNAL)) for part in (*whole, path)]
        except FileNotFoundError as error:
            if not path.exists():
                raise JournalError(path, 0, "does not exist") from error
            continue
        if earlier_parts(path) == before:
            return parts


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


def _write_at(file: int, offset: int, lines: bytes) -> None:
    rest, at = memoryview(lines), offset
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
