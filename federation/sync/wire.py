"""Protocol values to bytes and back. Entries are encoded when they are made; a batch only strings them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from federation.model import Position
from federation.sync import codec, forms
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Item
from federation.sync.protocol import BATCH_BYTES, HIGHEST, Batch

METHOD_SERVICE = "federation.sync.v1.Federation"
METHOD_NAME = "Sync"
LONGEST_MESSAGE = 1280 * 1024
"""Bytes of one message in either direction; a report is the longest kind, a hello of all owners comes next."""
LONGEST_BATCH = 2 * BATCH_BYTES + codec.LONGEST_ENTRY
"""Bytes of one batch: what a sender cuts at, with room for what surrounds the entries, and one entry of any length."""
LONGEST_TOMBSTONE = 1024
"""Bytes of a tombstone, which is relayed without a look at what it withdraws."""
MOST_ENTRIES = 20_000
"""Entries of one batch."""
MOST_OWNERS = 10_000
"""Owners in one hello."""
PIECE_ENTRIES = 500
PIECE_BYTES = 64 * 1024
"""Entries, and bytes of them, that are taken in at a stretch; a single entry may be longer."""

_ENTRIES = bytes([pb.Batch.ENTRIES_FIELD_NUMBER << 3 | 2])
_PUBLISH = bytes([pb.FromAgent.PUBLISH_FIELD_NUMBER << 3 | 2])
_RELAY = bytes([pb.FromHub.RELAY_FIELD_NUMBER << 3 | 2])


def publish(batch: Batch) -> bytes:
    """An encoded FromAgent that carries `batch`."""
    return _wrapped(_PUBLISH, batch)


def relay(batch: Batch) -> bytes:
    """An encoded FromHub that carries `batch`."""
    return _wrapped(_RELAY, batch)


def read_batch(message: pb.Batch, peer: str) -> Iterator[Batch]:
    """The batch in a decoded message of `peer`, in pieces that are batches themselves: whoever takes them in may turn
    to others between two of them. The answer to all of them is the answer to the batch.

    Raises ProtocolViolation for a batch that cannot be, at once; for an entry that cannot be, when its piece is due.
    """
    if len(message.entries) > MOST_ENTRIES:
        raise ProtocolViolation(
            peer, f"a batch of {len(message.entries)} entries, allowed are {MOST_ENTRIES}"
        )
    if message.ByteSize() > LONGEST_BATCH:
        raise ProtocolViolation(peer, f"a batch of {message.ByteSize()} bytes, allowed are {LONGEST_BATCH}")
    if not 1 <= message.epoch < HIGHEST or message.to_seq >= HIGHEST:
        raise ProtocolViolation(peer, f"a batch of epoch {message.epoch} up to {message.to_seq}")
    if len({entry.key for entry in message.entries}) < len(message.entries):
        raise ProtocolViolation(peer, "a batch that says two things under one key")
    return _pieces(message, peer)


def _pieces(message: pb.Batch, peer: str) -> Iterator[Batch]:
    """A delta is cut where the next position begins; so each piece promises what it can keep."""
    entries = message.entries if message.full else sorted(message.entries, key=_seq)
    items: list[Item] = []
    size = 0
    for entry in entries:
        item = _item(entry, peer)
        full_up = len(items) == PIECE_ENTRIES or size + len(item.body) > PIECE_BYTES
        if items and full_up:
            to_seq = message.to_seq if message.full else item.seq - 1
            yield Batch(message.owner, message.epoch, to_seq, message.full, last=False, items=tuple(items))
            items, size = [], 0
        items.append(item)
        size += len(item.body)
    yield Batch(message.owner, message.epoch, message.to_seq, message.full, message.last, tuple(items))


def _seq(entry: pb.Entry) -> int:
    return entry.seq


def _item(entry: pb.Entry, peer: str) -> Item:
    if not entry.key or not 1 <= entry.seq < HIGHEST:
        raise ProtocolViolation(peer, "an entry without a key or without a position")
    gone = entry.WhichOneof("value") == "gone"
    body = entry.SerializeToString()
    if gone and len(body) > LONGEST_TOMBSTONE:
        raise ProtocolViolation(
            peer, f"a tombstone over {LONGEST_TOMBSTONE} bytes: relayed, it would fit no message"
        )
    return Item(entry.key, entry.seq, body, gone)


def read_position(message: pb.Position, peer: str) -> Position:
    """Raises ProtocolViolation for a position that nobody can have reached."""
    if message.epoch >= HIGHEST or message.seq >= HIGHEST:
        raise ProtocolViolation(peer, f"position {message.epoch}.{message.seq}")
    return Position(message.epoch, message.seq)


def read_have(messages: Sequence[pb.Have], peer: str) -> dict[str, Position]:
    """Raises ProtocolViolation for more owners than there can be, and for impossible positions."""
    if len(messages) > MOST_OWNERS:
        raise ProtocolViolation(peer, f"it has the word of {len(messages)} owners, allowed are {MOST_OWNERS}")
    return {message.owner: read_position(message.at, peer) for message in messages}


def read_moment(milliseconds: int, peer: str) -> datetime:
    """Raises ProtocolViolation for a time that no calendar knows."""
    try:
        return forms.moment(milliseconds)
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
