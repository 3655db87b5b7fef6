"""What an agent takes in of the others: relayed batches become events, each newer word once.

Importers do not trust the hub's checks: nobody speaks for us, only the hub speaks of members, and a bundle counts only
with proof. Whether a cluster may export what it says is judged where decisions are made, by the registry's newest
record, so it is not asked here.

The newest bundle that was ever believed of a name is never forgotten: a hub says who joins and who leaves, and must not
lead anybody back by that to an authority whose key was stolen. Whoever joins anew under a name has an authority of a
higher epoch, or the one that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from federation import admit
from federation.admit import Refused
from federation.events import Event
from federation.model import HUB, Member, Position
from federation.roots import Roots
from federation.sync import codec
from federation.sync.errors import ProtocolViolation
from federation.sync.protocol import NOTHING, Batch, Change, Inbound, Seen
from federation.sync.refusals import Refusal
from federation.sync.wire import MOST_OWNERS
from pki.bundle import Accepted, Bundle, Rejected, Rejection
from pki.names import is_dns_label

Accept = Callable[[Bundle | None, Bundle], Accepted | Rejected]
"""`pki.bundle.accept` with our own roots; who keeps the anchors of the hub and the roots decides on those himself."""

MOST_BELIEVED = MOST_OWNERS
"""Names of which a bundle was ever believed. As none is forgotten, others are refused then; each has cost the root's
word for it."""


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
    we are. `believed` is the newest bundle of the owner, if that is news, to be kept for ever."""

    owner: str
    cursor: Position
    events: tuple[Event, ...] = ()
    believed: Bundle | None = None
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
        self._believed: dict[str, Bundle] = {}
        self._doubts: dict[str, str] = {}

    def restore(
        self, heard: Iterable[Heard], cursors: Mapping[str, Position], believed: Iterable[Bundle] = ()
    ) -> tuple[Event, ...]:
        """Take up what was on disk, as events. An owner of whom something cannot be read any more is asked anew.

        Nothing of an owner that is no member counts: whoever joins anew under its name is somebody else. Of a bundle
        the newest that was believed counts, which is on disk before it is heard.
        """
        for bundle in believed:
            if (name := bundle.trust_domain.cluster(self._base)) is not None:
                self._believed[name] = bundle
        members: set[str] = set()
        events: list[Event] = []
        held: dict[str, dict[str, Position]] = {owner: {} for owner in cursors}
        incomplete: set[str] = set()
        for each in sorted(heard, key=lambda one: (one.owner != HUB, one.owner, one.key)):
            fact = codec.decode(each.owner, each.at.epoch, each.body, self._base)
            if isinstance(fact, Refused):
                incomplete.add(each.owner)
                continue
            if each.owner != HUB and each.owner not in members:
                incomplete.add(each.owner)
                continue
            held.setdefault(each.owner, {})[each.key] = each.at
            if isinstance(fact, Member):
                members.add(fact.name)
            elif isinstance(fact, Bundle) and each.owner != HUB:
                fact = self._newest(each.owner, fact)
            events.append(codec.changed(each.owner, fact))
        for owner, keys in held.items():
            cursor = NOTHING if owner in incomplete else cursors.get(owner, NOTHING)
            self._inbounds[owner] = Inbound(cursor, keys)
        return tuple(events)

    def _newest(self, owner: str, heard: Bundle) -> Bundle:
        known = self._believed.get(owner)
        if known is None or known.version <= heard.version:
            self._believed[owner] = heard
        return self._believed[owner]

    def problems(self) -> tuple[str, ...]:
        """Whose bundle is not believed, though it is the one that a hub has of him."""
        return tuple(self._doubts.values())

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
        before = self._believed.get(batch.owner)
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
        now = self._believed.get(batch.owner)
        taken = Taken(
            owner=batch.owner,
            cursor=inbound.cursor,
            events=tuple(events),
            believed=None if now == before else now,
            heard=tuple(heard),
            forgotten=tuple(forgotten),
            refused=tuple(refused),
        )
        return seen, taken

    def _judge(self, owner: str, change: Change) -> Event | Refused | None:
        if change.item is None:
            if owner == HUB:
                self._doubts.pop(change.key.removeprefix("member/"), None)
            return codec.withdrawn(owner, change.key)
        fact = codec.decode(owner, change.at.epoch, change.item.body, self._base)
        if isinstance(fact, Refused):
            return fact
        if isinstance(fact, Member) and (refused := admit.member(fact, self._base)) is not None:
            return refused
        if isinstance(fact, Bundle | Roots) and (refused := self._doubt(owner, fact)) is not None:
            return refused
        return codec.changed(owner, fact)

    def _doubt(self, owner: str, fact: Bundle | Roots) -> Refused | None:
        """Why a bundle is not believed; a cluster's that is believed is what its next one has to follow from."""
        if isinstance(fact, Roots) or owner == HUB:
            offer = self._accept(None, fact.bundle if isinstance(fact, Roots) else fact)
            return Refused("bundle", str(offer)) if isinstance(offer, Rejected) else None
        if owner not in self._believed and len(self._believed) >= MOST_BELIEVED:
            return Refused(
                "bundle", f"bundles of {MOST_BELIEVED} other names were believed here, no more are"
            )
        offer = self._accept(self._believed.get(owner), fact)
        if isinstance(offer, Rejected):
            self._doubts[owner] = f"the bundle of {owner} is not believed: {offer}" + _remedy(
                owner, offer.reason
            )
            return Refused("bundle", str(offer))
        self._doubts.pop(owner, None)
        self._believed[owner] = fact
        return None


def _remedy(owner: str, reason: Rejection) -> str:
    """What to do about a bundle that does not follow from the one that is held."""
    if reason not in (Rejection.OLDER, Rejection.CONFLICT, Rejection.NOT_SIGNED):
        return ""
    return (
        "; if its folder was lost, or put back from an old copy, it needs another authority: at the hub "
        f"`federation token create {owner} --replace-authority`"
    )
