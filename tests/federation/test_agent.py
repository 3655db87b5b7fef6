"""The single writer: what it says, when, at what cost, and what it is after a restart."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from federation.clock import ManualClock, SystemClock
from federation.discovery.files import FileDiscovery
from federation.events import (
    Event,
    ExportChanged,
    GatewayGone,
    GatewayReported,
    HubChanged,
    LocalChanged,
    LocalGone,
    Tick,
)
from federation.knowledge import Knowledge
from federation.model import HUB, Service
from federation.opening import Known
from federation.store import MemoryStore
from federation.sync.importer import Importer
from gateway.snapshot import ENDPOINTS, LISTENER
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE
from tests.federation.discovery.objects import joined as documents
from tests.federation.lives import (
    EVERYBODY,
    PLACE,
    Life,
    eventually,
    refuse_all,
    resources,
    said_by,
    speaking,
)
from tests.federation.world import (
    BASE,
    ECHO,
    NOW,
    backend,
    bundle,
    cluster,
    gateway,
    joined,
    local,
    member,
    spec,
)


@asynccontextmanager
async def discovering(life: Life, folder: Path) -> AsyncIterator[FileDiscovery]:
    """Discovery of `folder` as the agent's process runs it; `listed` when it has looked once."""

    def emit(*events: Event) -> None:
        life.agent.step(events)

    discovery = FileDiscovery(
        folder, emit, SystemClock(), remembered=frozenset(life.agent.view.local), rescan=0.05
    )
    task = asyncio.create_task(discovery.run(), name="discovery")
    try:
        await eventually(discovery.listed.is_set)
        life.agent.services_listed()
        life.agent.step(())
        yield discovery
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_service_whose_file_is_broken_at_a_restart_stays(tmp_path: Path) -> None:
    """A mistake is not a deletion, also when nobody remembers the version before it but the disk."""
    store = MemoryStore()
    file = tmp_path / "echo.yaml"
    file.write_text(documents(SERVICE, SLICE, EXPORT))
    life = await Life.begin(store, EVERYBODY)
    async with discovering(life, tmp_path):
        assert "spec/default/echo" in life.said.facts
        before = life.said.facts
    await life.end()
    file.write_text("kind: Servce\n")
    life = await Life.begin(store, EVERYBODY)
    async with discovering(life, tmp_path) as discovery:
        assert discovery.problems()
        assert life.said.is_complete
        assert life.said.facts == before
        assert life.agent.view.local[ECHO].backends


async def test_a_service_whose_file_was_deleted_while_the_agent_was_down_is_gone(tmp_path: Path) -> None:
    store = MemoryStore()
    file = tmp_path / "echo.yaml"
    file.write_text(documents(SERVICE, SLICE, EXPORT))
    (tmp_path / "other.yaml").write_text(documents(SERVICE).replace("echo", "other"))
    life = await Life.begin(store, EVERYBODY)
    async with discovering(life, tmp_path):
        pass
    await life.end()
    file.unlink()
    life = await Life.begin(store, EVERYBODY)
    async with discovering(life, tmp_path):
        await eventually(lambda: set(life.said.facts) == {"cluster"})
        assert set(life.agent.view.local) == {Service("default", "other")}
    await life.end()
    assert set((await Knowledge(store).load()).local) == {Service("default", "other")}


@pytest.mark.parametrize("there", [True, False])
async def test_a_folder_that_says_nothing_at_a_restart_takes_nothing_away(
    tmp_path: Path, there: bool
) -> None:
    store = MemoryStore()
    folder = tmp_path / "services"
    folder.mkdir()
    (folder / "echo.yaml").write_text(documents(SERVICE, SLICE, EXPORT))
    life = await Life.begin(store, EVERYBODY)
    async with discovering(life, folder):
        before = life.said.facts
    await life.end()
    shutil.rmtree(folder)
    if there:
        folder.mkdir()
    life = await Life.begin(store, EVERYBODY)
    async with discovering(life, folder) as discovery:
        assert discovery.problems()
        assert life.said.is_complete
        assert life.said.facts == before


def announced(life: Life) -> frozenset[str]:
    return frozenset(life.said.facts)


@pytest.mark.parametrize("listed_first", [True, False])
async def test_nothing_is_said_before_there_is_something_true_to_say(listed_first: bool) -> None:
    """An empty word would delete at others what we have, and take from our gateways what they serve."""
    life = await Life.begin(MemoryStore(), ())
    agent = life.agent
    agent.step([LocalChanged(local(backend(1))), GatewayReported(gateway(), {}, {}), *joined("west")])
    assert not agent.speaks
    if listed_first:
        agent.services_listed()
        agent.step(())
    else:
        agent.step(joined("east"))
    assert not agent.speaks
    assert (life.said.facts, life.said.is_complete, life.said.times) == ({}, False, 0)
    assert (agent.serving, agent.telling) == (False, False)
    agent.services_listed()
    agent.step(joined("east"))
    assert announced(life) == {"cluster", "spec/default/echo", "load/default/echo/80/"}
    assert life.said.is_complete
    assert (agent.serving, agent.telling) == (True, True)
    assert set(life.said.snapshots) == {PLACE}


