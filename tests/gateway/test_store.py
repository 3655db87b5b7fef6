"""Resources on disk: back as they were, damaged ones aside, a full disk refused."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.errors import StoreError, StoreFull, StoreHeld
from gateway.snapshot import CLUSTER, LISTENER, ROUTES, Resource, Snapshot
from gateway.store import ResourceStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A = Resource.of(CLUSTER, "a", b"body of a")
B = Resource.of(LISTENER, "b", b"body of b")


async def written(path: Path) -> None:
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot()
    await store.write([A, B], [])
    await store.close()


async def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "resources.sqlite"
    await written(path)
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot().replace([A, B], ())
    newer = Resource.of(CLUSTER, "a", b"another")
    await store.write([newer], [B.key])
    await store.close()
    assert path.stat().st_mode & 0o777 == 0o600
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot().replace([newer], ())
    assert store.set_aside is None
    await store.close()


def overwritten(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def altered(path: Path) -> None:
    data = path.read_bytes()
    assert data.count(b"body of a") == 1
    path.write_bytes(data.replace(b"body of a", b"body of x"))


def other_tables(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 77")
    database.close()


@pytest.mark.parametrize("damage", [overwritten, cut, altered, other_tables])
async def test_a_damaged_file_is_kept_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "resources.sqlite"
    await written(path)
    damage(path)
    damaged = path.read_bytes()
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot()
    assert store.set_aside == tmp_path / "resources.sqlite.corrupt-20260102T030405000000"
    assert store.set_aside.read_bytes() == damaged
    await store.write([A], [])
    await store.close()
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot().replace([A], ())
    await store.close()


async def test_that_there_is_nothing_of_a_type_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "resources.sqlite"
    store = ResourceStore(path)
    await store.open(NOW)
    await store.write([A], [], [CLUSTER, ROUTES])
    await store.write([], [A.key], [ROUTES])
    await store.close()
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot().replace([], (), [CLUSTER, ROUTES])
    await store.close()


async def test_what_an_older_version_stored_is_there(tmp_path: Path) -> None:
    path = tmp_path / "resources.sqlite"
    await written(path)
    database = sqlite3.connect(path)
    database.execute("DROP TABLE known")
    database.execute("PRAGMA user_version = 1")
    database.close()
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot().replace([A, B], ())
    await store.write([], [], [ROUTES])
    await store.close()


async def test_a_second_gateway_in_the_same_folder_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "resources.sqlite"
    first, second = ResourceStore(path), ResourceStore(path)
    await first.open(NOW)
    with pytest.raises(StoreHeld, match="held by another process"):
        await second.open(NOW)
    await second.close()
    await first.write([A], [])
    await first.close()


@pytest.mark.parametrize("crashed", [False, True])
async def test_what_was_written_is_read_where_there_is_no_room(tmp_path: Path, crashed: bool) -> None:
    """A gateway that restarts on a full disk serves; what it cannot keep is for later (setrlimit(2))."""
    path = tmp_path / "resources.sqlite"
    await written(path)
    if crashed:
        before = ResourceStore(path)
        await before.open(NOW)
        await before.write([], [B.key])
        log = path.with_name("resources.sqlite-wal")
        left = {found: found.read_bytes() for found in (path, log)}
        await before.close()
        for found, content in left.items():
            found.write_bytes(content)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        store = ResourceStore(path)
        assert await store.open(NOW) == Snapshot().replace([A] if crashed else [A, B], ())
        with pytest.raises(StoreError):
            await store.write([Resource.of(CLUSTER, "c", b"body of c")], [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.write([B], [])
    await store.close()
    store = ResourceStore(path)
    assert await store.open(NOW) == Snapshot().replace([A, B], ())
    await store.close()


async def test_a_full_disk_refuses_and_stores_nothing(tmp_path: Path) -> None:
    store = ResourceStore(tmp_path / "resources.sqlite")
    await store.open(NOW)
    assert store._database is not None
    pages = store._thread.submit(
        lambda: store._database and store._database.execute("PRAGMA max_page_count = 4").fetchall()
    )
    assert pages.result() == [(4,)]
    with pytest.raises(StoreFull):
        await store.write([A, Resource.of(CLUSTER, "large", b"x" * 100_000)], [])
    await store.write([B], [])
    await store.close()
    store = ResourceStore(tmp_path / "resources.sqlite")
    assert await store.open(NOW) == Snapshot().replace([B], ())
    await store.close()
    with pytest.raises(StoreError):
        store._write([], [], [])
