"""What a sender holds of one owner: the newest state of every key, ready to be sent from any position on.

Nothing is queued: a key that changes twice before somebody asks is sent once, as it is then. Each entry is encoded by
whoever puts it here, once, and the bytes are shared by all streams. Positions order everything, so "what changed after
N" costs what changed; the index is put in order when somebody asks, so that entries may come in any order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from federation.model import Position

_SLACK = 64
"""Superseded index entries that are tolerated before the index is built anew."""


@dataclass(frozen=True, slots=True)
class Item:
    """One key as its owner left it: `seq` of its last change, its encoded entry, or a tombstone (`gone`)."""

    key: str
    seq: int
    body: bytes
    gone: bool = False


class Feed:
    """The keys of one owner in one epoch. Complete up to `position`; knows every tombstone above `floor`.

    It is `whole` unless it stands in the middle of a cut delta: a key may then be missing although it exists, because
    its last change lies in the part that has not come, and absence says nothing. `size` counts the bytes of entries.
    """

    def __init__(self, owner: str, epoch: int, *, seq: int = 0, floor: int = 0) -> None:
        self.owner = owner
        self.epoch = epoch
        self.seq = seq
        self.floor = floor
        self.size = 0
        self.whole = True
        self._items: dict[str, Item] = {}
        self._order: list[tuple[int, str]] = []
        self._sorted = True

    @property
    def position(self) -> Position:
        """Nothing of this owner up to here is missing."""
        return Position(self.epoch, self.seq)

    @property
    def items(self) -> Mapping[str, Item]:
        """Newest state per key, tombstones included."""
        return MappingProxyType(self._items)

    def put(self, item: Item) -> bool:
        """Take a newer state of a key; False, and no change, if it is not newer than the one held."""
        held = self._items.get(item.key)
        if held is not None and item.seq <= held.seq:
            return False
        self.size += len(item.body) - (len(held.body) if held is not None else 0)
        self._items[item.key] = item
        place = (item.seq, item.key)
        if self._order and place < self._order[-1]:
            self._sorted = False
        self._order.append(place)
        if len(self._order) > 2 * len(self._items) + _SLACK:
            self._order = [(each.seq, each.key) for each in self._items.values()]
            self._sorted = False
        return True

    def drop(self, key: str) -> None:
        """Forget a key without a trace: receivers that had it learn of it by a full listing only."""
        dropped = self._items.pop(key, None)
        if dropped is not None:
            self.size -= len(dropped.body)

    def advance(self, seq: int) -> None:
        """Promise that nothing up to `seq` is missing."""
        self.seq = max(self.seq, seq)

    def after(self, mark: tuple[int, str]) -> Iterator[Item]:
        """The keys whose last change lies behind `mark` (seq, key), in that order, each once."""
        if not self._sorted:
            self._order.sort()
            self._sorted = True
        for index in range(bisect_right(self._order, mark), len(self._order)):
            seq, key = self._order[index]
            item = self._items.get(key)
            if item is not None and item.seq == seq:
                yield item
