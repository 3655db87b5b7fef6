"""What the protocol costs, and the edges that no transcript shows."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from federation.model import Position
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item
from federation.sync.protocol import BATCH_BYTES, NOTHING, Batch, Inbound, Outbound, next_epoch


def feed_of(keys: int, body: bytes = b"value") -> Feed:
    feed = Feed("east", 1)
    for number in range(1, keys + 1):
        feed.put(Item(f"key-{number}", number, body))
        feed.advance(number)
    return feed


def settled(feed: Feed) -> Outbound:
    """A receiver that has everything."""
    outbound, batch = Outbound().next(feed)
    while batch is not None:
        outbound = outbound.acknowledged("west", batch.top if batch.last else NOTHING)
        outbound, batch = outbound.next(feed)
    return outbound


@pytest.mark.parametrize("keys", [100, 10_000])
def test_one_change_looks_at_one_entry_whatever_their_number(keys: int) -> None:
    feed = feed_of(keys)
    outbound = settled(feed)
    assert outbound.cursor == Position(1, keys)
    feed.put(Item("key-7", keys + 1, b"other"))
    feed.advance(keys + 1)
    looked_at: list[Item] = []
    original = Feed.after

    def counted(self: Feed, mark: tuple[int, str]) -> list[Item]:
        looked_at.extend(original(self, mark))
        return list(original(self, mark))

    with patch.object(Feed, "after", counted):
        _, batch = outbound.next(feed)
    assert [item.key for item in looked_at] == ["key-7"]
    assert batch is not None
    assert [item.key for item in batch.items] == ["key-7"]


def test_a_key_that_changes_all_the_time_leaves_no_trail() -> None:
    feed = feed_of(10)
    for seq in range(11, 10_011):
        feed.put(Item("key-3", seq, b"value"))
        feed.advance(seq)
    assert len(feed._order) < 200
    assert [item.key for item in feed.after((10, "\U0010ffff"))] == ["key-3"]
    assert feed.size == 10 * len(b"value")


def test_batches_are_bounded_and_together_complete() -> None:
    feed = feed_of(1000, body=b"x" * 1000)
    outbound, sizes, seen = Outbound(), [], set()
    while True:
        outbound, batch = outbound.next(feed)
        assert batch is not None
        sizes.append(sum(len(item.body) for item in batch.items))
        seen |= {item.key for item in batch.items}
        outbound = outbound.acknowledged("west", batch.top if batch.last else NOTHING)
        if batch.last:
            break
    assert max(sizes) <= BATCH_BYTES
    assert len(sizes) == 4
    assert len(seen) == 1000


def test_an_entry_longer_than_a_batch_travels_alone() -> None:
    feed = feed_of(3, body=b"x" * (BATCH_BYTES + 1))
    _, batch = Outbound().next(feed)
    assert batch is not None
    assert len(batch.items) == 1


def test_nothing_is_sent_while_a_batch_is_in_flight() -> None:
    feed = feed_of(1)
    outbound, batch = Outbound().next(feed)
    assert batch is not None
    feed.put(Item("key-2", 2, b"value"))
    feed.advance(2)
    assert outbound.next(feed) == (outbound, None)


def test_a_listing_that_the_receiver_does_not_take_ends_the_stream() -> None:
    outbound, _ = Outbound().next(feed_of(1))
    with pytest.raises(ProtocolViolation, match="left the receiver at"):
        outbound.acknowledged("west", NOTHING)


def test_a_delta_that_the_receiver_does_not_take_is_followed_by_a_listing() -> None:
    feed = feed_of(2)
    outbound = settled(feed)
    feed.put(Item("key-1", 3, b"other"))
    feed.advance(3)
    outbound, _ = outbound.next(feed)
    _, batch = outbound.acknowledged("west", Position(1, 1)).next(feed)
    assert batch is not None
    assert batch.full


def test_an_answer_to_nothing_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="nothing was sent"):
        Outbound().acknowledged("west", NOTHING)


def test_a_listing_of_a_hub_that_is_overtaken_brings_nothing_back() -> None:
    """Another hub's tombstone moved the cursor while this one's listing was on its way."""
    west = Inbound()
    west.apply(Batch("east", 1, 1, True, True, (Item("a", 1, b"1"),)), None)
    seen, _ = west.apply(Batch("east", 1, 2, True, False, (Item("b", 2, b"1"),)), None)
    west.apply(Batch("east", 1, 5, False, True, (Item("a", 5, b"gone", gone=True),)), None)
    _, changes = west.apply(Batch("east", 1, 2, True, True, (Item("a", 1, b"1"),)), seen)
    assert changes == ()
    assert west.cursor == Position(1, 5)


def test_epochs_rise_above_disk_and_memory_of_others() -> None:
    assert next_epoch("east", 3, NOTHING) == 4
    assert next_epoch("east", 3, Position(9, 1)) == 10
    with pytest.raises(ProtocolViolation, match="is claimed"):
        next_epoch("east", 3, Position(2**30, 1))
