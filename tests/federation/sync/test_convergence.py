"""Whatever is lost, late, repeated or restarted: nobody goes back, silence deletes nothing, and quiet brings the truth."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from federation.model import Position
from federation.sync.protocol import NOTHING, Batch
from tests.federation.sync.network import FORBIDDEN, Importer, Network, Owner

KEYS = st.sampled_from("abcde")
HUBS = st.integers(0, 1)
NAMES = st.sampled_from(("west", "north"))
LIMITS = st.sampled_from((1, 3, 1000))


class Federation(RuleBasedStateMachine):
    """One owner, two hubs that know nothing of each other, two importers that listen to both."""

    def __init__(self) -> None:
        super().__init__()
        owner, importers = Owner(), {"west": Importer(), "north": Importer()}
        self.hubs = [Network(owner, importers), Network(owner, importers)]
        self.owner, self.importers = owner, importers
        self.version = 0
        self.steady: set[str] = set()
        self.highest: dict[str, tuple[Position, dict[str, Position]]] = {}
        self.late: list[tuple[int, str, Batch]] = []
        self.owner_restarts(drop=False)

    @rule(key=KEYS, forbidden=st.booleans())
    def set(self, key: str, forbidden: bool) -> None:
        self.version += 1
        self.owner.set(key, FORBIDDEN if forbidden and key == "e" else f"v{self.version}")
        self.steady.add(key)

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        if key in self.owner.truth:
            self.owner.remove(key)
            self.steady.discard(key)

    @rule(drop=st.booleans())
    def owner_restarts(self, drop: bool) -> None:
        """It discovers its services anew, and is connected only when it has listed them all."""
        truth = dict(self.owner.truth)
        for hub in self.hubs:
            hub.cut_owner()
        self.owner.restart(max(hub.hub.highest for hub in self.hubs))
        if drop and truth:
            self.steady.discard(truth.popitem()[0])
        for key, value in truth.items():
            self.owner.set(key, value)

    @rule(which=HUBS)
    def owner_connects(self, which: int) -> None:
        self.hubs[which].connect_owner()

    @rule(which=HUBS)
    def owner_is_cut(self, which: int) -> None:
        self.hubs[which].cut_owner()

    @rule(which=HUBS, limit=LIMITS, lost=st.booleans())
    def publish(self, which: int, limit: int, lost: bool) -> None:
        hub = self.hubs[which]
        batch = hub.publish(limit)
        if batch is not None and not lost:
            hub.hub_receives(batch)

    @rule(which=HUBS, name=NAMES)
    def connect(self, which: int, name: str) -> None:
        self.late = [each for each in self.late if each[:2] != (which, name)]
        self.hubs[which].connect(name)

    @rule(which=HUBS, name=NAMES, limit=LIMITS)
    def relay(self, which: int, name: str, limit: int) -> None:
        """The batch is on its way: it may be overtaken by the other hub's, and is lost if the stream is cut."""
        batch = self.hubs[which].relay(name, limit)
        if batch is not None:
            self.late.append((which, name, batch))

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if self.late:
            which, name, batch = self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))
            before = set(self.importers[name].values)
            self.hubs[which].importer_receives(name, batch)
            assert not (before - set(self.importers[name].values)) & self.steady, "silence deleted a key"

    @rule(which=HUBS, name=NAMES)
    def cut(self, which: int, name: str) -> None:
        self.late = [each for each in self.late if each[:2] != (which, name)]
        self.hubs[which].cut(name)

    @rule(which=HUBS)
    def hub_restarts(self, which: int) -> None:
        hub = self.hubs[which]
        hub.cut_owner()
        for name in self.importers:
            self.cut(which, name)
        hub.hub.restart()

    @rule(which=HUBS, name=NAMES)
    def list_afresh(self, which: int, name: str) -> None:
        streams = self.hubs[which].hub.streams
        if name in streams:
            streams[name] = streams[name].afresh()

    @rule(name=NAMES)
    def save(self, name: str) -> None:
        self.importers[name].save()

    @rule(name=NAMES)
    def importer_restarts(self, name: str) -> None:
        for which in range(2):
            self.cut(which, name)
        self.importers[name].restart()
        self.highest.pop(name, None)

    @rule(limit=LIMITS)
    def settle(self, limit: int) -> None:
        self.late.clear()
        for hub in (*self.hubs, *self.hubs):
            hub.to_hub = None
            hub.hub.streams.clear()
            hub.settle(limit)
        allowed = {key: value for key, value in self.owner.truth.items() if value != FORBIDDEN}
        for importer in self.importers.values():
            held = {key: value for key, value in importer.values.items() if key in allowed or key != "e"}
            assert held == allowed
            assert importer.inbound.cursor == self.owner.feed.position

    @invariant()
    def nobody_goes_back(self) -> None:
        for name, importer in self.importers.items():
            cursor, held = self.highest.get(name, (NOTHING, {}))
            now = importer.inbound.held
            assert importer.inbound.cursor >= cursor
            assert all(now[key] >= at for key, at in held.items() if key in now)
            assert set(now) == set(importer.values)
            self.highest[name] = (importer.inbound.cursor, {**held, **now})


TestFederation = Federation.TestCase
TestFederation.settings = settings(max_examples=150, stateful_step_count=60)
