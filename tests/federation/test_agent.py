"""The single writer: what it says, when, at what cost, and what it is after a restart."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from federation.agent import Agent, Outlets, remembered_view
from federation.clock import SystemClock
from federation.discovery.files import FileDiscovery
from federation.events import Event
from federation.knowledge import Knowledge
from federation.model import Service, View
from federation.own import Fact
from federation.store import MemoryStore
from federation.telemetry import AgentMetrics
from gateway.compile import Place
from gateway.snapshot import Snapshot
from gateway.tuning import Tuning
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE
from tests.federation.discovery.objects import joined as documents
from tests.federation.world import ECHO, ME, NOW, joined

PLACE: Place = ("eastwest", "127.0.0.1", 15443)


@dataclass
class Said:
    """Everything that an agent handed out."""

    facts: dict[str, Fact] = field(default_factory=dict)
    is_complete: bool = False
    snapshots: dict[Place, Snapshot] = field(default_factory=dict)
    times: int = 0

    def set(self, key: str, value: Fact) -> None:
        self.facts[key] = value

    def remove(self, key: str) -> None:
        del self.facts[key]

    def complete(self) -> None:
        self.is_complete = True

    def publish(self, snapshots: Mapping[Place, Snapshot]) -> None:
        self.snapshots = dict(snapshots)
        self.times += 1


class Life:
    """One life of the agent of `east`, from what is remembered to its end."""

    def __init__(self, knowledge: Knowledge, view: View) -> None:
        self.knowledge = knowledge
        self.said = Said()
        outlets = Outlets(self.said, self.said.publish)
        self.agent = Agent(view, Tuning(), knowledge, outlets, AgentMetrics())

    @classmethod
    async def begin(cls, store: MemoryStore, heard: Iterable[Event]) -> Life:
        """`heard` is what the importer had on disk of others and of the registry."""
        knowledge = Knowledge(store)
        return cls(knowledge, remembered_view(ME, await knowledge.load(), heard, NOW))

    async def end(self) -> None:
        await self.knowledge.flush()


EVERYBODY = joined("east", "west", "central")


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


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
