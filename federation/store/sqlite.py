"""The store of a single hub: one SQLite file, which survives `kill -9` and a loss of power at any moment.

WAL with `synchronous=FULL`: the log is fsynced before a commit is answered. All of it runs in one thread of
its own, each change in one go: so no other change can come in between, and a caller who is cancelled leaves
no transaction open. With a hop per statement, as an asynchronous wrapper does it, both would need locks.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from federation.errors import StoreCorrupt, StoreError
from federation.store import database
from federation.store.contract import (
    REMEMBERED,
    Change,
    Committed,
    Conflict,
    Fenced,
    Image,
    Outcome,
    Row,
    Term,
    Unknown,
    reused,
)

T = TypeVar("T")


class SqliteStore:
    """Use as `async with await SqliteStore.open(path) as store`."""

    def __init__(self, path: Path, thread: ThreadPoolExecutor) -> None:
        """Runs in `thread`; others call `open`."""
        self._path = path
        self._thread = thread
        self._failed: StoreError | None = None
        self._lock = database.lock(path)
        with ExitStack() as undo:
            undo.callback(os.close, self._lock)
            self._connection = database.connect(path)
            undo.pop_all()

    @staticmethod
    async def open(path: Path) -> SqliteStore:
        """Open the store at `path`, or make it. Raises StoreHeld, StoreCorrupt, StoreFull or StoreError."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        opening = thread.submit(SqliteStore, path, thread)
        with ExitStack() as undo:
            undo.callback(thread.shutdown, wait=False)
            undo.callback(thread.submit, _abandon, opening)
            store = await asyncio.wrap_future(opening)
            undo.pop_all()
        return store

    async def close(self) -> None:
        """Finish what was begun, then let go of the file. Further calls raise RuntimeError."""
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def acquire(self, job: str, holder: str) -> Term:
        return await self._run(partial(self._acquire, job, holder))

    async def load(self, prefix: str) -> Image:
        return await self._run(partial(self._load, prefix))

    async def commit(self, change: Change) -> Outcome:
        return await self._run(partial(self._commit, change))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._thread.submit(work))

    # From here on, everything runs in the store's thread.

    def _close(self) -> None:
        try:
            self._connection.close()
        finally:
            os.close(self._lock)

    def _acquire(self, job: str, holder: str) -> Term:
        outcome = self._transact(partial(self._take_over, job, holder))
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def _take_over(self, job: str, holder: str) -> Term:
        self._connection.execute(
            "INSERT INTO term VALUES (?, 1, ?)"
            " ON CONFLICT (job) DO UPDATE SET number = number + 1, holder = excluded.holder",
            (job, holder),
        )
        return Term(job, self._newest_term(job))

    def _load(self, prefix: str) -> Image:
        self._ensure_usable()
        with database.translated(self._path):
            # One transaction, so that revision and rows belong together. "\x7f" sorts after every key.
            self._connection.execute("BEGIN")
            try:
                revision, incarnation = self._meta()
                found = self._connection.execute(
                    "SELECT key, value, revision, request_id, seal FROM row"
                    " WHERE key >= ? AND key < ? ORDER BY key",
                    (prefix, prefix + "\x7f"),
                ).fetchall()
            finally:
                self._connection.execute("ROLLBACK")
        for key, *content, sealed in found:
            if database.seal(key, *content) != sealed:
                raise StoreCorrupt(self._path, f"the row {key!r} is not as it was written")
        return Image(revision, incarnation, {key: Row(*content) for key, *content, _ in found})

    def _commit(self, change: Change) -> Outcome:
        outcome = self._transact(partial(self._apply, change))
        return Unknown(change.request_id, outcome.problem) if isinstance(outcome, StoreError) else outcome

    def _transact(self, work: Callable[[], T]) -> T | StoreError:
        """Run `work` in a transaction. Raises StoreError if it is certain that nothing was stored.

        A StoreError that is returned says that the disk did not confirm the commit: it may have happened.
        From then on the store refuses to work, because a second fsync may succeed without having written
        anything; opening the store again settles what is in it.
        """
        self._ensure_usable()
        try:
            with database.translated(self._path):
                self._connection.execute("BEGIN IMMEDIATE")
                outcome = work()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if database.refuses_to_write(error):
                raise database.translate(self._path, error) from error
            problem = f"the disk did not confirm a write: {error}"
            self._failed = StoreError(self._path, problem, "check the disk, then start again")
            return self._failed
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return outcome

    def _apply(self, change: Change) -> Committed | Conflict | Fenced:
        execute = self._connection.execute
        digest = change.digest()
        query = "SELECT digest, revision FROM request WHERE id = ?"
        if (earlier := execute(query, (change.request_id,)).fetchone()) is not None:
            if earlier[0] != digest:
                raise reused(change)
            return Committed(earlier[1])
        if change.term is not None and (newest := self._newest_term(change.term.job)) != change.term.number:
            return Fenced(change.term.job, newest)
        actual = {key: self._revision(key) for key in change.expect}
        if wrong := {key: revision for key, revision in actual.items() if revision != change.expect[key]}:
            return Conflict(wrong)
        before, incarnation = self._meta()
        revision = before + 1
        for key in change.delete:
            execute("DELETE FROM row WHERE key = ?", (key,))
        for key, value in change.put.items():
            row = (key, value, revision, change.request_id)
            execute("INSERT OR REPLACE INTO row VALUES (?, ?, ?, ?, ?)", (*row, database.seal(*row)))
        execute("INSERT INTO request VALUES (?, ?, ?)", (revision, change.request_id, digest))
        execute("DELETE FROM request WHERE revision <= ?", (revision - REMEMBERED,))
        execute("UPDATE meta SET revision = ?, seal = ?", (revision, database.seal(revision, incarnation)))
        return Committed(revision)

    def _meta(self) -> tuple[int, int]:
        revision, incarnation = self._connection.execute("SELECT revision, incarnation FROM meta").fetchone()
        return revision, incarnation

    def _revision(self, key: str) -> int:
        found = self._connection.execute("SELECT revision FROM row WHERE key = ?", (key,)).fetchone()
        return 0 if found is None else int(found[0])

    def _newest_term(self, job: str) -> int:
        found = self._connection.execute("SELECT number FROM term WHERE job = ?", (job,)).fetchone()
        return 0 if found is None else int(found[0])

    def _ensure_usable(self) -> None:
        if self._failed is not None:
            raise self._failed


def _abandon(opening: Future[SqliteStore]) -> None:
    """Let go of a store whose opener was cancelled while it was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()._close()
