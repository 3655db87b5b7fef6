"""What this cluster owns and says: each key once, the newest state, counted in an epoch that only rises.

Nothing is said before `complete`: an agent that has not listed its services yet would otherwise tell everybody that it
has none. The epoch is chosen when a hub has told what it remembers of us, and is on disk before anything is published.
"""

from __future__ import annotations

from collections.abc import Callable

from federation.model import Position
from federation.sync import codec
from federation.sync.codec import Fact
from federation.sync.feed import Feed, Item
from federation.sync.protocol import next_epoch
from federation.sync.refusals import OTHERS, Refusal


class Publisher:
    """`epoch` is what the disk holds. `changed` is called when there may be something to send."""

    def __init__(self, owner: str, epoch: int, changed: Callable[[], None] = lambda: None) -> None:
        self.feed = Feed(owner, 0)
        self.listed = False
        self.refused: dict[str, Refusal] = {}
        self.changed = changed
        self._persisted = epoch

    def set(self, key: str, value: Fact) -> None:
        """Say `value` under `key`; saying the same again is no news."""
        held = self.feed.items.get(key)
        if held is None or held.body != codec.encode(key, held.seq, value):
            seq = self.feed.seq + 1
            self._put(Item(key, seq, codec.encode(key, seq, value)))

    def remove(self, key: str) -> None:
        """Say that `key` is gone, if it was ever said."""
        held = self.feed.items.get(key)
        if held is not None and not held.gone:
            seq = self.feed.seq + 1
            self._put(Item(key, seq, codec.tombstone(key, seq), gone=True))

    def complete(self) -> None:
        """Everything that this cluster owns has been set once: from now on absence means absence."""
        self.listed = True
        self.changed()

    def due_epoch(self, highest: Position) -> int | None:
        """The epoch to write to disk and then to `begin`, None if the one we are in is above all that was ever ours.

        `highest` is what a hub remembers of us. Raises ProtocolViolation if that cannot be.
        """
        ours = self.feed.epoch > 0 and highest <= self.feed.position
        return None if ours else next_epoch(self.feed.owner, max(self._persisted, self.feed.epoch), highest)

    def begin(self, epoch: int) -> None:
        """`epoch` is on disk: publish in it."""
        self._persisted = epoch
        self.feed.epoch = epoch

    def refuse(self, refusal: Refusal) -> None:
        """The hub did not pass this on. An older refusal of what we have said anew since does not count."""
        held = self.feed.items.get(refusal.key)
        if refusal.key == OTHERS or (held is not None and held.seq == refusal.seq):
            self.refused[refusal.key] = refusal

    def say_refused_again(self) -> None:
        """The registry's record of us changed: what was refused may be allowed now. When refusals were only counted,
        everything is said again."""
        again = self.feed.items if self.refused.pop(OTHERS, None) else self.refused
        for key in sorted(again):
            held = self.feed.items[key]
            seq = self.feed.seq + 1
            if not held.gone:
                self._put(Item(key, seq, codec.restamp(held.body, seq)))

    def _put(self, item: Item) -> None:
        self.refused.pop(item.key, None)
        self.feed.put(item)
        self.feed.advance(item.seq)
        self.changed()
