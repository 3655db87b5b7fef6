"""The file under `SqliteStore`: made whole or not at all, locked, private, and looked through before it is
used.

What it refuses to do: open a damaged file, one of another program or of a newer version, one that others may
read, or start empty where there was a store.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from federation.errors import StoreCorrupt, StoreError, StoreFull, StoreHeld
from pki import durable
from pki.errors import PkiError

APPLICATION = 0x46454453
"""In the file's header (PRAGMA application_id): a store of this program."""
SCHEMA = 1
"""In the file's header (PRAGMA user_version): the version of the tables below."""

_MAGIC = b"SQLite format 3\x00"
_TABLES = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
CREATE TABLE meta (revision INTEGER NOT NULL, incarnation INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE row (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, request_id TEXT NOT NULL,
    seal INTEGER NOT NULL
);
CREATE TABLE request (revision INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL);
CREATE TABLE term (job TEXT PRIMARY KEY, number INTEGER NOT NULL, holder TEXT NOT NULL);
"""


def seal(*fields: object) -> int:
    """A checksum over the fields of a row. SQLite checks its own structure, not the bytes of a value."""
    return zlib.crc32(repr(fields).encode())


def lock(path: Path) -> int:
    """Lock the store at `path` for this process; the descriptor returned holds the lock until it is closed.

    Makes the folder if there is none. Raises StoreHeld, naming the holder, and StoreError.
    """
    try:
        durable.private_folder(path.parent)
        held = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except (PkiError, OSError) as error:
        raise StoreError(path, f"cannot be locked: {error}", "the folder must be 0700 and ours") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(held, 0)
        os.pwrite(held, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        written = os.pread(held, 32, 0).strip()
        os.close(held)
        raise StoreHeld(path, int(written) if written.isdigit() else None) from error
    except OSError as error:
        os.close(held)
        raise translate(path, error) from error
    return held


def connect(path: Path) -> sqlite3.Connection:
    """Open the store at `path`, which must be locked; make it if it was never there. Raises StoreError."""
    if not path.exists():
        _create(path)
    _examine_file(path)
    with ExitStack() as undo:
        connection = undo.enter_context(closing(_connect(path)))
        with translated(path):
            _examine_content(path, connection)
        undo.pop_all()
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into StoreError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translate(path, error) from error


def translate(path: Path, error: Exception) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if refuses_to_write(error):
        return StoreFull(path, str(error))
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreHeld(path, None)
        case _:
            return StoreError(path, str(error), "check the disk, and that the file and its folder are ours")


def refuses_to_write(error: Exception) -> bool:
    """Whether a write failed for want of room (a full disk, a quota, a file size limit) or on a failing disk.

    In WAL mode the bytes that commit a transaction are its last ones, so it is certain that it did not
    happen.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def _create(path: Path) -> None:
    if (log := path.with_name(path.name + "-wal")).exists():
        raise StoreCorrupt(path, f"it is missing, but its log {log.name} is there")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_TABLES)
        connection.execute("INSERT INTO meta VALUES (0, 1, ?)", (seal(0, 1),))
        connection.commit()
        content = connection.serialize()
    try:
        durable.create(path, content)
    except PkiError as error:
        raise StoreError(path, str(error), "make room for it, in a folder that is ours") from error


def _examine_file(path: Path) -> None:
    """Look at the file before SQLite does, which would take an empty one for a new database.

    The log is fsynced: a process may have died between writing a commit and making it durable, and what is
    read from now on counts as stored.
    """
    for part in (path, path.with_name(path.name + "-wal")):
        with translated(path):
            if not part.exists():
                continue
            opened = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                mode = stat.S_IMODE(os.fstat(opened).st_mode)
                begin = os.pread(opened, len(_MAGIC), 0)
                os.fsync(opened)
            finally:
                os.close(opened)
        if mode & 0o077:
            raise StoreError(path, f"{part.name} is open to others ({mode:04o})", f"chmod 600 {part}")
        if part == path and begin != _MAGIC:
            raise StoreCorrupt(path, "it is empty" if not begin else "it is not a database")


def _connect(path: Path) -> sqlite3.Connection:
    with ExitStack() as undo, translated(path):
        connection = undo.enter_context(closing(sqlite3.connect(path, timeout=0, isolation_level=None)))
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        if journal != "wal":
            # SQLite goes on in the old mode when it cannot change it, and says so in the answer only.
            raise StoreError(path, f"the journal stays in mode {journal!r} instead of WAL", "check the disk")
        undo.pop_all()
    return connection


def _examine_content(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise StoreError(path, "a database of another program", "choose another folder")
    if schema != SCHEMA:
        problem = f"written as version {schema}, this program reads version {SCHEMA}"
        raise StoreError(path, problem, "use the program that wrote it")
    try:
        problem = _damage(connection)
    except sqlite3.Error as error:
        raise StoreCorrupt(path, str(error)) from error
    if problem:
        raise StoreCorrupt(path, problem)


def _damage(connection: sqlite3.Connection) -> str:
    """What is wrong with the content, empty if nothing is."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        return str(verdict)
    (newest,) = connection.execute("SELECT coalesce(max(revision), 0) FROM request").fetchone()
    meta = connection.execute("SELECT revision, incarnation, seal FROM meta").fetchall()
    if len(meta) != 1 or seal(*meta[0][:2]) != meta[0][2] or newest != meta[0][0]:
        return "its revision is not to be believed"
    rows = connection.execute("SELECT key, value, revision, request_id, seal FROM row")
    for key, value, revision, request_id, sealed in rows:
        if seal(key, value, revision, request_id) != sealed:
            return f"the row {key!r} is not as it was written"
    return ""
