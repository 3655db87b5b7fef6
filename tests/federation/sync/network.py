"""One owner, a hub and importers, joined by hand: a test says which message is sent, lost or late.

Two networks that share owner and importers are a federation with two hubs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from federation.admit import Refused
from federation.model import Position
from federation.sync.feed import Feed, Item
from federation.sync.protocol import (
    BATCH_BYTES,
    NOTHING,
    Batch,
    Change,
    Inbound,
    Outbound,
    Seen,
    next_epoch,
)
from federation.sync.refusals import Refusal
from federation.sync.relay import Relay

OWNER = "east"
FORBIDDEN = "forbidden"
"""The value that the hub refuses."""


def tombstone(key: str, seq: int) -> bytes:
    return b"gone"


@dataclass
class Owner:
    """Its disk holds the epoch, its memory the rest; `truth` is what it wants others to see."""

    disk: int = 0
    feed: Feed = field(default_factory=lambda: Feed(OWNER, 0))
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def truth(self) -> dict[str, str]:
        return {key: item.body.decode() for key, item in self.feed.items.items() if not item.gone}

    def restart(self, highest: Position) -> None:
        self.disk = next_epoch(OWNER, self.disk, highest)
        self.feed = Feed(OWNER, self.disk)
        self.refused = {}

    def hear_refused(self, refusals: tuple[Refusal, ...]) -> None:
        """What was said anew since does not count."""
        for each in refusals:
            held = self.feed.items.get(each.key)
            if held is not None and held.seq == each.seq:
                self.refused[each.key] = each.seq

    def say_refused_again(self) -> None:
        for key, seq in sorted(self.refused.items()):
            held = self.feed.items[key]
            if held.seq == seq:
                self._change(key, held.body, gone=False)
        self.refused = {}

    def set(self, key: str, value: str) -> None:
        self._change(key, value.encode(), gone=False)

    def remove(self, key: str) -> None:
        self._change(key, b"gone", gone=True)

    def _change(self, key: str, body: bytes, gone: bool) -> None:
        self.feed.put(Item(key, self.feed.seq + 1, body, gone))
        self.feed.advance(self.feed.seq + 1)


@dataclass
class Hub:
    """`disk` is the highest epoch of the owner that was ever let in; relays and streams are memory. `forbidden` are the
    keys that the registry does not allow."""

    disk: int = 0
    forbidden: set[str] = field(default_factory=set)
    relay: Relay = field(default_factory=lambda: Relay(OWNER, tombstone))
    streams: dict[str, Outbound] = field(default_factory=dict)

    @property
    def highest(self) -> Position:
        return max(Position(self.disk, 0), self.relay.resume)

    def restart(self) -> None:
        self.relay = Relay(OWNER, tombstone)
        self.streams = {}

    def receive(self, batch: Batch) -> tuple[Refusal, ...]:
        self.disk = max(self.disk, batch.epoch)
        received = self.relay.receive(batch, self.admit)
        if received.afresh:
            self.list_afresh()
        return received.refused

    def reconsider(self) -> tuple[Refusal, ...]:
        dropped = self.relay.reconsider(self.admit)
        if dropped:
            self.list_afresh()
        return dropped

    def rights_changed(self) -> None:
        self.disk = self.highest.epoch + 1

    def list_afresh(self) -> None:
        self.streams = {name: stream.afresh() for name, stream in self.streams.items()}

    def admit(self, item: Item) -> Refused | None:
        if item.key in self.forbidden or item.body == FORBIDDEN.encode():
            return Refused("may-export", "the registry does not allow it")
        return None


@dataclass
class Importer:
    inbound: Inbound = field(default_factory=Inbound)
    values: dict[str, str] = field(default_factory=dict)
    disk: tuple[Position, dict[str, Position], dict[str, str]] = (NOTHING, {}, {})

    def receive(self, batch: Batch, seen: Seen | None = None) -> tuple[Seen | None, tuple[Change, ...]]:
        seen, changes = self.inbound.apply(batch, seen)
        for change in changes:
            if change.item is None:
                self.values.pop(change.key, None)
            else:
                self.values[change.key] = change.item.body.decode()
        return seen, changes

    def save(self) -> None:
        self.disk = (self.inbound.cursor, dict(self.inbound.held), dict(self.values))

    def restart(self) -> None:
        """Back to what was saved: what was applied since is forgotten, and comes again."""
        cursor, held, values = self.disk
        self.inbound, self.values = Inbound(cursor, held), dict(values)


class Network:
    def __init__(self, owner: Owner, importers: dict[str, Importer]) -> None:
        self.owner = owner
        self.importers = importers
        self.hub = Hub()
        self.to_hub: Outbound | None = None
        self.seen: dict[str, Seen | None] = {}
        self.held: dict[str, Batch] = {}

    def start_owner(self) -> None:
        self.cut_owner()
        self.owner.restart(self.hub.highest)

    def connect_owner(self) -> None:
        self.hub.relay.interrupted()
        highest = self.hub.highest
        if highest.epoch > self.owner.feed.epoch:
            self.owner.disk = next_epoch(OWNER, self.owner.disk, highest)
            self.owner.feed.epoch = self.owner.disk
        self.to_hub = Outbound.resume(highest)

    def connect(self, name: str) -> None:
        self.seen[name] = None
        self.hub.streams[name] = Outbound.resume(self.importers[name].inbound.cursor)

    def publish(self, limit: int = BATCH_BYTES) -> Batch | None:
        """The owner's next batch leaves; whether it arrives is for the caller to say."""
        if self.to_hub is None:
            return None
        self.to_hub, batch = self.to_hub.next(self.owner.feed, limit)
        return batch

    def hub_receives(self, batch: Batch) -> tuple[Refusal, ...]:
        refusals = self.hub.receive(batch)
        assert self.to_hub is not None
        self.owner.hear_refused(refusals)
        self.to_hub = self.to_hub.acknowledged("hub", self.hub.relay.position)
        return refusals

    def forbid(self, key: str) -> tuple[Refusal, ...]:
        """The registry forbids a key; the owner hears of it if it is connected."""
        self.hub.forbidden.add(key)
        self.hub.rights_changed()
        dropped = self.hub.reconsider()
        if self.to_hub is not None:
            self.owner.hear_refused(dropped)
        return dropped

    def allow(self, key: str) -> None:
        """The registry allows a key; a connected owner says again what was refused."""
        self.hub.forbidden.discard(key)
        self.hub.rights_changed()
        if self.to_hub is not None:
            self.owner.say_refused_again()

    def relay(self, name: str, limit: int = BATCH_BYTES) -> Batch | None:
        feed = self.hub.relay.feed
        if feed is None or name not in self.hub.streams:
            return None
        self.hub.streams[name], batch = self.hub.streams[name].next(feed, limit)
        return batch

    def importer_receives(self, name: str, batch: Batch) -> tuple[Change, ...]:
        importer = self.importers[name]
        self.seen[name], changes = importer.receive(batch, self.seen.get(name))
        self.hub.streams[name] = self.hub.streams[name].acknowledged(name, importer.inbound.cursor)
        return changes

    def cut_owner(self) -> None:
        self.to_hub = None
        self.hub.relay.interrupted()

    def cut(self, name: str) -> None:
        self.seen[name] = None
        self.hub.streams.pop(name, None)

    def settle(self, limit: int = BATCH_BYTES) -> None:
        """Connect whoever is not, and deliver everything until nobody has anything to say."""
        if self.to_hub is None or self.to_hub.awaiting is not None:
            self.connect_owner()
        for name in self.importers:
            if name not in self.hub.streams or self.hub.streams[name].awaiting is not None:
                self.connect(name)
        busy = True
        while busy:
            busy = False
            while (batch := self.publish(limit)) is not None:
                busy = True
                self.hub_receives(batch)
            for name in self.importers:
                while (batch := self.relay(name, limit)) is not None:
                    busy = True
                    self.importer_receives(name, batch)
