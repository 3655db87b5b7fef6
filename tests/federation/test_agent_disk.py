"""The single writer and its disk: who remembers speaks at once, and nobody is told what a crash could take back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from federation.clock import ManualClock
from federation.errors import StoreFull
from federation.events import (
    Event,
    ExportChanged,
    ExportGone,
    GatewayReported,
    HubChanged,
    LocalChanged,
    Tick,
)
from federation.knowledge import Knowledge
from federation.model import HUB, Position, Service, View
from federation.opening import PATIENCE, Known
from federation.own import owned
from federation.store import Change, MemoryStore, Outcome
from federation.sync import codec
from federation.sync import sync_pb2 as pb
from federation.sync.importer import Heard, Importer
from gateway.snapshot import ENDPOINTS, LISTENER
from tests.federation.lives import EVERYBODY, PLACE, Life, eventually, refuse_all, resources, said_by
from tests.federation.world import (
    BASE,
    ECHO,
    HTTP,
    NOW,
    backend,
    bundle,
    cluster,
    gateway,
    joined,
    local,
    member,
    spec,
    view_after,
)

REPORT = GatewayReported(gateway(), {}, {})
TWO = (HTTP, replace(HTTP, name="two", number=81))
STRANGER = Service("default", "a-stranger")
REGISTRY = (
    *said_by(HUB, *(member(name) for name in ("east", "west", "central"))),
    *said_by("west", cluster("west"), bundle("west")),
    *said_by("central", cluster("central"), bundle("central")),
)


def listeners(life: Life) -> dict[str, str]:
    """The service ports that our gateways were told to listen for; a version stands for the address and all else."""
    told = resources(life.said.snapshots).get(PLACE, {}).get(LISTENER, {})
    return {name: version for name, version in told.items() if name.startswith("default/")}


def reached(life: Life) -> set[str]:
    return set(listeners(life))


class Disk(MemoryStore):
    """A disk on which nothing arrives before `opened` is set; while it is `full` it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.opened.set()
        self.full = False
        self.asked = 0

    async def commit(self, change: Change) -> Outcome:
        self.asked += 1
        await self.opened.wait()
        if self.full:
            raise StoreFull(Path("agent.db"), "no space left")
        return await super().commit(change)


@asynccontextmanager
async def deciding(life: Life) -> AsyncIterator[None]:
    task = asyncio.create_task(life.agent.run(ManualClock(NOW)), name="agent")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def begin(store: MemoryStore) -> Life:
    """A life that knows the registry, and has listed its services."""
    life = await Life.begin(store, EVERYBODY)
    life.agent.services_listed()
    return life


async def all_taken_in(life: Life) -> None:
    """Until what was submitted so far was decided on and handed out, as far as it may be."""
    marker = NOW.replace(microsecond=life.agent.view.now.microsecond + 1)
    life.agent.submit(Tick(marker, 1.0))
    await eventually(lambda: life.agent.view.now == marker)
    life.agent.catch_up()


# ---- a memory opens ---------------------------------------------------------------------------------------------


async def test_who_served_before_serves_with_a_dead_hub_whoever_has_joined_and_not_spoken() -> None:
    store = MemoryStore()
    life = await begin(store)
    life.agent.step([REPORT, LocalChanged(local(backend(1))), HubChanged(True)])
    life.agent.step(joined("newcomer"))
    assert life.agent.serving
    await life.end()
    life = await Life.begin(store, [*EVERYBODY, *joined("newcomer")])
    life.agent.services_listed()
    life.agent.step(())
    assert life.agent.serving
    assert reached(life) == {"default/echo:80"}


async def test_who_gave_up_a_member_does_not_wait_for_it_at_the_next_start() -> None:
    store = MemoryStore()
    for _ in range(2):
        life = await begin(store)
        life.known = Known(frozenset({HUB, "west"}))
        life.agent.step(())
        if not life.agent.serving:
            life.agent.step([HubChanged(True), *(Tick(NOW, 1.0) for _ in range(int(PATIENCE)))])
        assert life.agent.serving
        await life.end()
    assert life.agent.opening.waited == 0


async def test_one_entry_that_cannot_be_read_any_more_silences_nobody() -> None:
    """After an upgrade, say: its owner is asked anew when there is a hub; what can be read is served until then."""
    store = MemoryStore()
    knowledge = Knowledge(store)
    empty = pb.Entry(key="spec/default/other", seq=9).SerializeToString()
    unreadable = Heard("west", "spec/default/other", Position(1, 9), empty)
    for heard in (*REGISTRY, *said_by("west", spec("west")), unreadable):
        knowledge.hear(heard)
    for owner in (HUB, "west", "central"):
        knowledge.reach(owner, Position(1, 9))
    knowledge.served()
    await knowledge.flush()
    remembered = await Knowledge(store).load()
    importer = Importer("east", BASE, refuse_all)
    life = await Life.begin(store, importer.restore(remembered.heard, remembered.cursors))
    life.known = Known(frozenset(owner for owner, at in importer.have().items() if at > Position()))
    assert life.known.owners == {HUB, "central"}
    life.agent.services_listed()
    life.agent.step([REPORT])
    assert life.agent.serving
    assert "default/echo:80" in reached(life)


