"""What the hub holds of one owner in order to pass it on.

A relay promises completeness to others, so it never shows half a listing: a full one is gathered aside and takes the
place of what was there when it is complete. Deltas are taken as they come. What the owner may not say is dropped entry
by entry: the last word on that key stays until a listing comes without the key.

While anything of the owner is refused, the relay does not hold all that was said up to its position. So it asks for a
full listing at the next stream: nobody else knows what may become allowed, and an owner that was away when its rights
changed has not heard of the refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from federation.admit import Refused
from federation.model import Position
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item
from federation.sync.protocol import NOTHING, Batch
from federation.sync.refusals import Refusal, Refusals

MOST_KEYS = 200_000
"""Keys of one owner."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of the entries of one owner."""

Admit = Callable[[Item], Refused | None]


@dataclass(frozen=True, slots=True)
class Received:
    """What follows from a batch: what is refused of it, and whether receivers who were up to date lack something at a
    position that they hold already, so that only a listing tells them (`afresh`)."""

    refused: tuple[Refusal, ...] = ()
    afresh: bool = False


class _Word:
    """One listing of the owner with the deltas since, and what is refused of it."""

    def __init__(self, owner: str, epoch: int) -> None:
        self.feed = Feed(owner, epoch)
        self.refused = Refusals()

    def take(self, batch: Batch, admit: Admit) -> tuple[Refusal, ...]:
        refusals = []
        for item in batch.items:
            held = self.feed.items.get(item.key)
            if item.seq <= (self.feed.seq if held is None else held.seq):
                continue
            self.refused.withdraw(item.key)
            why = None if item.gone else admit(item)
            why = why or _beyond_limits(self.feed, item)
            if why is None:
                self.feed.put(item)
            else:
                refusals.append(Refusal.of(item.key, item.seq, why))
        self.refused.add(refusals)
        return tuple(refusals)

    def reconsider(self, admit: Admit) -> tuple[Refusal, ...]:
        refusals = tuple(
            Refusal.of(item.key, item.seq, why)
            for item in self.feed.items.values()
            if not item.gone and (why := admit(item)) is not None
        )
        for refusal in refusals:
            self.feed.drop(refusal.key)
        self.refused.add(refusals)
        return refusals


class Relay:
    """The newest complete word of one owner (`feed`, None until there is one), and a listing on its way."""

    def __init__(self, owner: str, tombstone: Callable[[str, int], bytes]) -> None:
        self.owner = owner
        self._word: _Word | None = None
        self._staged: _Word | None = None
        self._tombstone = tombstone

    @property
    def feed(self) -> Feed | None:
        return None if self._word is None else self._word.feed

    @property
    def position(self) -> Position:
        return NOTHING if self.feed is None else self.feed.position

    @property
    def resume(self) -> Position:
        """From where the owner is to go on at its next stream; seq 0 asks for a full listing."""
        return Position(self.position.epoch, 0) if self.refused else self.position

    @property
    def refused(self) -> Refusals:
        """What is refused of the newest complete word."""
        return Refusals() if self._word is None else self._word.refused

    def interrupted(self) -> None:
        """The owner's stream ended: half a listing is worth nothing."""
        self._staged = None

    def receive(self, batch: Batch, admit: Admit) -> Received:
        """Take in what the owner says; the answer to it is `position`.

        Raises ProtocolViolation when the batch contradicts itself.
        """
        if any(item.seq > batch.to_seq for item in batch.items):
            raise ProtocolViolation(self.owner, f"an entry lies beyond to_seq {batch.to_seq} of its batch")
        if batch.epoch < self.position.epoch:
            return Received()
        if batch.full:
            return self._gather(batch, admit)
        if self._word is None or batch.epoch != self._word.feed.epoch:
            return Received()
        refusals = self._word.take(batch, admit)
        self._word.feed.advance(batch.to_seq)
        self._word.feed.whole = batch.last
        return Received(refusals)

    def reconsider(self, admit: Admit) -> tuple[Refusal, ...]:
        """Drop what the owner may no longer say. Its receivers need a new listing if there is any."""
        words = (word for word in (self._word, self._staged) if word is not None)
        return tuple(refusal for word in words for refusal in word.reconsider(admit))

    def _gather(self, batch: Batch, admit: Admit) -> Received:
        if self._staged is None or self._staged.feed.epoch != batch.epoch:
            self._staged = _Word(self.owner, batch.epoch)
        staged = self._staged
        refusals = staged.take(batch, admit)
        if self.position.epoch == batch.epoch:
            self._keep_last_words(staged.feed, refusals)
        if not batch.last:
            return Received(refusals)
        self._staged = None
        return Received(refusals, batch.top >= self.position and self._replace(staged, batch.to_seq))

    def _keep_last_words(self, staged: Feed, refusals: tuple[Refusal, ...]) -> None:
        """A key that is listed with a word that is refused is not absent: what was allowed of it before stays."""
        assert self._word is not None
        for refusal in refusals:
            held = self._word.feed.items.get(refusal.key)
            if held is not None and not held.gone and _beyond_limits(staged, held) is None:
                staged.put(held)

    def _replace(self, staged: _Word, to_seq: int) -> bool:
        """Absence from a listing deletes. Whoever is in the middle of a listing of the same epoch is told by
        tombstones, whoever is behind `to_seq` by a listing of its own. True if whoever is not behind lacks something.
        """
        lacking = False
        if self.feed is not None and self.feed.epoch == staged.feed.epoch:
            before = self.feed
            lacking = any(
                item.seq <= before.seq and item.key not in before.items
                for item in staged.feed.items.values()
                if not item.gone
            )
            for key in before.items.keys() - staged.feed.items.keys():
                staged.feed.put(Item(key, to_seq, self._tombstone(key, to_seq), gone=True))
        staged.feed.advance(to_seq)
        staged.feed.floor = to_seq
        self._word = staged
        return lacking


def _beyond_limits(feed: Feed, item: Item) -> Refused | None:
    if item.key not in feed.items and len(feed.items) >= MOST_KEYS:
        return Refused("limit", f"{feed.owner} has {MOST_KEYS} keys, more are not relayed")
    if feed.size + len(item.body) > MOST_BYTES:
        return Refused(
            "limit", f"{feed.owner} has {feed.size} bytes of entries, over {MOST_BYTES} is not relayed"
        )
    return None
