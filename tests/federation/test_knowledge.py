"""What an agent knows survives its process: whole, in the right order, and when the disk was full for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation import knowledge
from federation.errors import FederationError, StoreFull
from federation.knowledge import Knowledge, Remembered
from federation.model import Affinity, Kind, ListenPort, Port, Position, Service
from federation.store import Change, Committed, Image, MemoryStore, Outcome, SqliteStore, Term, Unknown
from federation.sync.importer import Heard
from tests.federation.lives import eventually
from tests.federation.world import ECHO, HTTP, NOW, backend, gateway, local
from tests.pki.world import make_world


def full() -> StoreFull:
    return StoreFull(Path("agent.db"), "no space left")


class Disk:
    """A store of which each commit goes through `judge` first: it may raise, or answer in the store's place."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.changes: list[Change] = []
        self.judge: Callable[[Change], Awaitable[Outcome | None]] | None = None

    async def acquire(self, job: str, holder: str) -> Term:
        return await self.store.acquire(job, holder)

    async def load(self, prefix: str) -> Image:
        return await self.store.load(prefix)

    async def commit(self, change: Change) -> Outcome:
        self.changes.append(change)
        answer = await self.judge(change) if self.judge is not None else None
        return await self.store.commit(change) if answer is None else answer


async def after_a_restart(disk: Disk) -> Remembered:
    return await Knowledge(disk.store).load()


def heard(number: int, owner: str = "west", size: int = 10) -> Heard:
    return Heard(owner, f"spec/default/s{number}", Position(1, number), b"x" * size)


async def test_everything_noted_is_there_after_a_restart(tmp_path: Path) -> None:
    everything = local(backend(1, zone="a"), backend(2, ready=False), ports=(HTTP, Port("dns", 53, "UDP")))
    everything = replace(
        everything,
        kind=Kind.HEADLESS,
        scope=frozenset({"west"}),
        affinity=Affinity(30),
        families=("IPv6", "IPv4"),
        capacity=7,
        labels=(("a", "b"),),
        annotations=(("c", "d"),),
    )
    silent = local(service=Service("default", "silent"), known=False, exported=False)
    ports = {80: ListenPort(20000), 90: ListenPort(20001, NOW)}
    west = make_world().west
    async with await SqliteStore.open(tmp_path / "state" / "agent.db") as store:
        noting = Knowledge(store)
        await noting.raise_epoch(7)
        noting.hear(heard(1))
        noting.reach("west", Position(3, 9))
        noting.believe("west", west.bundle)
        noting.listen(ECHO, ports)
        noting.exported_first(ECHO, NOW)
        noting.gateway("gw-0", gateway())
        noting.local(ECHO, everything)
        noting.local(silent.service, silent)
        noting.served()
        noting.told()
        await noting.flush()
    async with await SqliteStore.open(tmp_path / "state" / "agent.db") as store:
        assert await Knowledge(store).load() == Remembered(
            epoch=7,
            heard=(heard(1),),
            cursors={"west": Position(3, 9)},
            ports={ECHO: ports},
            first_exported={ECHO: NOW},
            gateways={"gw-0": gateway()},
            local={ECHO: everything, silent.service: silent},
            served=True,
            told=True,
            believed=(west.bundle,),
        )


async def test_a_bundle_is_kept_once_all_of_it_is_on_disk() -> None:
    disk = Disk()
    west = make_world().west
    noting = Knowledge(disk)
    told = Heard("west", "bundle", Position(1, 1), b"a bundle")
    assert noting.keeps_bundle("west"), "there is none that could be lost"

    async def is_full(_: Change) -> None:
        raise full()

    disk.judge = is_full
    noting.believe("west", west.bundle)
    noting.hear(told)
    assert not await noting.write()
    assert not noting.keeps_bundle("west")
    assert noting.keeps_bundle("central")
    disk.judge = None
    assert await noting.write()
    assert noting.keeps_bundle("west")
    noting.hear(told)
    assert not noting.keeps_bundle("west"), "what was heard is a restart's only source of what is in use"