async def test_who_forgot_its_gateways_waits_for_one_however_often_it_starts() -> None:
    """Its epoch is on disk as soon as a hub has greeted it; that is no memory of gateways yet."""
    store = MemoryStore()
    await Knowledge(store).raise_epoch(7)
    for _ in range(2):
        life = await begin(store)
        life.known = replace(life.known, epoch=(await Knowledge(store).load()).epoch)
        life.agent.step([LocalChanged(local(backend(1)))])
        assert life.agent.serving
        assert life.said.facts == {}
        await life.end()
    life.agent.step([REPORT])
    assert life.said.is_complete
    await life.end()
    life = await begin(store)
    life.known = replace(life.known, epoch=7)
    life.agent.step(())
    assert life.said.is_complete


# ---- what begins waits for the disk -----------------------------------------------------------------------------


async def test_nobody_is_told_of_a_service_before_it_is_on_disk() -> None:
    store = Disk()
    store.opened.clear()
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, LocalChanged(local(backend(1))))
        await eventually(lambda: store.asked > 0)
        life.agent.catch_up()
        assert (life.said.facts, life.said.times) == ({}, 0)
        store.opened.set()
        await eventually(lambda: "spec/default/echo" in life.said.facts and life.said.times == 1)
    assert set((await Knowledge(store).load()).local) == {ECHO}


async def test_with_a_full_disk_and_no_memory_nothing_is_said_at_all() -> None:
    store = Disk()
    store.full = True
    life = await Life.begin(store, ())
    life.agent.services_listed()
    async with deciding(life):
        life.agent.submit(*EVERYBODY, REPORT, LocalChanged(local(backend(1))))
        await eventually(lambda: life.knowledge.problem is not None)
        await all_taken_in(life)
        assert (life.said.facts, life.said.times) == ({}, 0)


async def test_with_a_full_disk_and_a_memory_all_is_said_but_what_begins() -> None:
    """Also what was withdrawn while the agent was down."""
    store, other, new = Disk(), Service("default", "other"), Service("default", "new")
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, LocalChanged(local(backend(1))), LocalChanged(local(service=other)))
        await eventually(lambda: life.agent.serving and life.agent.telling)
    await life.end()
    store.full = True
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(LocalChanged(local(backend(1), service=new)))
        life.agent.submit(LocalChanged(local(backend(1), exported=False)))
        await eventually(lambda: life.agent.serving and life.agent.telling)
        assert set(life.said.facts) == {"cluster", "spec/default/other", "load/default/other/80/"}
        assert reached(life) == {"default/other:80"}
        store.full = False
        life.agent.submit(Tick(NOW, 1.0))
        await eventually(lambda: "spec/default/new" in life.said.facts)
        assert "default/new:80" in reached(life)


async def test_a_full_disk_keeps_back_what_begins_and_nothing_that_ends() -> None:
    """A service that is withdrawn must not stay reachable because a disk is full."""
    store, new = Disk(), Service("default", "new")
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, LocalChanged(local(backend(1))))
        await eventually(lambda: "spec/default/echo" in life.said.facts)
        store.full = True
        life.agent.submit(LocalChanged(local(backend(1), service=new)))
        life.agent.submit(LocalChanged(local(backend(1), exported=False)))
        await eventually(lambda: set(life.said.facts) == {"cluster"})
        assert life.knowledge.problem
        assert reached(life) == set()
        store.full = False
        life.agent.submit(Tick(NOW, 1.0))
        await eventually(lambda: "spec/default/new" in life.said.facts)
        assert "default/new:80" in reached(life)


async def test_on_a_full_disk_an_import_goes_though_a_local_service_of_its_name_has_come() -> None:
    store = Disk()
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, ExportChanged(spec("west")), ExportChanged(spec("central")))
        await eventually(lambda: "default/echo:80" in reached(life))
        before = resources(life.said.snapshots)[PLACE][ENDPOINTS]["default/echo:80"]
        store.full = True
        life.agent.submit(LocalChanged(local(backend(1), exported=False)))
        life.agent.submit(ExportGone("west", ECHO))
        await eventually(
            lambda: resources(life.said.snapshots)[PLACE][ENDPOINTS]["default/echo:80"] != before
        )
        life.agent.submit(LocalChanged(local(backend(1))))
        await all_taken_in(life)
        assert "default/echo:80" in reached(life), "what is there stays when our own comes, untold, beside it"
        assert set(life.said.facts) == {"cluster"}
        life.agent.submit(LocalChanged(local(backend(1), exported=False)), ExportGone("central", ECHO))
        await eventually(lambda: reached(life) == set())
        assert life.knowledge.problem


