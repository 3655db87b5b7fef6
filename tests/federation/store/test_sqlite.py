"""What only the store on disk can get wrong: locks, permissions, damage, a full disk, a lost answer, `kill
-9`.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from federation.errors import StoreCorrupt, StoreError, StoreFull, StoreHeld
from federation.store import Change, Committed, Image, SqliteStore, Unknown


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "hub.db"


async def fill(path: Path, commits: int = 5) -> Image:
    async with await SqliteStore.open(path) as store:
        for i in range(commits):
            await store.commit(Change(f"r{i}", put={f"key/{i}": b"value %d" % i * 50, "last": b"%d" % i}))
        return await store.load("")


async def image(path: Path) -> Image:
    async with await SqliteStore.open(path) as store:
        return await store.load("")


async def test_what_was_committed_is_there_after_a_restart(path: Path) -> None:
    assert await image(path) == Image(0, 1, {})
    stored = await fill(path)
    assert await image(path) == stored
    async with await SqliteStore.open(path) as store:
        assert await store.commit(Change("r6", put={"a": b""}, expect={"last": 5})) == Committed(6)
        assert (await store.acquire("job", "h")).number == 1
    async with await SqliteStore.open(path) as store:
        assert (await store.acquire("job", "h")).number == 2


async def test_files_are_private(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        await store.commit(Change("r1", put={"a": b""}))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"hub.db": 0o600, "hub.db-wal": 0o600, "hub.db.lock": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(file.name for file in path.parent.iterdir()) == ["hub.db", "hub.db.lock"]


def test_refuses_what_others_may_read(path: Path) -> None:
    asyncio.run(fill(path))
    path.chmod(0o640)
    with pytest.raises(StoreError, match="open to others") as caught:
        asyncio.run(image(path))
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    path.parent.chmod(0o755)
    with pytest.raises(StoreError, match="cannot be locked"):
        asyncio.run(image(path))


async def test_every_commit_is_synced(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        levels = await store._run(
            lambda: [
                store._connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "locking_mode")
            ]
        )
    assert levels == ["wal", 2, "exclusive"]


async def test_a_second_opener_is_told_who_holds_it(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        with pytest.raises(StoreHeld) as caught:
            await SqliteStore.open(path)
        assert caught.value.pid == os.getpid()
        assert await store.commit(Change("r1", put={"a": b""})) == Committed(1)
    assert (await image(path)).revision == 1


async def test_another_program_cannot_write_into_an_open_store(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        await store.commit(Change("r1", put={"a": b""}))
        with closing(sqlite3.connect(path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError):
            other.execute("DELETE FROM row")
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("SELECT * FROM row").fetchall()
        with pytest.raises(StoreHeld, match="held by another process"):
            await SqliteStore.open(path)
    assert (await image(path)).revision == 1


async def test_a_cancelled_opener_leaves_no_lock(path: Path) -> None:
    opening = asyncio.create_task(SqliteStore.open(path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    loaded = None
    async with asyncio.timeout(30):
        while loaded is None:
            with suppress(StoreHeld):
                loaded = await image(path)
            await asyncio.sleep(0)
    assert loaded == Image(0, 1, {})


async def test_a_cancelled_commit_leaves_no_transaction_open(path: Path) -> None:
    async with await SqliteStore.open(path) as store:
        change = Change("r1", put={"a": b"1"})
        committing = asyncio.create_task(store.commit(change))
        await asyncio.sleep(0)
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing
        assert await store.commit(change) == Committed(1)
        assert await store.commit(Change("r2", put={"a": b"2"})) == Committed(2)


# Damage


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite_header(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + path.read_bytes()[4:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def lose_the_file(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"\x37\x7f\x06\x82")
    path.unlink()


def change_a_value(path: Path) -> None:
    content = path.read_bytes()
    assert b"value 3value 3" in content
    path.write_bytes(content.replace(b"value 3value 3", b"value 3valve 3", 1))


def edit(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()

    damage.__name__ = statement
    return damage


@pytest.mark.parametrize(
    "damage",
    [
        empty,
        overwrite_header,
        cut,
        lose_the_file,
        change_a_value,
        edit("DELETE FROM meta"),
        edit("DROP TABLE row"),
        edit("UPDATE meta SET revision = 3"),
        edit("DELETE FROM request WHERE revision = 5"),
        edit("UPDATE row SET revision = 1 WHERE key = 'last'"),
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_store_is_refused_and_left_as_it_is(path: Path, damage: Callable[[Path], None]) -> None:
    asyncio.run(fill(path))
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StoreCorrupt) as caught:
        asyncio.run(image(path))
    assert "the store is damaged" in str(caught.value)
    assert "put a backup in its place" in caught.value.hint
    assert (path.read_bytes() if path.exists() else None) == before


def test_no_flipped_byte_changes_what_is_loaded(path: Path) -> None:
    stored = asyncio.run(fill(path))
    intact = path.read_bytes()
    refused = 0
    for position in random.Random(7).sample(range(len(intact)), 150):
        damaged = bytearray(intact)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            loaded = asyncio.run(image(path))
        except StoreError:
            refused += 1
        else:
            assert loaded == stored, position
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
    assert refused > 0


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("PRAGMA application_id = 1", "a database of another program"),
        ("PRAGMA user_version = 2", "written as version 2, this program reads version 1"),
    ],
)
async def test_a_foreign_or_newer_store_is_refused(path: Path, statement: str, problem: str) -> None:
    await fill(path)
    edit(statement)(path)
    with pytest.raises(StoreError, match=problem):
        await SqliteStore.open(path)


# A full disk, and a disk that does not answer


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_refuses_the_change_and_nothing_else(path: Path) -> None:
    stored = await fill(path)
    async with await SqliteStore.open(path) as store:
        large = Change("large", put={"a": b"x" * 500_000, "b": b""}, delete=frozenset({"last"}))
        with files_limited_to(100_000):
            for _ in range(2):
                with pytest.raises(StoreFull, match="nothing was stored"):
                    await store.commit(large)
                assert await store.load("") == stored
            assert await store.commit(Change("small", put={"c": b""})) == Committed(6)
        assert await store.commit(large) == Committed(7)
        after = await store.load("")
    assert await image(path) == after
    assert after.rows.keys() == (stored.rows.keys() | {"a", "b", "c"}) - {"last"}


async def test_a_store_that_cannot_change_its_journal_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.with_name(path.name + "-journal").mkdir()
    with pytest.raises(StoreError, match="disk I/O error"):
        await SqliteStore.open(path)


async def test_a_full_database_refuses_the_change_and_nothing_else(path: Path) -> None:
    stored = await fill(path)
    async with await SqliteStore.open(path) as store:
        await store._run(lambda: store._connection.execute("PRAGMA max_page_count = 12").fetchall())
        with pytest.raises(StoreFull):
            await store.commit(Change("large", put={"a": b"x" * 100_000}))
        assert await store.load("") == stored
        await store._run(lambda: store._connection.execute("PRAGMA max_page_count = 1000000").fetchall())
        assert await store.commit(Change("large", put={"a": b"x" * 100_000})) == Committed(6)


async def test_a_store_cannot_be_made_on_a_full_disk(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with files_limited_to(1000), pytest.raises(StoreError, match="cannot write"):
        await SqliteStore.open(path)
    assert await image(path) == Image(0, 1, {})


class _Unanswered(sqlite3.Connection):
    """The real thing, whose disk takes the commit and then fails to say so."""

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
        cursor = super().execute(sql, *args)  # type: ignore[arg-type]
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return cursor


async def test_an_unconfirmed_commit_is_unknown_and_settled_by_opening_again(path: Path) -> None:
    change = Change("r1", put={"a": b"1"}, expect={"a": 0})
    async with await SqliteStore.open(path) as store:
        await store._run(lambda: _lose_answers(store, path))
        outcome = await store.commit(change)
        assert isinstance(outcome, Unknown)
        assert outcome.request_id == "r1"
        for call in (store.commit(Change("r2", put={"b": b""})), store.load(""), store.acquire("job", "h")):
            with pytest.raises(StoreError, match="did not confirm a write"):
                await call
    async with await SqliteStore.open(path) as store:
        assert await store.commit(change) == Committed(1)
        assert await store.commit(Change("r2", put={"b": b""})) == Committed(2)


def _lose_answers(store: SqliteStore, path: Path) -> None:
    store._connection.close()
    store._connection = sqlite3.connect(path, isolation_level=None, factory=_Unanswered)


# kill -9

WRITER = """
    import asyncio, sys
    from pathlib import Path
    from federation.store import Change, SqliteStore

    async def main(path, first):
        async with await SqliteStore.open(path) as store:
            for i in range(first, first + 1_000_000):
                put = {f"key/{i % 50}": b"%d" % i * 100, "last": b"%d" % i}
                outcome = await store.commit(Change(f"r{i}", put=put))
                print(i, outcome.revision, flush=True)

    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.live
