"""What waits to be said on one stream besides batches.

A slot says what a message is about: an acknowledgement of east, a refusal of a key. Only the newest message of a slot
waits, because it makes the older ones void; so a peer that asks much and reads nothing fills its slots and no more.
"""

from __future__ import annotations

Slot = tuple[str, str | int]
"""What a message is about: its kind, and whom, which key or which question it concerns."""


class Words:
    """Messages in the order in which their slots fell due; a peer that leaves more than `most` bytes does not read."""

    def __init__(self, most: int) -> None:
        self._messages: dict[Slot, bytes] = {}
        self._most = most
        self._size = 0

    @property
    def too_many(self) -> bool:
        return self._size > self._most

    def fits(self, size: int) -> bool:
        """Whether `size` bytes more would not be too many."""
        return self._size + size <= self._most

    def put(self, slot: Slot, message: bytes) -> None:
        self._size += len(message) - len(self._messages.get(slot, b""))
        self._messages[slot] = message

    def take(self) -> bytes | None:
        """The next message to send, None if nothing waits."""
        if not self._messages:
            return None
        message = self._messages.pop(next(iter(self._messages)))
        self._size -= len(message)
        return message
