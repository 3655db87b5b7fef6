"""The last configuration that Envoy accepted, resource by resource, on disk: what a gateway starts with alone.

A file that cannot be read is moved aside and said so; the gateway then starts with what its agent sends. It is never
silently empty. Each row carries a checksum, because SQLite checks its own structure and not the bytes of a value.
The file is locked for this process alone, and then needs no shared memory beside it: what is stored can be read where
there is no room for anything more (sqlite.org/wal.html, "Use of WAL Without Shared-Memory").
"""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from federation.errors import StoreError, StoreFull, StoreHeld
from gateway.snapshot import Key, Resource, Snapshot

SCHEMA = 2
"""1 had no `known`, so that what was stored with it knows of the types of its resources alone."""

LONGEST_WAIT = 1.0
"""Seconds for another process to let go of the file."""

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS resource (
        type TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, body BLOB NOT NULL, seal INTEGER NOT NULL,
        PRIMARY KEY (type, name)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE IF NOT EXISTS known (type TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID",
)


class ResourceStore:
    """`open` reads all; `write` returns when the change is on disk. Calls run one after the other, in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="resources")
        self._database: sqlite3.Connection | None = None
        self.set_aside: Path | None = None

    async def open(self, now: datetime) -> Snapshot:
        """What is stored; nothing if the file is new, or damaged, which `set_aside` tells. Raises StoreHeld or
        StoreError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._open, now)

    async def write(
        self, put: Iterable[Resource], remove: Iterable[Key], known_types: Iterable[str] = ()
    ) -> None:
        """`known_types` as in `Snapshot.replace`. Raises StoreFull or StoreError; then nothing of it was stored."""
        rows = [(r.type_url, r.name, r.version, r.body, _seal(r)) for r in put]
        known = [(type_url,) for type_url in known_types]
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows, list(remove), known)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _open(self, now: datetime) -> Snapshot:
        try:
            return self._read()
        except (sqlite3.DatabaseError, _Damaged) as error:
            self._close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise StoreHeld(self._path, None) from error
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(self._path, f"cannot be opened: {error}") from error
        self.set_aside = self._move_aside(now)
        return self._read()

    def _read(self) -> Snapshot:
        created = not self._path.exists()
        if created:
            self._path.touch(mode=0o600)
        database = self._database = sqlite3.connect(self._path, LONGEST_WAIT, isolation_level=None)
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        is_new = version == 0 and not database.execute("SELECT 1 FROM sqlite_schema").fetchone()
        if is_new or version == 1:
            for table in _TABLES:
                database.execute(table)
            database.execute(f"PRAGMA user_version = {SCHEMA}")
        elif version != SCHEMA:
            raise _Damaged
        if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise _Damaged
        found = map(_resource, database.execute("SELECT type, name, version, body, seal FROM resource"))
        known = [type_url for (type_url,) in database.execute("SELECT type FROM known")]
        return Snapshot().replace(found, (), known)

    def _write(
        self, rows: list[tuple[str, str, str, bytes, int]], remove: list[Key], known: list[tuple[str]]
    ) -> None:
        if (database := self._database) is None:
            raise StoreError(self._path, "is closed")
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("REPLACE INTO resource VALUES (?, ?, ?, ?, ?)", rows)
            database.executemany("DELETE FROM resource WHERE type = ? AND name = ?", remove)
            database.executemany("INSERT OR IGNORE INTO known VALUES (?)", known)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreFull(self._path, str(error)) from error
            raise StoreError(self._path, str(error)) from error

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _move_aside(self, now: datetime) -> Path:
        aside = self._path.with_name(f"{self._path.name}.corrupt-{now:%Y%m%dT%H%M%S%f}")
        self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        return aside


class _Damaged(Exception):
    """The file is a database, and not as we left it."""


def _seal(resource: Resource) -> int:
    text = f"{resource.type_url}\0{resource.name}\0{resource.version}\0"
    return zlib.crc32(resource.body, zlib.crc32(text.encode()))


def _resource(row: tuple[str, str, str, bytes, int]) -> Resource:
    resource = Resource(*row[:4])
    if _seal(resource) != row[4]:
        raise _Damaged
    return resource
