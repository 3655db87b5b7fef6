"""What the hub owes one connected agent: words, beats, and of each owner what the agent has not acknowledged.

Registry facts go before everything else that is relayed, so that nobody judges a cluster by an outdated record.
Nothing here waits: whoever sends is woken when there is something to say, and takes it message by message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from federation.model import HUB, Position
from federation.sync import sync_pb2 as pb
from federation.sync import wire
from federation.sync.feed import Feed
from federation.sync.protocol import Outbound
from federation.sync.refusals import Refusals
from federation.sync.words import Slot, Words

MOST_WAITING = 1024 * 1024
"""Bytes that may wait for one agent besides batches, which do not wait."""

FeedOf = Callable[[str], Feed | None]
"""What is passed on of an owner, None if there is nothing yet."""


class Session:
    """One agent's stream. `closed` says why nothing more may be said on it, None while it lives."""

    def __init__(
        self,
        cluster: str,
        have: Mapping[str, Position],
        owners: Iterable[str],
        feed: FeedOf,
        wake: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self.closed: str | None = None
        self._feed = feed
        self._wake = wake
        self._outbounds = {owner: Outbound.resume(at) for owner, at in have.items()}
        self._words = Words(MOST_WAITING)
        self._beats: dict[str, bytes] = {}
        self._due = set(owners) - {cluster}

    def acknowledged(self, owner: str) -> Position:
        """How far this agent has applied the word of `owner`."""
        return self._outbounds.get(owner, Outbound()).cursor

    def acknowledge(self, have: pb.Have) -> None:
        """The agent has applied the batch in flight of an owner. Raises ProtocolViolation."""
        outbound = self._outbounds.get(have.owner)
        if outbound is not None:
            at = wire.read_position(have.at, self.cluster)
            self._outbounds[have.owner] = outbound.acknowledged(self.cluster, at)
            self.owed(have.owner)

    def take(self) -> bytes | None:
        """The next message to send, None if there is nothing to say now."""
        if self.closed is not None:
            return None
        if (word := self._words.take()) is not None:
            return word
        if self._beats:
            return self._beats.pop(next(iter(self._beats)))
        registry = self._next(HUB)
        if registry is not None or self._registry_awaited():
            return registry
        for owner in sorted(self._due):
            if (batch := self._next(owner)) is not None:
                return batch
        return None

    def say(self, slot: Slot, message: pb.FromHub) -> None:
        """Say `message` soon, instead of what waits in its slot; an agent that lets too much wait is cut."""
        if self.closed is not None:
            return
        self._words.put(slot, message.SerializeToString())
        if self._words.too_many:
            self.close("it does not read what is said to it")
        self._wake()

    def refuse(self, refusals: Refusals) -> None:
        """Tell the owner what of its word is not passed on."""
        for refusal in refusals:
            said = pb.Refusal(
                key=refusal.key, seq=refusal.seq, rule=refusal.why.rule, detail=refusal.why.detail
            )
            self.say(("refusal", refusal.key), pb.FromHub(refusal=said))

    def pass_on(self, beat: pb.Beat) -> None:
        """Only the newest beat of an owner waits: an old one proves less."""
        self._beats[beat.owner] = pb.FromHub(beat=beat).SerializeToString()
        self._wake()

    def owed(self, owner: str, *, afresh: bool = False) -> None:
        """`owner` has something new; `afresh`: what it may say is not what it was."""
        if owner != self.cluster:
            if afresh and owner in self._outbounds:
                self._outbounds[owner] = self._outbounds[owner].afresh()
            self._due.add(owner)
            self._wake()

    def forget(self, owner: str) -> None:
        """`owner` is no member any more."""
        self._outbounds.pop(owner, None)
        self._beats.pop(owner, None)
        self._due.discard(owner)

    def close(self, why: str) -> None:
        self.closed = why
        self._wake()

    def _registry_awaited(self) -> bool:
        registry = self._feed(HUB)
        return registry is not None and self.acknowledged(HUB) < registry.position

    def _next(self, owner: str) -> bytes | None:
        feed = self._feed(owner)
        batch = None
        if feed is not None and owner in self._due:
            outbound, batch = self._outbounds.get(owner, Outbound()).next(feed)
            self._outbounds[owner] = outbound
        if batch is None:
            self._due.discard(owner)
            return None
        return wire.relay(batch)
