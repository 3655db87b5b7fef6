"""One suite for every store: what the contract promises, each implementation keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from federation.store import (
    Change,
    ChangeRefused,
    Committed,
    Conflict,
    Fenced,
    Image,
    MemoryStore,
    Row,
    SqliteStore,
    Store,
    Term,
    contract,
)
from federation.store.contract import LARGEST, MOST_KEYS


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with await SqliteStore.open(tmp_path / "store" / "hub.db") as opened:
            yield opened


async def test_begins_empty(store: Store) -> None:
    assert await store.load("") == Image(0, 1, {})


async def test_a_change_is_loaded_with_its_revision_and_request(store: Store) -> None:
    assert await store.commit(Change("r1", put={"b/2": b"two", "b/1": b"one", "a": b""})) == Committed(1)
    assert await store.commit(
        Change("r2", put={"b/1": b"uno"}, delete=frozenset({"a", "absent"}))
    ) == Committed(2)
    image = await store.load("")
    assert image == Image(2, 1, {"b/1": Row(b"uno", 2, "r2"), "b/2": Row(b"two", 1, "r1")})
    assert list(image.rows) == ["b/1", "b/2"]


async def test_load_cuts_out_a_prefix(store: Store) -> None:
    await store.commit(
        Change("r1", put=dict.fromkeys(("a", "a/", "a/b", "a/~", "a0", "a%/c", "a_/d", "b"), b""))
    )
    assert list((await store.load("a/")).rows) == ["a/", "a/b", "a/~"]
    assert list((await store.load("a_")).rows) == ["a_/d"]
    assert list((await store.load("a%")).rows) == ["a%/c"]
    assert (await store.load("c")).rows == {}


async def test_a_change_that_expects_otherwise_changes_nothing(store: Store) -> None:
    await store.commit(Change("r1", put={"a": b"1", "b": b"1"}))
    await store.commit(Change("r2", put={"b": b"2"}))
    before = await store.load("")
    wrong = Change("r3", put={"a": b"3", "c": b"3"}, expect={"a": 1, "b": 1, "c": 7, "d": 0})
    assert await store.commit(wrong) == Conflict({"b": 2, "c": 0})
    assert await store.load("") == before
    right = Change("r4", put={"a": b"4"}, delete=frozenset({"b"}), expect={"a": 1, "b": 2, "c": 0})
    assert await store.commit(right) == Committed(3)


async def test_of_two_writers_one_wins(store: Store) -> None:
    assert await store.commit(Change("r1", put={"token": b"used by x"}, expect={"token": 0})) == Committed(1)
    assert await store.commit(Change("r2", put={"token": b"used by y"}, expect={"token": 0})) == Conflict(
        {"token": 1}
    )
    assert (await store.load("token")).rows == {"token": Row(b"used by x", 1, "r1")}


async def test_a_repeated_request_gets_the_same_answer_and_is_not_applied_again(store: Store) -> None:
    first = Change("r1", put={"a": b"1"}, expect={"a": 0})
    assert await store.commit(first) == Committed(1)
    assert await store.commit(Change("r2", put={"a": b"2"})) == Committed(2)
    before = await store.load("")
    assert await store.commit(first) == Committed(1)
    assert await store.commit(Change("r1", put={"a": b"1"}, expect={"a": 0})) == Committed(1)
    assert await store.load("") == before


async def test_a_refused_request_may_be_tried_again(store: Store) -> None:
    change = Change("r2", put={"b": b""}, expect={"a": 1})
    assert await store.commit(change) == Conflict({"a": 0})
    await store.commit(Change("r1", put={"a": b""}))
    assert await store.commit(change) == Committed(2)


@pytest.mark.parametrize(
    "other",
    [
        Change("r1", put={"a": b"2"}),
        Change("r1", put={"b": b"1"}),
        Change("r1", put={"a": b"1"}, delete=frozenset({"b"})),
        Change("r1", put={"a": b"1"}, expect={"a": 0}),
        Change("r1", put={"a": b"1"}, term=Term("root", 1)),
    ],
)
async def test_the_id_of_another_request_is_refused(store: Store, other: Change) -> None:
    await store.commit(Change("r1", put={"a": b"1"}))
    before = await store.load("")
    with pytest.raises(ChangeRefused, match="an earlier change had its id"):
        await store.commit(other)
    assert await store.load("") == before


async def test_requests_are_forgotten_one_by_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("memory", "sqlite"):
        monkeypatch.setattr(f"federation.store.{module}.REMEMBERED", 3)
    changes = [Change(f"r{i}", put={"a": b"%d" % i}) for i in range(4)]
    for change in changes:
        await store.commit(change)
    assert await store.commit(changes[1]) == Committed(2)
    assert await store.commit(changes[0]) == Committed(5)


async def test_the_newest_term_of_a_job_counts(store: Store) -> None:
    never = Change("r0", put={"a": b""}, term=Term("rotation", 1))
    assert await store.commit(never) == Fenced("rotation", 0)
    first = await store.acquire("rotation", "hub-1")
    assert first == Term("rotation", 1)
    assert await store.commit(Change("r1", put={"a": b"1"}, term=first)) == Committed(1)
    second = await store.acquire("rotation", "hub-2")
    assert second == Term("rotation", 2)
    assert await store.acquire("ledger", "hub-1") == Term("ledger", 1)
    assert await store.commit(Change("r2", put={"a": b"2"}, term=first)) == Fenced("rotation", 2)
    assert await store.commit(Change("r3", put={"a": b"3"}, term=second)) == Committed(2)
    assert await store.commit(Change("r1", put={"a": b"1"}, term=first)) == Committed(1)
    assert (await store.load("")).rows == {"a": Row(b"3", 2, "r3")}


async def test_the_largest_change_is_taken(store: Store) -> None:
    keys = [f"key/{i:04}" for i in range(MOST_KEYS)]
    values = dict.fromkeys(keys, b"") | {keys[0]: b"x" * (LARGEST - sum(map(len, keys)))}
    assert await store.commit(Change("r" * 128, put=values, expect=dict.fromkeys(keys, 0))) == Committed(1)
    assert {key: row.value for key, row in (await store.load("")).rows.items()} == values


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"put": {f"k{i}": b"" for i in range(MOST_KEYS + 1)}}, "101 keys, 100 are allowed"),
        ({"put": {"a": b""}, "expect": {f"k{i}": 0 for i in range(MOST_KEYS)}}, "101 keys, 100 are allowed"),
        ({"put": {"a": b"x" * LARGEST}}, "1048577 bytes, 1048576 are allowed"),
        ({"put": {"": b""}}, "the key '' is not"),
        ({"put": {"a b": b""}}, "the key 'a b' is not"),
        ({"delete": frozenset({"é"})}, "the key 'é' is not"),
        ({"put": {"a": b""}, "expect": {"a" * 513: 0}}, "is not 1 to 512 printable ASCII"),
        ({"put": {"a": b""}, "delete": frozenset({"a"})}, "both puts and deletes a"),
        ({"expect": {"a": 0}}, "neither puts nor deletes"),
        ({"put": {"a": b""}, "request_id": ""}, "its id is not"),
        ({"put": {"a": b""}, "request_id": "r" * 129}, "its id is not"),
    ],
)
def test_a_malformed_change_cannot_be_made(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ChangeRefused, match=problem):
        Change(**{"request_id": "r1", **fields})  # type: ignore[arg-type]


def test_limits_stay_below_those_of_etcd() -> None:
    assert contract.MOST_KEYS <= 128
    assert contract.LARGEST < 1.5 * 1024 * 1024