async def test_what_is_gone_is_forgotten_but_not_who_was_believed() -> None:
    disk = Disk()
    west = make_world().west
    noting = Knowledge(disk)
    noting.hear(heard(1))
    noting.believe("west", west.bundle)
    noting.listen(ECHO, {80: ListenPort(20000)})
    noting.exported_first(ECHO, NOW)
    noting.gateway("gw-0", gateway())
    noting.local(ECHO, local(backend(1)))
    await noting.flush()
    noting.forget("west", heard(1).key)
    noting.listen(ECHO, None)
    noting.exported_first(ECHO, None)
    noting.gateway("gw-0", None)
    noting.local(ECHO, None)
    await noting.flush()
    assert await after_a_restart(disk) == Remembered(believed=(west.bundle,))


async def test_a_row_that_makes_no_sense_is_an_error_that_says_what_to_do() -> None:
    for key in ("local/default/echo", "believed/west"):
        disk = Disk()
        await disk.store.commit(Change("one", put={key: b"{}"}))
        with pytest.raises(FederationError, match="cannot be read") as caught:
            await after_a_restart(disk)
        assert "backup" in caught.value.hint


notes = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), st.integers(1, 6)),
        st.tuples(st.just("forget"), st.integers(1, 6)),
        st.tuples(st.just("flush"), st.just(0)),
    ),
    max_size=30,
)


@given(notes, st.integers(0, 12))
async def test_wherever_it_dies_no_cursor_is_ahead_of_its_facts(
    steps: list[tuple[str, int]], dies_at: int
) -> None:
    """Each step is one change of `west`, complete up to it; the process dies before the commit `dies_at`."""
    disk = Disk()

    async def die(_: Change) -> None:
        if len(disk.changes) > dies_at:
            raise full()

    disk.judge = die
    noting = Knowledge(disk)
    wanted: list[set[str]] = [set()]
    with suppress(StoreFull):
        for what, number in steps:
            if what == "flush":
                await noting.flush()
                continue
            held = set(wanted[-1])
            if what == "hear":
                noting.hear(heard(number))
                held.add(heard(number).key)
            else:
                noting.forget("west", heard(number).key)
                held.discard(heard(number).key)
            wanted.append(held)
            noting.reach("west", Position(1, len(wanted) - 1))
        await noting.flush()
    found = await after_a_restart(disk)
    at = found.cursors.get("west", Position(1, 0)).seq
    later = set().union(
        *(before ^ after for before, after in zip(wanted[at:], wanted[at + 1 :], strict=False))
    )
    assert {one.key for one in found.heard} - later == wanted[at] - later


async def test_a_cursor_is_written_after_the_facts_that_it_promises_however_many() -> None:
    disk = Disk()
    noting = Knowledge(disk)
    for number in range(1, 351):
        noting.hear(heard(number, size=8000))
    noting.reach("west", Position(1, 350))
    await noting.flush()
    *facts, last = disk.changes
    assert len(facts) > 3
    assert all(not key.startswith("cursor/") for change in facts for key in change.put)
    assert list(last.put) == ["cursor/west"]
    assert len((await after_a_restart(disk)).heard) == 350


async def test_what_changes_while_the_disk_is_full_wins_over_what_could_not_be_written() -> None:
    disk = Disk()
    noting = Knowledge(disk)

    async def refuse(_: Change) -> None:
        noting.forget("west", heard(1).key)
        noting.hear(heard(2, size=20))
        raise full()

    noting.hear(heard(1))
    noting.hear(heard(2))
    noting.hear(heard(3))
    disk.judge = refuse
    with pytest.raises(StoreFull):
        await noting.flush()
    disk.judge = None
    await noting.flush()
    assert set((await after_a_restart(disk)).heard) == {heard(2, size=20), heard(3)}


async def test_what_comes_and_what_goes_is_one_change_that_a_crash_cannot_divide() -> None:
    disk = Disk()
    noting = Knowledge(disk)
    noting.listen(ECHO, {80: ListenPort(20001)})
    await noting.flush()
    noting.listen(Service("default", "other"), {80: ListenPort(20001)})
    noting.listen(ECHO, None)
    await noting.flush()
    assert [(sorted(change.put), sorted(change.delete)) for change in disk.changes] == [
        ([f"port/{ECHO}"], []),
        (["port/default/other"], [f"port/{ECHO}"]),
    ]