async def test_an_agent_without_memory_serves_nobody_before_it_has_heard_of_everybody() -> None:
    """What it leaves out would be taken for gone; what it owns itself, the others may know at once."""
    life = await Life.begin(MemoryStore(), ())
    life.known = Known(frozenset({HUB, "west"}))
    life.agent.services_listed()
    life.agent.step([HubChanged(True), *EVERYBODY, LocalChanged(local(backend(1)))])
    life.agent.step([GatewayReported(gateway(), {}, {})])
    assert life.said.is_complete
    assert life.said.times == 0
    life.agent.step([ExportChanged(spec("central", service=Service("default", "far")))])
    life.known = Known(frozenset({HUB, "west", "central"}))
    life.agent.step([Tick(NOW, 1.0)])
    assert "default/far:80" in resources(life.said.snapshots)[PLACE][ENDPOINTS]


async def test_what_is_withdrawn_is_said_to_be_gone() -> None:
    life = await speaking(LocalChanged(local(backend(1))))
    life.agent.step([LocalChanged(local(backend(1), exported=False))])
    assert announced(life) == {"cluster"}
    life.agent.step([LocalChanged(local(backend(1)))])
    life.agent.step([LocalGone(ECHO)])
    assert announced(life) == {"cluster"}


async def test_a_change_of_one_service_of_a_thousand_decides_and_compiles_one() -> None:
    services = [Service("default", f"s{number}") for number in range(1000)]
    life = await speaking(*(LocalChanged(local(backend(1), service=each)) for each in services))
    assert life.agent.compiled.recomputed == frozenset(services)
    before = life.agent.decisions
    life.agent.step([LocalChanged(local(backend(1), backend(2), service=services[7]))])
    assert life.agent.compiled.recomputed == {services[7]}
    after = life.agent.decisions
    anew = {each for each in services if before.services[each] is not after.services[each]}
    assert anew == {services[7]}


async def test_time_alone_compiles_and_publishes_nothing() -> None:
    life = await speaking(LocalChanged(local(backend(1))))
    times = life.said.times
    for second in range(1, 6):
        life.agent.step([Tick(NOW + timedelta(seconds=second), 1.0)])
    assert life.said.times == times


async def test_without_a_hub_a_restarted_agent_serves_the_same(tmp_path: Path) -> None:
    """Also the listen ports, though they were given away in another order than that of the rows on disk."""
    heard = said_by("hub", *(member(name) for name in ("east", "west", "central")))
    services = [Service("default", name) for name in "abc"]
    for name in ("west", "central"):
        heard += said_by(name, cluster(name), bundle(name), *(spec(name, service=each) for each in services))
    store = MemoryStore()
    (tmp_path / "echo.yaml").write_text(documents(SERVICE, SLICE, EXPORT))
    life = await Life.begin(store, ())
    for each in heard:
        life.knowledge.hear(each)
    events = Importer("east", BASE, refuse_all).restore(heard, {})
    life.agent.step([*events[:3], *reversed(events[3:]), GatewayReported(gateway(), {}, {})])
    async with discovering(life, tmp_path):
        before = life.said, life.agent.view.ports
    await life.end()
    remembered = await Knowledge(store).load()
    life = await Life.begin(store, Importer("east", BASE, refuse_all).restore(remembered.heard, {}))
    async with discovering(life, tmp_path):
        assert resources(life.said.snapshots) == resources(before[0].snapshots)
        assert life.said.facts == before[0].facts
        assert life.agent.view.ports == before[1]
    assert [dict(before[1][each])[80].number for each in services] == [20002, 20001, 20000]
    assert len(resources(before[0].snapshots)[PLACE]) == 5


BAD = replace(gateway("gw-1"), bind_port=20000)
"""A gateway whose port for peers is the one on which the first imported service listens."""


async def test_a_snapshot_with_problems_is_withheld_and_the_old_one_stays() -> None:
    life = await speaking(LocalChanged(local(backend(1))))
    before = resources(life.said.snapshots)
    life.agent.step([GatewayReported(BAD, {}, {})])
    life.agent.step([LocalChanged(local(backend(1), service=Service("default", "other")))])
    assert resources(life.said.snapshots) == before
    assert any("20000" in problem for problem in life.agent.withheld), life.agent.withheld
    assert "spec/default/other" in life.said.facts
    life.agent.step([GatewayGone("gw-1")])
    assert life.agent.withheld == ()
    assert "default/other:80" in resources(life.said.snapshots)[PLACE][LISTENER]


async def test_what_was_withheld_and_went_away_by_itself_is_no_problem_any_more() -> None:
    life = await speaking(LocalChanged(local(backend(1))))
    life.agent.step([GatewayReported(BAD, {}, {})])
    assert life.agent.withheld
    life.agent.step([GatewayGone("gw-1")])
    assert life.agent.withheld == ()


async def test_a_problem_is_logged_once_and_not_at_each_tick() -> None:
    life = await speaking(LocalChanged(local(backend(1))))
    with structlog.testing.capture_logs() as logged:
        life.agent.step([GatewayReported(BAD, {}, {})])
        for second in range(1, 6):
            life.agent.step([Tick(NOW + timedelta(seconds=second), 1.0)])
    assert [each["log_level"] for each in logged].count("error") == 1


async def test_a_running_agent_takes_events_and_tells_the_time() -> None:
    clock = ManualClock(NOW)
    life = await Life.begin(MemoryStore(), EVERYBODY)
    task = asyncio.create_task(life.agent.run(clock), name="agent")
    life.agent.services_listed()
    life.agent.submit(LocalChanged(local(backend(1))), GatewayReported(gateway(), {}, {}))
    await eventually(lambda: life.said.times == 1 and clock.sleepers > 0)
    clock.advance(3.0)
    await eventually(lambda: life.agent.view.now == NOW + timedelta(seconds=3))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
