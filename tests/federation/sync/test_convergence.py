"""Whatever is lost, late or restarted: nobody goes back, silence deletes nothing, quiet brings the truth.

One owner, two hubs that know nothing of each other, an importer that listens to both. A walk takes random steps; the
seed is all that a failure needs to be seen again.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, note, settings
from hypothesis import strategies as st

from federation.model import Position
from federation.sync.protocol import NOTHING, Batch
from tests.federation.sync.network import FORBIDDEN, Importer, Network, Owner

KEYS = "abe"
REFUSABLE = "e"
"""The one key that is sometimes refused, for its value or for the owner's rights: what an importer holds of it may be
older than the truth, or gone."""


class Walk:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.owner, self.west = Owner(), Importer()
        self.hubs = [Network(self.owner, {"west": self.west}) for _ in range(2)]
        self.late: dict[int, Batch] = {}
        self.removed: dict[str, list[Position]] = {key: [] for key in KEYS}
        self.cursor = NOTHING
        self.highest: dict[str, Position] = {}
        self.version = 0
        self.actions = (
            *3 * (self.change,),
            *2 * (self.publish,),
            *3 * (self.relay,),
            self.remove,
            self.owner_restarts,
            self.owner_is_cut,
            self.publish_in_vain,
            self.send,
            self.arrive,
            self.cut,
            self.hub_restarts,
            self.list_afresh,
            self.rights_change,
            self.save,
            self.west_restarts,
        )
        self.owner_restarts()

    def step(self) -> None:
        action = self.random.choice(self.actions)
        note(action.__name__)
        action()
        self.check_that_nobody_went_back()

    def hub(self) -> Network:
        return self.random.choice(self.hubs)

    def limit(self) -> int:
        return self.random.choice((1, 3, 1000))

    def change(self) -> None:
        key = self.random.choice(KEYS)
        self.version += 1
        forbidden = key == REFUSABLE and self.random.random() < 0.5
        self.owner.set(key, FORBIDDEN if forbidden else f"v{self.version}")
        if forbidden:
            self.removed[key].append(self.owner.feed.position)

    def remove(self) -> None:
        if truth := sorted(self.owner.truth):
            key = self.random.choice(truth)
            self.owner.remove(key)
            self.removed[key].append(self.owner.feed.position)

    def owner_restarts(self) -> None:
        """It discovers its services anew, perhaps one less, and connects only when it has listed them all."""
        truth = dict(self.owner.truth)
        for hub in self.hubs:
            hub.cut_owner()
        self.owner.restart(max(hub.hub.highest for hub in self.hubs))
        if truth and self.random.random() < 0.5:
            self.removed[truth.popitem()[0]].append(self.owner.feed.position)
        for key, value in truth.items():
            self.owner.set(key, value)

    def owner_is_cut(self) -> None:
        self.hub().cut_owner()

    def publish(self) -> None:
        hub, limit = self.hub(), self.limit()
        if hub.to_hub is None:
            hub.connect_owner()
        for _ in range(self.random.randint(1, 4)):
            if (batch := hub.publish(limit)) is not None:
                hub.hub_receives(batch)

    def publish_in_vain(self) -> None:
        hub = self.hub()
        hub.publish(self.limit())
        hub.cut_owner()

    def relay(self) -> None:
        which, limit = self.random.randrange(2), self.limit()
        if "west" not in self.hubs[which].hub.streams:
            self.hubs[which].connect("west")
        for _ in range(self.random.randint(1, 4)):
            if (batch := self.hubs[which].relay("west", limit)) is not None:
                self._arrives(which, batch)

    def send(self) -> None:
        """A batch is on its way: the other hub may overtake it, and it is lost if the stream is cut."""
        which = self.random.randrange(2)
        if (batch := self.hubs[which].relay("west", self.limit())) is not None:
            self.late[which] = batch

    def arrive(self) -> None:
        if self.late:
            which = self.random.choice(sorted(self.late))
            self._arrives(which, self.late.pop(which))

    def cut(self) -> None:
        self._cut(self.random.randrange(2))

    def hub_restarts(self) -> None:
        which = self.random.randrange(2)
        self._cut(which)
        self.hubs[which].cut_owner()
        self.hubs[which].hub.restart()

    def list_afresh(self) -> None:
        streams = self.hub().hub.streams
        if "west" in streams:
            streams["west"] = streams["west"].afresh()

    def rights_change(self) -> None:
        """Both hubs read the same registry."""
        forbidden = REFUSABLE in self.hubs[0].hub.forbidden
        for hub in self.hubs:
            if forbidden:
                hub.allow(REFUSABLE)
            else:
                hub.forbid(REFUSABLE)
        epoch = max(hub.hub.disk for hub in self.hubs)
        for hub in self.hubs:
            hub.hub.disk = epoch

    def save(self) -> None:
        self.west.save()

    def west_restarts(self) -> None:
        for which in range(2):
            self._cut(which)
        self.west.restart()
        self.cursor, self.highest = NOTHING, {}

    def settle(self) -> None:
        """One hub is enough, whatever the other has said so far."""
        if REFUSABLE in self.hubs[0].hub.forbidden:
            self.rights_change()
        for which in range(2):
            self.hubs[which].cut_owner()
            self._cut(which)
        self.hub().settle(self.limit())
        self.check_that_nobody_went_back()
        truth = {key: value for key, value in self.owner.truth.items() if value != FORBIDDEN}
        assert {
            key: value for key, value in self.west.values.items() if key in truth or key != REFUSABLE
        } == truth
        assert self.west.inbound.cursor == self.owner.feed.position

    def check_that_nobody_went_back(self) -> None:
        held = self.west.inbound.held
        assert self.west.inbound.cursor >= self.cursor
        assert all(held[key] >= at for key, at in self.highest.items() if key in held)
        assert set(held) == set(self.west.values)
        self.cursor, self.highest = self.west.inbound.cursor, {**self.highest, **held}

    def _arrives(self, which: int, batch: Batch) -> None:
        held = dict(self.west.inbound.held)
        for change in self.hubs[which].importer_receives("west", batch):
            if change.item is None and change.key != REFUSABLE:
                removed = self.removed[change.key]
                assert any(held[change.key] < at <= change.at for at in removed), "silence deleted a key"

    def _cut(self, which: int) -> None:
        self.late.pop(which, None)
        self.hubs[which].cut("west")


@settings(max_examples=400)
@given(st.integers(0, 2**64 - 1))
def test_nobody_goes_back_silence_deletes_nothing_and_quiet_brings_the_truth(seed: int) -> None:
    walk = Walk(Random(seed))
    for _ in range(4):
        for _ in range(50):
            walk.step()
        walk.settle()
