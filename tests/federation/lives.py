"""The single writer of an agent with a store, and outlets that keep what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from federation.agent import Agent, Outlets, remembered_view
from federation.events import Event, GatewayReported
from federation.knowledge import Knowledge
from federation.model import HUB, Position, View
from federation.opening import Known, Opening
from federation.own import Fact
from federation.store import MemoryStore
from federation.sync import codec
from federation.sync.importer import Heard
from federation.telemetry import AgentMetrics
from gateway.compile import Place
from gateway.snapshot import Snapshot, versions
from gateway.tuning import Tuning
from pki.bundle import Bundle, Rejected
from tests.federation.world import ME, NOW, SUBNETS, gateway, joined

PLACE: Place = ("eastwest", "127.0.0.1", 15443)


@dataclass
class Said:
    """Everything that an agent handed out."""

    facts: dict[str, Fact] = field(default_factory=dict)
    is_complete: bool = False
    snapshots: dict[Place, Snapshot] = field(default_factory=dict)
    times: int = 0
    hand_on: Callable[[Mapping[Place, Snapshot]], None] | None = None

    def set(self, key: str, value: Fact) -> None:
        self.facts[key] = value

    def remove(self, key: str) -> None:
        del self.facts[key]

    def complete(self) -> None:
        self.is_complete = True

    def publish(self, snapshots: Mapping[Place, Snapshot]) -> None:
        self.snapshots = dict(snapshots)
        self.times += 1
        if self.hand_on is not None:
            self.hand_on(snapshots)


class Life:
    """One life of the agent of `east`, from what is remembered to its end."""

    def __init__(self, knowledge: Knowledge, view: View, opening: Opening) -> None:
        self.knowledge = knowledge
        self.said = Said()
        self.known = Known(frozenset({HUB, *SUBNETS}))
        outlets = Outlets(self.said, self.said.publish)
        self.agent = Agent(view, opening, lambda: self.known, Tuning(), knowledge, outlets, AgentMetrics())

    @classmethod
    async def begin(cls, store: MemoryStore, heard: Iterable[Event]) -> Life:
        """`heard` is what the importer had on disk of others and of the registry."""
        knowledge = Knowledge(store)
        remembered = await knowledge.load()
        return cls(
            knowledge,
            remembered_view(ME, remembered, heard, NOW),
            Opening(remembered.served, remembered.told),
        )

    async def end(self) -> None:
        await self.knowledge.flush()


EVERYBODY = joined("east", "west", "central")


async def speaking(*events: Event, store: MemoryStore | None = None) -> Life:
    life = await Life.begin(store or MemoryStore(), ())
    life.agent.services_listed()
    life.agent.step([*EVERYBODY, GatewayReported(gateway(), {}, {}), *events])
    return life


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fails when it does not within a generous time."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def resources(snapshots: Mapping[Place, Snapshot]) -> dict[Place, dict[str, dict[str, str]]]:
    return {
        place: {kind: versions(held) for kind, held in snapshot.types.items() if held}
        for place, snapshot in snapshots.items()
    }


def said_by(owner: str, *facts: codec.Fact) -> list[Heard]:
    """What `owner` says, as it lies on an agent's disk."""
    return [
        Heard(owner, codec.key_of(fact), Position(1, seq), codec.encode(codec.key_of(fact), seq, fact))
        for seq, fact in enumerate(facts, 1)
    ]


def refuse_all(_: Bundle | None, __: Bundle) -> Rejected:
    raise AssertionError("what lies on the disk was accepted when it came")
