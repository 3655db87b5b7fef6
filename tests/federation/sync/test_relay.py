"""What the hub holds of one owner, against owners that do not keep to their own rules."""

from __future__ import annotations

from collections.abc import Callable

from federation.admit import Refused
from federation.model import Position
from federation.sync.feed import Item
from federation.sync.protocol import Batch, Outbound
from federation.sync.refusals import LONGEST_DETAIL, LONGEST_KEY, MOST_KEPT
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


def forbid(*keys: str) -> Callable[[Item], Refused | None]:
    return lambda item: Refused("may-export", "not allowed") if item.key in keys else None


def test_while_something_is_refused_the_owner_is_asked_for_everything_at_its_next_stream() -> None:
    relay = relay_with(listing(1, 2, item("a", 1), item("b", 2)))
    assert relay.resume == Position(1, 2)
    relay.receive(delta(3, item("c", 3)), forbid("c"))
    assert (relay.position, relay.resume) == (Position(1, 3), Position(1, 0))
    relay.receive(delta(4, item("c", 4)), forbid())
    assert relay.resume == Position(1, 4)


def test_what_may_no_longer_be_said_is_dropped_from_a_listing_on_its_way_too() -> None:
    relay = relay_with(Batch("east", 1, 2, full=True, last=False, items=(item("a", 1),)))
    assert [each.key for each in relay.reconsider(forbid("a"))] == ["a"]
    relay.receive(listing(1, 2, item("b", 2)), forbid("a"))
    assert keys(relay) == ["b"]
    assert [each.key for each in relay.refused] == ["a"]


def test_a_key_that_is_listed_with_a_word_that_is_refused_keeps_its_last_word() -> None:
    relay = relay_with(listing(1, 2, item("a", 1), item("b", 2)))
    relay.receive(delta(3, item("a", 3)), forbid("a"))
    relay.receive(listing(1, 3, item("b", 2), item("a", 3)), forbid("a"))
    assert relay.feed is not None
    assert (keys(relay), relay.feed.items["a"].seq) == (["a", "b"], 1)


def test_receivers_who_are_up_to_date_are_told_of_what_comes_back_at_an_old_position() -> None:
    relay = relay_with(listing(1, 2, item("a", 1), item("b", 2)))
    relay.reconsider(forbid("a"))
    again = listing(1, 2, item("a", 1), item("b", 2))
    assert not relay.receive(again, forbid("a")).afresh
    assert relay.receive(again, forbid()).afresh
    assert not relay.receive(again, forbid()).afresh


def test_of_many_refusals_the_first_are_kept_and_the_rest_is_counted() -> None:
    items = [item(f"spec/{'x' * 1000}/{number}", number) for number in range(1, 2001)]
    short = [item(f"spec/default/{number}", 2000 + number) for number in range(1, 2001)]
    relay = relay_with()
    relay.receive(
        listing(1, 5000, *items, *short), lambda _: Refused("may-export", "no, because: " + "y" * 5000)
    )
    *kept, others = relay.refused
    assert len(kept) == MOST_KEPT
    assert max(len(each.key) for each in kept) == LONGEST_KEY
    assert max(len(each.why.detail) for each in kept) == LONGEST_DETAIL
    assert (others.key, others.why.detail) == ("others", "1001 more entries are refused")
    assert relay.refused.rules["may-export"] == 4000
