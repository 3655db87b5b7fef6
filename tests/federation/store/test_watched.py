"""Whether the store works, as the process that uses it tells others: over a real file on a disk that takes no more."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from federation.clock import ManualClock
from federation.errors import StoreCorrupt, StoreFull
from federation.store import Change, Committed, Conflict, SqliteStore, Unknown, WatchedStore
from federation.store.contract import Outcome
from federation.store.memory import MemoryStore
from federation.store.watched import TRIAL, TRY_AGAIN
from tests.federation.store.test_sqlite import files_limited_to

BIG = b"x" * 400_000


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WatchedStore]:
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        yield WatchedStore(store)


def told(watched: WatchedStore) -> str | None:
    return watched.problem


async def until_asleep(clock: ManualClock) -> None:
    while not clock.sleepers:
        await asyncio.sleep(0.001)


async def test_a_store_that_works_has_no_problem_and_is_not_tried(watched: WatchedStore) -> None:
    assert await watched.commit(Change("r1", put={"a": b"1"})) == Committed(1)
    assert isinstance(await watched.commit(Change("r2", put={"a": b"2"}, expect={"a": 0})), Conflict)
    assert (await watched.acquire("job", "me")).number == 1
    clock = ManualClock()
    trying = asyncio.create_task(watched.run(clock), name="store")
    for _ in range(5):
        await until_asleep(clock)
        clock.advance(TRY_AGAIN)
    trying.cancel()
    assert watched.problem is None
    assert list((await watched.load("")).rows) == ["a"]


async def test_a_full_disk_is_a_problem_until_something_is_stored_again(watched: WatchedStore) -> None:
    await watched.commit(Change("r1", put={"a": b"1"}))
    clock = ManualClock()
    trying = asyncio.create_task(watched.run(clock), name="store")
    with files_limited_to(100_000):
        with pytest.raises(StoreFull):
            await watched.commit(Change("r2", put={"a": BIG, "b": BIG}))
        assert (await watched.load("a")).rows["a"].value == b"1"
        assert "the disk takes no more" in (told(watched) or "")
    async with asyncio.timeout(30):
        while told(watched) is not None:
            await until_asleep(clock)
            clock.advance(TRY_AGAIN)
    trying.cancel()
    assert set((await watched.load("")).rows) == {"a", TRIAL}


async def test_damage_is_told_even_if_other_rows_can_still_be_written(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with await SqliteStore.open(path) as store:
        await store.commit(Change("r1", put={"a": b"1"}))
        watched = WatchedStore(store)
        await store._run(lambda: store._connection.execute("UPDATE row SET value = x'32'").fetchall())
        with pytest.raises(StoreCorrupt):
            await watched.load("")
        assert await watched.commit(Change("r2", put={"b": b"1"})) == Committed(2)
        assert watched.problem is not None
        assert "damaged" in watched.problem
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM row WHERE key = 'a'").fetchone() == (b"2",)


class Doubtful(MemoryStore):
    """A store whose first commits are answered with Unknown."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def commit(self, change: Change) -> Outcome:
        self.times -= 1
        return Unknown(change.request_id, "no answer") if self.times >= 0 else await super().commit(change)


async def test_a_store_that_cannot_say_has_a_problem_until_it_can() -> None:
    watched = WatchedStore(Doubtful(2))
    assert isinstance(await watched.commit(Change("r1", put={"a": b"1"})), Unknown)
    assert watched.problem == "no answer"
    await watched.attempt()
    assert watched.problem == "no answer"
    await watched.attempt()
    assert watched.problem is None
