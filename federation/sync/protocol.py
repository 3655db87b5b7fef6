"""Who must be sent what, and what a receiver may believe: the sync protocol as pure state machines.

- An entry is newer if its (epoch, seq) is higher; order, duplicates and the number of hubs do not matter.
- A delta promises that nothing up to `to_seq` is missing. Gaps are normal: contiguity is never tested.
- A full listing may come in any order. Only its last part moves the receiver's cursor and forgets what was not
  listed; an interrupted one deletes nothing. A new epoch begins with one, and keys of the old epoch serve until it
  completes. A sender that stands in the middle of a cut delta itself cannot complete one.
- At most one batch per owner and stream is unacknowledged, and it is at most `BATCH_BYTES` long unless a single
  entry is longer. A slow receiver finds the newest state when it is ready, not a queue.

Nothing here sends, waits or knows the time, and no value is looked into.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from federation.model import Position
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item

VERSION = 1
BATCH_BYTES = 256 * 1024
"""Bytes of entries after which a batch is cut."""
HIGHEST = 2**62
"""No epoch, seq or count may reach this."""
MOST_EPOCHS_AHEAD = 2**20
"""An epoch this far ahead of what is on disk is no memory of a lost disk: it is nonsense, or malice."""

REMOVED = "the cluster was removed from the federation"
"""The last word of a hub to a cluster that is no member any more: from then on it is refused before it can ask."""

NOTHING = Position()


@dataclass(frozen=True, slots=True)
class Batch:
    """A delta, or a part of a full listing; `last` if the sender has nothing more to add to it."""

    owner: str
    epoch: int
    to_seq: int
    full: bool
    last: bool
    items: tuple[Item, ...]

    @property
    def top(self) -> Position:
        return Position(self.epoch, self.to_seq)


def next_epoch(owner: str, persisted: int, highest: Position) -> int:
    """The epoch to write to disk before anything is published, so that no older self of `owner` is ever newer.

    `highest` is the furthest that anybody remembers of `owner`. Raises ProtocolViolation if it cannot be true.
    """
    if highest.epoch > persisted + MOST_EPOCHS_AHEAD:
        raise ProtocolViolation(owner, f"epoch {highest.epoch} is claimed, and our disk says {persisted}")
    epoch = max(persisted, highest.epoch) + 1
    if epoch >= HIGHEST:
        raise ProtocolViolation(owner, f"epoch {epoch} is beyond all that may be reached")
    return epoch


# ---- sending ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listing:
    """A full listing on its way: tombstones up to `floor` are left out, absence says the same."""

    epoch: int
    floor: int


@dataclass(frozen=True, slots=True)
class Outbound:
    """What one receiver has of one owner. `cursor` is the position that it acknowledged.

    `mark` is the last (seq, key) sent. `awaiting` is what the acknowledgement of the batch in flight must reach: None
    if nothing is in flight, NOTHING for a part of a listing that goes on. `again`: list once more when this is
    through.
    """

    cursor: Position = NOTHING
    mark: tuple[int, str] = (0, "")
    listing: Listing | None = None
    awaiting: Position | None = None
    again: bool = False

    @classmethod
    def resume(cls, have: Position) -> Outbound:
        """Go on behind what the receiver says it has; seq 0 stands for a remembered epoch and no keys."""
        return cls(cursor=have, mark=_behind(have.seq)) if have.seq else cls()

    def afresh(self) -> Outbound:
        """List everything once more, because what this receiver may see is not what it was."""
        through = self.listing is None and self.awaiting is None
        return Outbound() if through else replace(self, again=True)

    def next(self, feed: Feed, limit: int = BATCH_BYTES) -> tuple[Outbound, Batch | None]:
        """The next batch of at most `limit` bytes of entries, if one is due and none is in flight."""
        if self.awaiting is not None:
            return self, None
        if self.listing is not None and self.listing.epoch == feed.epoch:
            return self._list(self.listing, feed, limit)
        if self.cursor >= feed.position:
            return self, None
        if self.cursor.epoch != feed.epoch or self.cursor.seq < feed.floor:
            return replace(self, mark=(0, ""))._list(Listing(feed.epoch, feed.seq), feed, limit)
        return self._delta(feed, limit)

    def acknowledged(self, owner: str, at: Position) -> Outbound:
        """The receiver answered the batch in flight: it holds `owner` up to `at`.

        Raises ProtocolViolation for an answer to nothing, and for a complete listing that the receiver did not take.
        """
        if self.awaiting is None:
            raise ProtocolViolation(owner, f"position {at} was acknowledged, and nothing was sent")
        if self.listing is not None and at.epoch > self.listing.epoch:
            return Outbound.resume(at)
        if self.awaiting == NOTHING:
            return replace(self, cursor=at, awaiting=None)
        if at < self.awaiting:
            if self.listing is not None:
                raise ProtocolViolation(
                    owner, f"a full listing up to {self.awaiting} left the receiver at {at}"
                )
            return Outbound()
        if self.again:
            return Outbound()
        if at > self.awaiting:
            return Outbound.resume(at)
        return replace(self, cursor=at, listing=None, awaiting=None)

    def _list(self, listing: Listing, feed: Feed, limit: int) -> tuple[Outbound, Batch | None]:
        wanted = (item for item in feed.after(self.mark) if not item.gone or item.seq > listing.floor)
        items, following = _cut(wanted, limit)
        last = following is None and feed.whole
        if not items and not last:
            return replace(self, listing=listing), None
        batch = Batch(feed.owner, feed.epoch, feed.seq, full=True, last=last, items=items)
        mark = _behind(feed.seq) if last else _mark(self.mark, items)
        return replace(self, mark=mark, listing=listing, awaiting=batch.top if last else NOTHING), batch

    def _delta(self, feed: Feed, limit: int) -> tuple[Outbound, Batch]:
        items, following = _cut(feed.after(self.mark), limit)
        to_seq = feed.seq if following is None else max(self.cursor.seq, following.seq - 1)
        last = following is None and feed.whole
        batch = Batch(feed.owner, feed.epoch, to_seq, full=False, last=last, items=items)
        mark = _behind(feed.seq) if following is None else _mark(self.mark, items)
        return replace(self, mark=mark, awaiting=batch.top), batch


def _behind(seq: int) -> tuple[int, str]:
    """A mark behind every key of `seq`: no key sorts behind the highest code point."""
    return (seq, "\U0010ffff")


def _mark(before: tuple[int, str], items: tuple[Item, ...]) -> tuple[int, str]:
    return (items[-1].seq, items[-1].key) if items else before


def _cut(items: Iterable[Item], limit: int) -> tuple[tuple[Item, ...], Item | None]:
    """As many items as `limit` bytes hold, at least one, and the first that was left for later."""
    taken: list[Item] = []
    size = 0
    for item in items:
        size += len(item.body)
        if taken and size > limit:
            return tuple(taken), item
        taken.append(item)
    return tuple(taken), None


# ---- receiving ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """A key that is new or other than before, or (`item` None) no longer there."""

    key: str
    at: Position
    item: Item | None


@dataclass(slots=True)
class Seen:
    """The keys that a full listing named so far; it belongs to one stream and ends with it.

    `settles` says that the sender has been at least as far as the receiver all the while: what is missing from it is
    gone, and what is only now visible is new.
    """

    epoch: int
    settles: bool = True
    keys: set[str] = field(default_factory=set)


class Inbound:
    """What a receiver has applied of one owner: positions, not values. Values live in the receiver's view.

    `held` are the live keys. Tombstones are remembered only above the cursor: at or below it an unknown key is old by
    the promise that came with the cursor.
    """

    def __init__(self, cursor: Position = NOTHING, held: Mapping[str, Position] | None = None) -> None:
        self.cursor = cursor
        self.held = dict(held or {})
        self._gone: dict[str, Position] = {}

    def apply(self, batch: Batch, seen: Seen | None) -> tuple[Seen | None, tuple[Change, ...]]:
        """Take a batch in: the listing in progress on that stream, and what changes by it.

        The answer to the sender is always `self.cursor`. A batch of an older epoch, or a delta of an epoch whose
        listing is not complete, changes nothing.
        """
        if batch.epoch < self.cursor.epoch or not (batch.full or batch.epoch == self.cursor.epoch):
            return seen, ()
        if batch.full and (seen is None or seen.epoch != batch.epoch):
            seen = Seen(batch.epoch)
        if batch.full and seen is not None and batch.top < self.cursor:
            seen.settles = False
        changes = [
            change
            for item in batch.items
            if (change := self._take(item, Position(batch.epoch, item.seq), seen if batch.full else None))
        ]
        if not batch.full:
            self._reach(batch.top)
            return seen, tuple(changes)
        assert seen is not None
        seen.keys.update(item.key for item in batch.items)
        if not batch.last:
            return seen, tuple(changes)
        if seen.settles:
            changes += self._sweep(batch.top, seen)
        self._reach(batch.top)
        return None, tuple(changes)

    def _take(self, item: Item, at: Position, seen: Seen | None) -> Change | None:
        known = self.held.get(item.key) or self._gone.get(item.key)
        if known is None and at <= self.cursor and not (seen is not None and seen.settles):
            return None
        if known is not None and at <= known:
            return None
        if not item.gone:
            self._gone.pop(item.key, None)
            self.held[item.key] = at
            return Change(item.key, at, item)
        self._gone[item.key] = at
        return Change(item.key, at, None) if self.held.pop(item.key, None) is not None else None

    def _sweep(self, top: Position, seen: Seen) -> list[Change]:
        missing = [key for key, at in self.held.items() if at <= top and key not in seen.keys]
        for key in missing:
            del self.held[key]
        return [Change(key, top, None) for key in missing]

    def _reach(self, top: Position) -> None:
        if top > self.cursor:
            self.cursor = top
            self._gone = {key: at for key, at in self._gone.items() if at > top}


class Counts:
    """The highest beat heard of each owner: only one that is higher is a sign of life, a repeated one is an echo."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def rose(self, owner: str, count: int) -> bool:
        """Whether `count` is higher than any heard of `owner` before; remembers it."""
        if count <= self._highest.get(owner, 0):
            return False
        self._highest[owner] = count
        return True


def beat_count(epoch: int, beats: int) -> int:
    """A count that rises over restarts too: `beats` counts within an epoch, at most 2^32."""
    return (epoch << 32) | beats


def beat_epoch(count: int) -> int:
    """The epoch within which a beat was counted."""
    return count >> 32
