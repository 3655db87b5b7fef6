"""What the hub holds of one owner in order to pass it on.

A relay promises completeness to others, so it never shows half a listing: a full one is gathered aside and takes the
place of what was there when it is complete. Deltas are taken as they come. What the owner may not say is dropped entry
by entry: the last word on that key stays until a listing comes without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from federation.admit import Refused
from federation.model import Position
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item
from federation.sync.protocol import NOTHING, Batch

MOST_KEYS = 200_000
"""Keys of one owner."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of the entries of one owner."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that is not relayed, and which rule it breaks."""

    key: str
    seq: int
    why: Refused


class Relay:
    """The newest complete word of one owner (`feed`, None until there is one), and a listing on its way."""

    def __init__(self, owner: str, tombstone: Callable[[str, int], bytes]) -> None:
        self.owner = owner
        self.feed: Feed | None = None
        self._staged: Feed | None = None
        self._tombstone = tombstone

    @property
    def position(self) -> Position:
        return NOTHING if self.feed is None else self.feed.position

    @property
    def gathering(self) -> int | None:
        """The epoch of the listing that is on its way."""
        return None if self._staged is None else self._staged.epoch

    def interrupted(self) -> None:
        """The owner's stream ended: half a listing is worth nothing."""
        self._staged = None

    def receive(self, batch: Batch, admit: Callable[[Item], Refused | None]) -> tuple[Refusal, ...]:
        """Take in what the owner says; the answer to it is `position`.

        Raises ProtocolViolation when the batch contradicts itself.
        """
        if any(item.seq > batch.to_seq for item in batch.items):
            raise ProtocolViolation(self.owner, f"an entry lies beyond to_seq {batch.to_seq} of its batch")
        if batch.epoch < self.position.epoch:
            return ()
        if batch.full:
            return self._gather(batch, admit)
        if self.feed is None or batch.epoch != self.feed.epoch:
            return ()
        refusals = _take(self.feed, batch, admit)
        self.feed.advance(batch.to_seq)
        self.feed.whole = batch.last
        return refusals

    def reconsider(self, admit: Callable[[Item], Refused | None]) -> tuple[Refusal, ...]:
        """Drop what the owner may no longer say. Its receivers need a new listing if there is any."""
        if self.feed is None:
            return ()
        refusals = tuple(
            Refusal(item.key, item.seq, why)
            for item in self.feed.items.values()
            if not item.gone and (why := admit(item)) is not None
        )
        for refusal in refusals:
            self.feed.drop(refusal.key)
        return refusals

    def _gather(self, batch: Batch, admit: Callable[[Item], Refused | None]) -> tuple[Refusal, ...]:
        if self._staged is None or self._staged.epoch != batch.epoch:
            self._staged = Feed(self.owner, batch.epoch)
        refusals = _take(self._staged, batch, admit)
        if batch.last:
            staged, self._staged = self._staged, None
            if batch.top >= self.position:
                self._replace(staged, batch.to_seq)
        return refusals

    def _replace(self, staged: Feed, to_seq: int) -> None:
        """Absence from a listing deletes. Whoever is in the middle of a listing of the same epoch is told by
        tombstones, whoever is behind `to_seq` by a listing of its own.
        """
        if self.feed is not None and self.feed.epoch == staged.epoch:
            for key in self.feed.items.keys() - staged.items.keys():
                staged.put(Item(key, to_seq, self._tombstone(key, to_seq), gone=True))
        staged.advance(to_seq)
        staged.floor = to_seq
        self.feed = staged


def _take(feed: Feed, batch: Batch, admit: Callable[[Item], Refused | None]) -> tuple[Refusal, ...]:
    refusals = []
    for item in batch.items:
        held = feed.items.get(item.key)
        if item.seq <= (feed.seq if held is None else held.seq):
            continue
        why = None if item.gone else admit(item)
        why = why or _beyond_limits(feed, item)
        if why is None:
            feed.put(item)
        else:
            refusals.append(Refusal(item.key, item.seq, why))
    return tuple(refusals)


def _beyond_limits(feed: Feed, item: Item) -> Refused | None:
    if item.key not in feed.items and len(feed.items) >= MOST_KEYS:
        return Refused("limit", f"{feed.owner} has {MOST_KEYS} keys, more are not relayed")
    if feed.size + len(item.body) > MOST_BYTES:
        return Refused(
            "limit", f"{feed.owner} has {feed.size} bytes of entries, over {MOST_BYTES} is not relayed"
        )
    return None
