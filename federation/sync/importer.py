"""What an agent takes in of the others: relayed batches become events, each newer word once.

Importers do not trust the hub's checks: nobody speaks for us, only the hub speaks of members, and a bundle counts only
with proof. Whether a cluster may export what it says is judged where decisions are made, by the registry's newest
record, so it is not asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from federation import admit
from federation.admit import Refused
from federation.events import Event
from federation.model import HUB, Member, Position
from federation.roots import Roots
from federation.sync import codec
from federation.sync.codec import Fact
from federation.sync.errors import ProtocolViolation
from federation.sync.protocol import NOTHING, Batch, Change, Inbound, Seen
from federation.sync.refusals import Refusal
from federation.sync.wire import MOST_OWNERS
from pki.bundle import Accepted, Bundle, Rejected
from pki.names import is_dns_label

Accept = Callable[[Bundle | None, Bundle], Accepted | Rejected]
"""`pki.bundle.accept` with our own roots; who keeps the anchors of the hub and the roots decides on those himself."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One relayed entry as its owner encoded it, and its position: what has to survive a restart."""

    owner: str
    key: str
    at: Position
    body: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """What followed from a piece of a batch: events in order, what to keep on disk and what to drop from it, and where
    we are."""

    owner: str
    cursor: Position
    events: tuple[Event, ...] = ()
    heard: tuple[Heard, ...] = ()
    forgotten: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()


class Importer:
    """Holds positions and accepted bundles of all owners; the facts themselves live in the view."""

    def __init__(self, me: str, base: str, accept: Accept) -> None:
        self._me = me
        self._base = base
        self._accept = accept
        self._inbounds: dict[str, Inbound] = {}
        self._bundles: dict[str, Bundle] = {}
        self._joined: dict[str, datetime] = {}

    def restore(self, heard: Iterable[Heard], cursors: Mapping[str, Position]) -> tuple[Event, ...]:
        """Take up what was on disk, as events. An owner of whom something cannot be read any more is asked anew.

        Nothing of an owner that is no member counts: whoever joins anew under its name is somebody else.
        """
        events: list[Event] = []
        held: dict[str, dict[str, Position]] = {owner: {} for owner in cursors}
        incomplete: set[str] = set()
        for each in sorted(heard, key=lambda one: (one.owner != HUB, one.owner, one.key)):
            fact = codec.decode(each.owner, each.at.epoch, each.body, self._base)
            if isinstance(fact, Refused):
                incomplete.add(each.owner)
                continue
            if each.owner != HUB and each.owner not in self._joined:
                incomplete.add(each.owner)
                continue
            held.setdefault(each.owner, {})[each.key] = each.at
            self._note(each.owner, fact)
            events.append(codec.changed(each.owner, fact))
        for owner, keys in held.items():
            cursor = NOTHING if owner in incomplete else cursors.get(owner, NOTHING)
            self._inbounds[owner] = Inbound(cursor, keys)
        return tuple(events)

    def have(self) -> dict[str, Position]:
        """How far the word of each owner is complete: what to tell a hub first."""
        return {owner: inbound.cursor for owner, inbound in self._inbounds.items()}

    def apply(self, batch: Batch, seen: Seen | None) -> tuple[Seen | None, Taken]:
        """Take in a relayed batch. Raises ProtocolViolation for an owner for whom no hub may relay."""
        if batch.owner == self._me or not is_dns_label(batch.owner):
            raise ProtocolViolation("the hub", f"it speaks for {batch.owner[:80]!r}")
        if batch.owner not in self._inbounds and len(self._inbounds) >= MOST_OWNERS:
            raise ProtocolViolation("the hub", f"it relays more than {MOST_OWNERS} owners")
        inbound = self._inbounds.setdefault(batch.owner, Inbound())
        seen, changes = inbound.apply(batch, seen)
        events: list[Event] = []
        heard: list[Heard] = []
        forgotten: list[str] = []
        refused: list[Refusal] = []
        for change in changes:
            outcome = self._judge(batch.owner, change)
            if change.item is None:
                forgotten.append(change.key)
            elif isinstance(outcome, Refused):
                refused.append(Refusal.of(change.key, change.at.seq, outcome))
                continue
            else:
                heard.append(Heard(batch.owner, change.key, change.at, change.item.body))
            if outcome is not None and not isinstance(outcome, Refused):
                events.append(outcome)
        taken = Taken(
            batch.owner, inbound.cursor, tuple(events), tuple(heard), tuple(forgotten), tuple(refused)
        )
        return seen, taken

    def _judge(self, owner: str, change: Change) -> Event | Refused | None:
        if change.item is None:
            event = codec.withdrawn(owner, change.key)
            if owner == HUB:
                self._bundles.pop(change.key.removeprefix("member/"), None)
            return event
        fact = codec.decode(owner, change.at.epoch, change.item.body, self._base)
        if isinstance(fact, Refused):
            return fact
        if isinstance(fact, Member) and (refused := admit.member(fact, self._base)) is not None:
            return refused
        if isinstance(fact, Bundle | Roots):
            offered = fact.bundle if isinstance(fact, Roots) else fact
            offer = self._accept(self._bundles.get(owner), offered)
            if isinstance(offer, Rejected):
                return Refused("bundle", str(offer))
        self._note(owner, fact)
        return codec.changed(owner, fact)

    def _note(self, owner: str, fact: Fact) -> None:
        """A member that joined anew under an old name has a new authority: its first bundle is a first version."""
        if isinstance(fact, Member):
            if self._joined.get(fact.name, fact.joined_at) != fact.joined_at:
                self._bundles.pop(fact.name, None)
            self._joined[fact.name] = fact.joined_at
        elif isinstance(fact, Bundle) and owner != HUB:
            self._bundles[owner] = fact