async def test_nothing_acknowledged_is_lost_to_kill_9(path: Path) -> None:
    """The writer is killed after a random number of acknowledgements, at whatever it is doing then."""
    chance = random.Random(11)
    last = 0
    for _ in range(10):
        after = chance.randrange(1, 300)
        last = max(last, _write_and_kill(path, last + 1, after, spin=chance.randrange(0, 20_000)))
        async with await SqliteStore.open(path) as store:
            image = await store.load("")
            stored = int(image.rows["last"].value)
            assert stored in (last, last + 1)
            assert image.revision == stored
            for i in range(max(1, stored - 49), stored + 1):
                row = image.rows[f"key/{i % 50}"]
                assert (row.value, row.revision, row.request_id) == (b"%d" % i * 100, i, f"r{i}")
            repeated = Change(
                f"r{stored}", put={f"key/{stored % 50}": b"%d" % stored * 100, "last": b"%d" % stored}
            )
            assert await store.commit(repeated) == Committed(stored)
        last = stored


def _write_and_kill(path: Path, first: int, after: int, spin: int) -> int:
    """The number of the last commit that the writer saw acknowledged."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            for _ in range(after):
                assert writer.stdout.readline()
            for _ in range(spin):
                pass
        finally:
            writer.kill()
        acknowledged = [
            line.split() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")
        ]
    return int(acknowledged[-1][0]) if acknowledged else first + after - 1


@pytest.mark.live
def test_a_store_held_by_another_process_names_it(path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline()
            with pytest.raises(StoreHeld, match=f"held by process {writer.pid}"):
                asyncio.run(image(path))
        finally:
            writer.kill()
            writer.stdout.read()
