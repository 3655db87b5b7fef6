"""What a batch may hold before anybody looks into it, and in which pieces it is taken in."""

from __future__ import annotations

from itertools import islice
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.model import Cluster, Position
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item
from federation.sync.protocol import BATCH_BYTES, Inbound, Outbound


def tombstone(key: str, seq: int) -> pb.Entry:
    return pb.Entry(key=key, seq=seq, gone=pb.Tombstone())


def batch(*entries: pb.Entry, full: bool = False) -> pb.Batch:
    to_seq = max((entry.seq for entry in entries), default=1)
    return pb.Batch(owner="west", epoch=1, to_seq=to_seq, full=full, last=True, entries=entries)


def test_a_tombstone_that_would_fit_no_message_when_relayed_ends_the_stream() -> None:
    (piece,) = wire.read_batch(batch(tombstone("spec/default/echo", 1)), "west")
    assert piece.items[0].gone
    with pytest.raises(ProtocolViolation, match="tombstone"):
        list(wire.read_batch(batch(tombstone("spec/" + "x" * 4_000, 1)), "west"))


def test_a_batch_longer_than_any_sender_cuts_ends_the_stream() -> None:
    region = "x" * (2 * BATCH_BYTES + codec.LONGEST_ENTRY)
    with pytest.raises(ProtocolViolation, match=r"a batch of \d+ bytes, allowed are 720896"):
        wire.read_batch(batch(pb.Entry(key="cluster", seq=1, cluster=pb.Cluster(region=region))), "west")


def test_a_batch_that_names_a_key_twice_ends_the_stream() -> None:
    with pytest.raises(ProtocolViolation, match="two things under one key"):
        wire.read_batch(batch(tombstone("bundle", 1), tombstone("bundle", 2)), "west")


def test_a_hello_of_more_owners_than_there_can_be_ends_the_stream() -> None:
    have = [wire.have(str(number), Position(1, 1)) for number in range(wire.MOST_OWNERS + 1)]
    with pytest.raises(ProtocolViolation, match="the word of 10001 owners"):
        wire.read_have(have, "west")


@pytest.mark.parametrize("full", [True, False])
def test_a_long_batch_is_taken_in_in_pieces_of_bounded_length(full: bool) -> None:
    entries = [tombstone(f"spec/default/{number}", number) for number in range(1, 20_001)]
    pieces = list(wire.read_batch(batch(*entries, full=full), "west"))
    assert len(pieces) == 40
    assert max(len(piece.items) for piece in pieces) == wire.PIECE_ENTRIES
    assert [piece.last for piece in pieces] == [False] * 39 + [True]
    assert {item.key for piece in pieces for item in piece.items} == {entry.key for entry in entries}


def test_a_piece_is_short_when_its_entries_are_long() -> None:
    region = "x" * (wire.PIECE_BYTES // 2)
    long = [pb.Entry(key=str(at), seq=at, cluster=pb.Cluster(region=region)) for at in range(1, 8)]
    pieces = list(wire.read_batch(batch(*long), "west"))
    assert [len(piece.items) for piece in pieces] == [1] * 7


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=8),
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
    st.integers(0, 10),
    st.randoms(use_true_random=False),
)
def test_whoever_is_cut_off_between_two_pieces_goes_on_from_there_and_lacks_nothing(
    before: list[int], after: list[int], taken: int, random: Random
) -> None:
    feed, inbound = Feed("west", 1), Inbound()
    write(feed, before)
    _, listing = Outbound().next(feed)
    assert listing is not None
    inbound.apply(listing, None)
    write(feed, after)
    _, sent = Outbound.resume(inbound.cursor).next(feed)
    assert sent is not None
    entries = [pb.Entry.FromString(item.body) for item in sent.items]
    random.shuffle(entries)
    message = pb.Batch(owner="west", epoch=1, to_seq=sent.to_seq, last=True, entries=entries)
    with patch.object(wire, "PIECE_ENTRIES", 2):
        for piece in islice(wire.read_batch(message, "west"), taken):
            inbound.apply(piece, None)
    _, rest = Outbound.resume(inbound.cursor).next(feed)
    if rest is not None:
        inbound.apply(rest, None)
    assert inbound.held == {item.key: Position(1, item.seq) for item in feed.items.values()}


def write(feed: Feed, keys: list[int]) -> None:
    for key in keys:
        seq = feed.seq + 1
        cluster = Cluster("west", "eu", "", (), Position())
        feed.put(Item(str(key), seq, codec.encode(str(key), seq, cluster)))
        feed.advance(seq)