async def test_on_a_full_disk_our_own_export_goes_though_others_began_another_port_of_it() -> None:
    store = Disk()
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, LocalChanged(local(backend(1))), ExportChanged(spec("west")))
        await eventually(lambda: "spec/default/echo" in life.said.facts and life.agent.serving)
        store.full = True
        life.agent.submit(ExportChanged(spec("west", ports=TWO, seq=2)))
        life.agent.submit(LocalChanged(local(backend(1), exported=False)))
        await eventually(lambda: set(life.said.facts) == {"cluster"})
        assert reached(life) == {"default/echo:80"}


async def test_the_number_of_a_second_port_is_told_when_it_is_on_disk() -> None:
    """It would be another service's after a crash."""
    store = Disk()
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, ExportChanged(spec("west")))
        await eventually(lambda: "default/echo:80" in reached(life))
        store.full = True
        life.agent.submit(ExportChanged(spec("west", ports=TWO, seq=2)))
        await eventually(lambda: life.knowledge.problem is not None)
        await all_taken_in(life)
        assert reached(life) == {"default/echo:80"}
        number = life.agent.view.ports[ECHO][81].number
    store.full = False
    life = await begin(store)
    async with deciding(life):
        life.agent.submit(REPORT, ExportChanged(spec("west")), ExportChanged(spec("west", service=STRANGER)))
        await eventually(lambda: life.agent.serving)
        assert life.agent.view.ports[STRANGER][80].number == number
        life.agent.submit(ExportChanged(spec("west", ports=TWO, seq=2)))
        await eventually(lambda: "default/echo:81" in reached(life))


# ---- a crash at any moment --------------------------------------------------------------------------------------


class Flaky(MemoryStore):
    """A disk that is full at some of its commits."""

    def __init__(self, full: list[bool]) -> None:
        super().__init__()
        self._full = full

    async def commit(self, change: Change) -> Outcome:
        await asyncio.sleep(0)
        if self._full and self._full.pop(0):
            raise StoreFull(Path("agent.db"), "no space left")
        return await super().commit(change)


async def remembering(store: MemoryStore) -> Life:
    """A life that knows the registry, and of west's exports what is on disk."""
    heard = (await Knowledge(store).load()).heard
    life = await Life.begin(store, Importer("east", BASE, refuse_all).restore((*REGISTRY, *heard), {}))
    life.agent.services_listed()
    return life


def found(service: Service, ports: int) -> Event:
    """Discovery finds `service` with this many ports; with none it is not exported."""
    return LocalChanged(local(backend(1), service=service, ports=TWO[: ports or 1], exported=ports > 0))


def relayed(life: Life, service: Service, ports: int, seq: int) -> Event:
    """West says that it exports `service` with this many ports, or no more; noted as the stream to the hub does it."""
    said = spec("west", service=service, ports=TWO[:ports], seq=seq)
    key = codec.key_of(said)
    if ports:
        life.knowledge.hear(Heard("west", key, Position(1, seq), codec.encode(key, seq, said)))
        return ExportChanged(said)
    life.knowledge.forget("west", key)
    return ExportGone("west", service)


def offered(view: View) -> set[str]:
    """The service ports that somebody exports."""
    specs = [one for exports in view.exports.values() for one in exports.values()]
    return {f"{one.service}:{port.number}" for one in specs for port in one.ports}


def nothing_too_much(life: Life, truth: View) -> bool:
    """Whether nobody is told of anything that was withdrawn."""
    return life.said.facts.keys() <= owned(truth).keys() and reached(life) <= offered(truth)


@example(changes=[(False, 2, 1, 2), (True, 2, 1, 0), (False, 2, 0, 2)], full=[])
@example(changes=[(False, 2, 1, 3), (False, 2, 0, 1), (True, 2, 1, 0)], full=[])
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 3), st.integers(0, 2), st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.booleans(), max_size=12),
)
async def test_whoever_was_told_of_a_service_is_not_told_that_it_is_gone_by_a_crash(
    changes: list[tuple[bool, int, int, int]], full: list[bool]
) -> None:
    """After a crash at any moment, and with nobody who repeats anything, what was told is known still, and reached by
    the same numbers, unless its owner has withdrawn it; and that ends, whatever the disk takes. Each change is of an
    export of ours or of west's: which service, with how many ports, and how long it has until the crash."""
    store = Flaky(full)
    life = await remembering(store)
    truth = life.agent.view
    async with deciding(life):
        life.agent.submit(REPORT)
        for seq, (ours, number, ports, yields) in enumerate(changes, 10):
            service = Service("default", f"s{number}")
            event = found(service, ports) if ours else relayed(life, service, ports, seq)
            life.agent.submit(event)
            truth = view_after(event, start=truth)
            for _ in range(yields):
                await asyncio.sleep(0)
            told = owned(truth).keys() & life.said.facts
            served = {name: listeners(life)[name] for name in offered(truth) & reached(life)}
            after = await remembering(store)
            after.agent.step([REPORT, ExportChanged(spec("west", service=STRANGER))])
            assert told <= set(after.said.facts)
            assert served.items() <= listeners(after).items()
            await eventually(partial(nothing_too_much, life, truth))
