"""Protocol values to bytes and back. Entries are encoded when they are made; a batch only strings them together."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from federation.model import Position
from federation.sync import codec
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Item
from federation.sync.protocol import HIGHEST, Batch

METHOD_SERVICE = "federation.sync.v1.Federation"
METHOD_NAME = "Sync"
LONGEST_MESSAGE = 4 * 1024 * 1024
"""Bytes of one message in either direction."""
LONGEST_TOMBSTONE = 1024
"""Bytes of a tombstone, which is relayed without a look at what it withdraws."""
MOST_ENTRIES = 20_000
"""Entries of one batch."""

_ENTRIES = bytes([pb.Batch.ENTRIES_FIELD_NUMBER << 3 | 2])
_PUBLISH = bytes([pb.FromAgent.PUBLISH_FIELD_NUMBER << 3 | 2])
_RELAY = bytes([pb.FromHub.RELAY_FIELD_NUMBER << 3 | 2])


def publish(batch: Batch) -> bytes:
    """An encoded FromAgent that carries `batch`."""
    return _wrapped(_PUBLISH, batch)


def relay(batch: Batch) -> bytes:
    """An encoded FromHub that carries `batch`."""
    return _wrapped(_RELAY, batch)


def read_batch(message: pb.Batch, peer: str) -> Batch:
    """The batch in a decoded message of `peer`; raises ProtocolViolation for figures that cannot be."""
    if not 1 <= message.epoch < HIGHEST or message.to_seq >= HIGHEST:
        raise ProtocolViolation(peer, f"a batch of epoch {message.epoch} up to {message.to_seq}")
    if len(message.entries) > MOST_ENTRIES:
        raise ProtocolViolation(
            peer, f"a batch of {len(message.entries)} entries, allowed are {MOST_ENTRIES}"
        )
    if any(not entry.key or not 1 <= entry.seq < HIGHEST for entry in message.entries):
        raise ProtocolViolation(peer, "an entry without a key or without a position")
    if any(
        entry.WhichOneof("value") == "gone" and entry.ByteSize() > LONGEST_TOMBSTONE
        for entry in message.entries
    ):
        raise ProtocolViolation(
            peer, f"a tombstone over {LONGEST_TOMBSTONE} bytes: relayed, it would fit no message"
        )
    items = tuple(
        Item(entry.key, entry.seq, entry.SerializeToString(), gone=entry.WhichOneof("value") == "gone")
        for entry in message.entries
    )
    return Batch(message.owner, message.epoch, message.to_seq, message.full, message.last, items)


def read_position(message: pb.Position, peer: str) -> Position:
    """Raises ProtocolViolation for a position that nobody can have reached."""
    if message.epoch >= HIGHEST or message.seq >= HIGHEST:
        raise ProtocolViolation(peer, f"position {message.epoch}.{message.seq}")
    return Position(message.epoch, message.seq)


def read_have(messages: Iterable[pb.Have], peer: str) -> dict[str, Position]:
    return {message.owner: read_position(message.at, peer) for message in messages}


def read_moment(milliseconds: int, peer: str) -> datetime:
    """Raises ProtocolViolation for a time that no calendar knows."""
    try:
        return codec.moment(milliseconds)
    except OverflowError as error:
        raise ProtocolViolation(peer, f"time {milliseconds} ms") from error


def position(at: Position) -> pb.Position:
    return pb.Position(epoch=at.epoch, seq=at.seq)


def have(owner: str, at: Position) -> pb.Have:
    return pb.Have(owner=owner, at=position(at))


def _wrapped(tag: bytes, batch: Batch) -> bytes:
    """Strung together by the rules of the encoding: a field may follow in pieces, each with tag and length
    (protobuf.dev, Encoding: Length-Delimited Records)."""
    header = pb.Batch(
        owner=batch.owner, epoch=batch.epoch, to_seq=batch.to_seq, full=batch.full, last=batch.last
    ).SerializeToString()
    parts = [header]
    for item in batch.items:
        parts += (_ENTRIES, _varint(len(item.body)), item.body)
    length = sum(len(part) for part in parts)
    return b"".join((tag, _varint(length), *parts))


def _varint(number: int) -> bytes:
    """Base 128, least significant group first (protobuf.dev, Encoding: Base 128 Varints)."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
