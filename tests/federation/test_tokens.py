"""One-time tokens in real stores: used once however many try, and one answer for every refusal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from federation.clock import ManualClock
from federation.errors import FederationError
from federation.store import Change, Committed, Image, MemoryStore, SqliteStore, Store, Term, Unknown
from federation.store.contract import Outcome
from federation.tokens import KEPT, PREFIX, TokenStore, settle
from pki.token import LONGEST_LIFE, SECRET_BYTES, JoinToken, Redeemed, Refused, Resumed, TokenRecord, mint

Unreliable = Callable[[Change, Callable[[Change], Awaitable[Outcome]]], Awaitable[Outcome]]


class Faulty:
    """A store whose commits go through `fault`."""

    def __init__(self, store: Store, fault: Unreliable) -> None:
        self._store = store
        self._fault = fault

    async def acquire(self, job: str, holder: str) -> Term:
        return await self._store.acquire(job, holder)

    async def load(self, prefix: str) -> Image:
        return await self._store.load(prefix)

    async def commit(self, change: Change) -> Outcome:
        return await self._fault(change, self._store.commit)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with await SqliteStore.open(tmp_path / "tokens.db") as opened:
            yield opened


def made(clock: ManualClock, subject: str = "east") -> tuple[JoinToken, TokenRecord]:
    return mint(
        os.urandom(SECRET_BYTES),
        clock.now(),
        kind="join",
        url="https://hub.example:8443",
        subject=subject,
        pin=bytes(32),
        lifetime=LONGEST_LIFE,
        may_export=("default/*",),
        ranges=("10.1.0.0/16",),
    )


def key(number: int) -> str:
    return f"{number:064x}"


async def test_a1_of_a_hundred_at_once_exactly_one_key_wins(store: Store) -> None:
    clock = ManualClock()
    tokens = TokenStore(store, clock.now)
    token, record = made(clock)
    await tokens.add(record)
    outcomes = await asyncio.gather(*(tokens.redeem(token.secret, "east", key(n)) for n in range(100)))
    assert sum(isinstance(outcome, Redeemed) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 99
    winner = next(n for n, outcome in enumerate(outcomes) if isinstance(outcome, Redeemed))
    (stored,) = await tokens.listed()
    assert stored.used_by == key(winner)


async def test_s7_a_used_token_that_a_backup_brings_back_does_not_outlive_its_ten_minutes(
    tmp_path: Path,
) -> None:
    clock, database = ManualClock(), tmp_path / "tokens.db"
    token, record = made(clock)
    async with await SqliteStore.open(database) as opened:
        await TokenStore(opened, clock.now).add(record)
    backup = database.read_bytes()
    async with await SqliteStore.open(database) as opened:
        assert isinstance(await TokenStore(opened, clock.now).redeem(token.secret, "east", key(1)), Redeemed)
    database.write_bytes(backup)
    clock.advance(LONGEST_LIFE.total_seconds())
    async with await SqliteStore.open(database) as opened:
        assert isinstance(await TokenStore(opened, clock.now).redeem(token.secret, "east", key(2)), Refused)


async def test_a2_the_winning_key_may_ask_again_also_from_another_process(store: Store) -> None:
    clock = ManualClock()
    token, record = made(clock)
    await TokenStore(store, clock.now).add(record)
    same = await asyncio.gather(
        *(TokenStore(store, clock.now).redeem(token.secret, "east", key(1)) for _ in range(10))
    )
    assert {type(outcome) for outcome in same} == {Redeemed, Resumed}
    assert sum(isinstance(outcome, Redeemed) for outcome in same) == 1
    assert isinstance(await TokenStore(store, clock.now).redeem(token.secret, "east", key(2)), Refused)


async def test_a2_every_refusal_is_the_same_and_uses_nothing_up(store: Store) -> None:
    clock = ManualClock()
    tokens = TokenStore(store, clock.now)
    used, expired, fresh, revoked = (made(clock) for _ in range(4))
    for _, record in (used, fresh, revoked):
        await tokens.add(record)
    await tokens.redeem(used[0].secret, "east", key(1))
    assert await tokens.revoke(revoked[1].id) == revoked[1]
    before = (await store.load("")).rows
    answers = [
        await tokens.redeem(used[0].secret, "east", key(2)),
        await tokens.redeem(fresh[0].secret, "west", key(1)),
        await tokens.redeem(os.urandom(SECRET_BYTES), "east", key(1)),
        await tokens.redeem(revoked[0].secret, "east", key(1)),
        await tokens.redeem(b"", "east", key(1)),
    ]
    await tokens.add(expired[1])
    clock.advance(LONGEST_LIFE.total_seconds())
    answers.append(await tokens.redeem(expired[0].secret, "east", key(1)))
    answers.append(await tokens.redeem(used[0].secret, "east", key(1)))
    assert {str(answer) for answer in answers} == {str(Refused())}
    assert set(map(type, answers)) == {Refused}
    assert {name: row for name, row in (await store.load("")).rows.items() if name in before} == before


async def test_a1_the_store_holds_nothing_to_redeem_with(store: Store) -> None:
    clock = ManualClock()
    token, record = made(clock)
    await TokenStore(store, clock.now).add(record)
    image = await store.load("")
    content = b"".join(name.encode() + row.value for name, row in image.rows.items())
    for form in (token.secret, token.secret.hex().encode(), token.encode().encode()):
        assert form not in content


async def test_an_unknown_outcome_is_resolved_not_guessed(store: Store) -> None:
    clock = ManualClock()
    token, record = made(clock)
    await TokenStore(store, clock.now).add(record)
    committed = 0

    async def answer_lost(change: Change, commit: Callable[[Change], Awaitable[Outcome]]) -> Outcome:
        nonlocal committed
        outcome = await commit(change)
        committed += 1
        return Unknown(change.request_id, "timed out") if committed < 3 else outcome

    faulty = TokenStore(Faulty(store, answer_lost), clock.now)
    assert isinstance(await faulty.redeem(token.secret, "east", key(1)), Redeemed)
    assert committed == 3
    assert isinstance(await faulty.redeem(token.secret, "east", key(1)), Resumed)


async def test_a_store_that_never_knows_gets_told_so() -> None:
    async def never(change: Change, commit: Callable[[Change], Awaitable[Outcome]]) -> Outcome:
        return Unknown(change.request_id, "timed out")

    with pytest.raises(FederationError, match="cannot say whether it stored the change: timed out"):
        await settle(Faulty(MemoryStore(), never), Change("a", put={"a": b""}))


async def test_a_token_is_made_once_and_found_while_it_lives(store: Store) -> None:
    clock = ManualClock()
    tokens = TokenStore(store, clock.now)
    token, record = made(clock)
    await tokens.add(record)
    with pytest.raises(FederationError, match="exists already"):
        await tokens.add(record)
    assert await tokens.find(token.hash()) == record
    assert await tokens.find(bytes(32)) is None
    assert await tokens.revoke("nothing") is None
    clock.advance(LONGEST_LIFE.total_seconds())
    assert await tokens.find(token.hash()) is None
    assert await tokens.listed() == (record,)


async def test_a_token_that_is_used_while_it_is_revoked_is_revoked_all_the_same(store: Store) -> None:
    clock = ManualClock()
    token, record = made(clock)
    honest = TokenStore(store, clock.now)
    await honest.add(record)
    raced = False

    async def used_first(change: Change, commit: Callable[[Change], Awaitable[Outcome]]) -> Outcome:
        nonlocal raced
        if not raced:
            raced = True
            await honest.redeem(token.secret, "east", key(1))
        return await commit(change)

    revoked = await TokenStore(Faulty(store, used_first), clock.now).revoke(record.id)
    assert revoked is not None
    assert revoked.used_by == key(1)
    assert isinstance(await honest.redeem(token.secret, "east", key(1)), Refused)


async def test_old_tokens_are_forgotten_and_not_before(store: Store) -> None:
    clock = ManualClock()
    tokens = TokenStore(store, clock.now)
    old = [made(clock)[1] for _ in range(60)]
    for record in old:
        await tokens.add(record)
    clock.advance((LONGEST_LIFE + KEPT).total_seconds())
    await tokens.add(made(clock)[1])
    assert len(await tokens.listed()) == 61
    clock.advance(timedelta(seconds=1).total_seconds())
    for left in (12, 3):
        await tokens.add(made(clock)[1])
        assert len(await tokens.listed()) == left


async def test_a_stored_token_that_makes_no_sense_is_told(store: Store) -> None:
    outcome = await store.commit(Change("odd", put={PREFIX + bytes(32).hex(): b"{\xff"}))
    assert isinstance(outcome, Committed)
    with pytest.raises(FederationError, match="cannot be read"):
        await TokenStore(store, ManualClock().now).listed()