async def test_of_more_than_one_change_what_goes_is_first() -> None:
    """A number is free on disk before it is another service's."""
    disk = Disk()
    noting = Knowledge(disk)
    old, new = [[Service("default", f"{name}{number}") for number in range(130)] for name in ("old", "new")]
    for number, service in enumerate(old):
        noting.listen(service, {80: ListenPort(20001 + number)})
    await noting.flush()
    disk.changes.clear()
    for number, (gone, come) in enumerate(zip(old, new, strict=True)):
        noting.listen(come, {80: ListenPort(20001 + number)})
        noting.listen(gone, None)
    await noting.flush()
    assert [(len(change.delete), len(change.put)) for change in disk.changes] == [(100, 0), (30, 70), (0, 60)]
    assert set((await after_a_restart(disk)).ports) == set(new)


async def test_two_who_write_at_the_same_time_do_so_in_turn() -> None:
    """Else the older word on a key might arrive last."""
    disk = Disk()
    noting = Knowledge(disk)
    let = asyncio.Event()

    async def wait(_: Change) -> None:
        await let.wait()

    disk.judge = wait
    noting.hear(heard(1, size=10))
    first = asyncio.create_task(noting.write())
    await eventually(lambda: len(disk.changes) == 1)
    noting.hear(heard(1, size=20))
    second = asyncio.create_task(noting.write())
    await asyncio.sleep(0)
    assert len(disk.changes) == 1
    let.set()
    assert await first
    assert await second
    assert (await after_a_restart(disk)).heard == (heard(1, size=20),)


async def test_who_waited_finds_it_on_disk_and_ten_thousand_cost_a_hundredth_of_the_commits() -> None:
    disk = Disk()
    noting = Knowledge(disk)
    for number in range(10_000):
        noting.exported_first(Service("default", f"s{number}"), NOW)
    assert await noting.write()
    assert len(disk.changes) == 100
    assert len((await after_a_restart(disk)).first_exported) == 10_000


async def test_a_full_disk_is_shown_nothing_is_lost_and_room_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(knowledge, "FLUSH_EVERY", 0.001)
    disk = Disk()
    noting = Knowledge(disk)

    async def refuse(_: Change) -> None:
        raise full()

    disk.judge = refuse
    async with running(noting):
        noting.hear(heard(1))
        await eventually(lambda: noting.problem is not None and len(disk.changes) > 2)
        assert "the disk takes no more" in str(noting.problem)
        disk.judge = None
        await eventually(lambda: noting.problem is None)
    assert (await after_a_restart(disk)).heard == (heard(1),)


async def test_a_stop_writes_what_was_noted_last() -> None:
    disk = Disk()
    noting = Knowledge(disk)
    async with running(noting):
        await asyncio.sleep(0)  # the writer has begun
        noting.hear(heard(1))
    assert (await after_a_restart(disk)).heard == (heard(1),)


async def test_a_stop_with_a_full_disk_ends_too() -> None:
    disk = Disk()

    async def refuse(_: Change) -> None:
        raise full()

    disk.judge = refuse
    noting = Knowledge(disk)
    async with running(noting) as task:
        await asyncio.sleep(0)  # the writer has begun
        noting.hear(heard(1))
    assert task.cancelled()
    assert noting.problem is not None


async def test_an_unknown_outcome_is_settled_by_the_same_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "FLUSH_EVERY", 0.001)
    disk = Disk()

    async def mumble(change: Change) -> Outcome | None:
        if len(disk.changes) > 1:
            return None
        assert isinstance(await disk.store.commit(change), Committed)
        return Unknown(change.request_id, "the connection broke")

    disk.judge = mumble
    noting = Knowledge(disk)
    noting.hear(heard(1))
    await noting.flush()
    first, second = disk.changes
    assert first == second
    assert (await after_a_restart(disk)).heard == (heard(1),)


async def test_a_service_too_large_for_the_store_keeps_nothing_else_from_being_written() -> None:
    disk = Disk()
    noting = Knowledge(disk)
    noting.local(ECHO, local(backend(1)))
    await noting.flush()
    many = tuple(replace(backend(1), port=number) for number in range(1, 60_000))
    noting.local(ECHO, local(*many))
    noting.exported_first(ECHO, NOW + timedelta(hours=1))
    await noting.flush()
    found = await after_a_restart(disk)
    assert found.local == {}
    assert found.first_exported == {ECHO: NOW + timedelta(hours=1)}


@asynccontextmanager
async def running(noting: Knowledge) -> AsyncIterator[asyncio.Task[None]]:
    """The writer in the background, stopped at the end as a process stops it."""
    task = asyncio.create_task(noting.run(), name="knowledge")
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
