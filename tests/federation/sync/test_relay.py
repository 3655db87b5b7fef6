"""What the hub holds of one owner, against owners that do not keep to their own rules."""

from __future__ import annotations

from federation.model import Position
from federation.sync.feed import Item
from federation.sync.protocol import Batch, Outbound
from federation.sync.relay import Relay


def item(key: str, seq: int) -> Item:
    return Item(key, seq, b"value")


def listing(epoch: int, to_seq: int, *items: Item) -> Batch:
    return Batch("east", epoch, to_seq, full=True, last=True, items=items)


def delta(to_seq: int, *items: Item) -> Batch:
    return Batch("east", 1, to_seq, full=False, last=True, items=items)


def relay_with(*batches: Batch) -> Relay:
    relay = Relay("east", lambda key, seq: b"gone")
    for batch in batches:
        relay.receive(batch, lambda _: None)
    return relay


def keys(relay: Relay) -> list[str]:
    assert relay.feed is not None
    return sorted(each.key for each in relay.feed.items.values() if not each.gone)


def test_a_second_listing_of_one_epoch_tells_by_tombstones_who_is_in_the_middle_of_the_first() -> None:
    relay = relay_with(listing(1, 2, item("a", 1), item("b", 2)))
    assert relay.feed is not None
    west, first = Outbound().next(relay.feed, limit=1)
    assert first is not None
    assert [each.key for each in first.items] == ["a"]
    relay.receive(listing(1, 3, item("b", 2)), lambda _: None)
    _, second = west.acknowledged("west", Position()).next(relay.feed)
    assert second is not None
    assert [(each.key, each.gone) for each in second.items] == [("b", False), ("a", True)]


def test_a_listing_that_lies_behind_what_is_held_replaces_nothing() -> None:
    relay = relay_with(listing(1, 5, item("a", 5)), listing(1, 3, item("b", 3)))
    assert keys(relay) == ["a"]
    assert relay.position == Position(1, 5)


def test_a_late_entry_of_a_key_that_is_not_held_is_old() -> None:
    relay = relay_with(listing(1, 5, item("a", 5)), delta(6, item("b", 4)))
    assert keys(relay) == ["a"]
    assert relay.position == Position(1, 6)


def test_an_older_epoch_is_over() -> None:
    relay = relay_with(listing(2, 1, item("a", 1)), listing(1, 9, item("b", 9)), delta(10, item("c", 10)))
    assert keys(relay) == ["a"]


def test_an_interrupted_listing_is_worth_nothing() -> None:
    relay = relay_with(Batch("east", 1, 2, full=True, last=False, items=(item("a", 1),)))
    relay.interrupted()
    relay.receive(listing(1, 2, item("b", 2)), lambda _: None)
    assert keys(relay) == ["b"]
