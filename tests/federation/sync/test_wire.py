"""What a batch may hold before anybody looks into it."""

from __future__ import annotations

import pytest

from federation.sync import sync_pb2 as pb
from federation.sync import wire
from federation.sync.errors import ProtocolViolation


def batch(key: str) -> pb.Batch:
    return pb.Batch(owner="west", epoch=1, to_seq=1, entries=[pb.Entry(key=key, seq=1, gone=pb.Tombstone())])


def test_a_tombstone_that_would_fit_no_message_when_relayed_ends_the_stream() -> None:
    assert wire.read_batch(batch("spec/default/echo"), "west").items[0].gone
    with pytest.raises(ProtocolViolation, match="tombstone"):
        wire.read_batch(batch("spec/" + "x" * 4_000_000), "west")
