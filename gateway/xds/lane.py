"""One type of resource on one stream: what the client subscribes to, what it holds, and what it lacks.

At most one response of a lane is unanswered. Whatever changes meanwhile is a name in a set, never a queue of old
states. A response that is refused is sent again one resource at a time, because a refusal does not say how much of it
was applied (xDS protocol, "ACK and NACK semantics"). The resource that is refused alone stays refused until its version
changes or a `retry` is accepted; the client keeps what it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest

from rpds import HashTrieMap, HashTrieSet

from gateway.snapshot import Resource
from gateway.xds.messages import EVERYTHING, Request, Response

LONGEST_RESPONSE = 500
"""Resources in one response."""

LARGEST_RESPONSE = 3 << 20
"""Bytes of all bodies in one response; a single resource may be larger."""

LONGEST_ERROR = 1024
"""Characters of a client's error that are kept."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The client refused this version, and why (in its words, cut to `LONGEST_ERROR`)."""

    version: str
    error: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """A response that the client has not answered yet: name to version of what was put, or names removed."""

    nonce: str
    put: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lane:
    """`known` is what the client holds, by its own word; `due` and `gone` are names to be sent and to be removed.

    `again` are names whose next word goes out even if the client seems to have it: it asked for it again, or refused
    something in between. `alone` are those of `due` that go in a response of their own, because they may be refused.

    `unheard`: the client has asked for everything and was told nothing yet. It waits for a first response, even if that
    is empty (Envoy is not live before; see `initial_fetch_timeout`).
    """

    type_url: str
    everything: bool = False
    names: HashTrieSet[str] = field(default_factory=HashTrieSet)
    known: HashTrieMap[str, str] = field(default_factory=HashTrieMap)
    rejected: HashTrieMap[str, Rejected] = field(default_factory=HashTrieMap)
    due: HashTrieSet[str] = field(default_factory=HashTrieSet)
    gone: HashTrieSet[str] = field(default_factory=HashTrieSet)
    again: HashTrieSet[str] = field(default_factory=HashTrieSet)
    alone: HashTrieSet[str] = field(default_factory=HashTrieSet)
    in_flight: InFlight | None = None
    unheard: bool = False

    @classmethod
    def opened(cls, request: Request, wanted: Mapping[str, Resource], implicit: bool) -> Lane:
        """By the first request of a type, which tells what the client has from an earlier stream.

        `implicit`: for this type an empty subscription means everything (xDS protocol, "legacy wildcard").
        """
        everything = EVERYTHING in request.subscribe or (implicit and not request.subscribe)
        names = HashTrieSet(name for name in request.subscribe if name != EVERYTHING)
        held = {n: version for n, version in request.initial.items() if everything or n in names}
        lane = cls(request.type_url, everything, names, HashTrieMap.convert(held), unheard=everything)
        return lane.look_at_all(wanted)

    @property
    def is_idle(self) -> bool:
        """Nothing to send and nothing unanswered, removals aside."""
        return not self.due and (self.in_flight is None or bool(self.in_flight.removed))

    @property
    def holds_refused_update(self) -> bool:
        """The client keeps an old version of something, and with it whatever that version refers to."""
        return any(name in self.known for name in self.rejected)

    def wants(self, name: str) -> bool:
        return self.everything or name in self.names

    def expected(self, name: str) -> str | None:
        """The version that the client will hold once it has answered; None for nothing."""
        if self.in_flight is not None:
            if name in self.in_flight.removed:
                return None
            if (version := self.in_flight.put.get(name)) is not None:
                return version
        return self.known.get(name)

    def look(self, name: str, wanted: Resource | None) -> Lane:
        """Compare what there is with what the client has, or will have: is anything to be sent?"""
        lane = self
        if name in self.rejected and (wanted is None or wanted.version != self.rejected[name].version):
            lane = replace(self, rejected=self.rejected.remove(name), again=self.again.insert(name))
        due, gone, alone = lane.due.discard(name), lane.gone.discard(name), lane.alone
        if lane._is_due(name, wanted):
            due = due.insert(name)
        else:
            alone = alone.discard(name)
            gone = gone.insert(name) if lane._is_gone(name, wanted) else gone
        return replace(lane, due=due, gone=gone, alone=alone)

    def look_at_all(self, wanted: Mapping[str, Resource]) -> Lane:
        """`look` at every name that either side has: for a new stream, and when `*` is subscribed to later."""
        names = {*self.known, *(wanted if self.everything else self.names)}
        due = HashTrieSet(name for name in names if self._is_due(name, wanted.get(name)))
        gone = HashTrieSet(name for name in names if self._is_gone(name, wanted.get(name)))
        lane = replace(self, due=due, gone=gone)
        for name in {*self.rejected, *self.again, *self.alone}:
            lane = lane.look(name, wanted.get(name))
        return lane

    def _is_due(self, name: str, wanted: Resource | None) -> bool:
        if wanted is None or not self.wants(name):
            return False
        if name in self.rejected and name not in self.alone:
            return False
        return self.expected(name) != wanted.version or name in self.again

    def _is_gone(self, name: str, wanted: Resource | None) -> bool:
        if wanted is not None or not self.wants(name):
            return False
        return self.expected(name) is not None or (self.everything and name in self.again)

    def retry(self, wanted: Mapping[str, Resource]) -> Lane:
        """Offer what is refused once more, each resource alone; it counts as refused until it is accepted."""
        lane = replace(self, alone=self.alone.update(self.rejected))
        for name in self.rejected:
            lane = lane.look(name, wanted.get(name))
        return lane

    def repeat(self, name: str, wanted: Resource | None) -> Lane:
        """Send again what the client has, or is getting."""
        again = self.again if self.expected(name) is None else self.again.insert(name)
        return replace(self, again=again, rejected=self.rejected.discard(name)).look(name, wanted)

    def subscribe(self, request: Request, wanted: Mapping[str, Resource]) -> Lane:
        """Asking again for what one has means that it is to be sent again (xDS protocol, delta variant)."""
        lane = self
        for name in request.unsubscribe:
            lane = lane._forget(name, wanted)
        for name in request.subscribe:
            if name == EVERYTHING:
                if not lane.everything:
                    lane = replace(lane, everything=True, unheard=True).look_at_all(wanted)
            else:
                asked_before = name in lane.names
                lane = replace(lane, names=lane.names.insert(name))
                lane = (
                    lane.repeat(name, wanted.get(name)) if asked_before else lane.look(name, wanted.get(name))
                )
        return lane

    def _forget(self, name: str, wanted: Mapping[str, Resource]) -> Lane:
        if name == EVERYTHING:
            unwanted = [known for known in self.known if known not in self.names]
            return replace(self, everything=False)._drop((*unwanted, *self.due, *self.gone), wanted)
        return replace(self, names=self.names.discard(name))._drop((name,), wanted)

    def _drop(self, names: Iterable[str], wanted: Mapping[str, Resource]) -> Lane:
        lane = self
        for name in names:
            if not lane.wants(name):
                lane = replace(
                    lane,
                    known=lane.known.discard(name),
                    rejected=lane.rejected.discard(name),
                    again=lane.again.discard(name),
                )
            lane = lane.look(name, wanted.get(name))
        return lane

    def next_put(
        self, nonce: str, wanted: Mapping[str, Resource], is_known: bool
    ) -> tuple[Lane, Response | None]:
        """The next resources, in order of their names; one alone while a refused response is being taken apart.

        An empty response if there is nothing to send to a client that waits for its first; not unless it `is_known`
        that there is nothing.
        """
        if self.in_flight is not None or not (self.due or (self.unheard and is_known)):
            return self, None
        names = [min(self.alone)] if self.alone else nsmallest(LONGEST_RESPONSE, self.due)
        put: list[Resource] = []
        size = 0
        for name in names:
            resource = wanted[name]
            size += len(resource.body)
            if put and size > LARGEST_RESPONSE:
                break
            put.append(resource)
        due, again, alone = self.due, self.again, self.alone
        for resource in put:
            name = resource.name
            due, again, alone = due.discard(name), again.discard(name), alone.discard(name)
        flight = InFlight(nonce, put={resource.name: resource.version for resource in put})
        lane = replace(self, due=due, again=again, alone=alone, in_flight=flight, unheard=False)
        return lane, Response(self.type_url, nonce, put=tuple(put))

    def next_removal(self, nonce: str, may_go: Iterable[str]) -> tuple[Lane, Response | None]:
        if self.in_flight is not None:
            return self, None
        names = tuple(nsmallest(LONGEST_RESPONSE, may_go))
        if not names:
            return self, None
        gone, again = self.gone, self.again
        for name in names:
            gone, again = gone.discard(name), again.discard(name)
        flight = InFlight(nonce, removed=frozenset(names))
        lane = replace(self, gone=gone, again=again, in_flight=flight)
        return lane, Response(self.type_url, nonce, removed=names)

    def answered(self, error: str | None, wanted: Mapping[str, Resource]) -> Lane:
        """The client accepted (`error` is None) or refused what is in flight. A removal cannot be refused."""
        flight = self.in_flight
        if flight is None:
            return self
        if error is None or flight.removed:
            return self._accepted(flight)
        return self._refused(flight, error, wanted)

    def _accepted(self, flight: InFlight) -> Lane:
        known, rejected = self.known, self.rejected
        for name, version in flight.put.items():
            rejected = rejected.discard(name)
            if self.wants(name):
                known = known.insert(name, version)
        for name in flight.removed:
            known = known.discard(name)
        return replace(self, known=known, rejected=rejected, in_flight=None)

    def _refused(self, flight: InFlight, error: str, wanted: Mapping[str, Resource]) -> Lane:
        """The only resource of a response is refused itself; of several it is not known what became of each."""
        rejected, again, alone = self.rejected, self.again, self.alone
        for name, version in flight.put.items():
            if not self.wants(name):
                continue
            if len(flight.put) == 1:
                rejected = rejected.insert(name, Rejected(version, error[:LONGEST_ERROR]))
            else:
                again, alone = again.insert(name), alone.insert(name)
        lane = replace(self, in_flight=None, rejected=rejected, again=again, alone=alone)
        for name in flight.put:
            lane = lane.look(name, wanted.get(name))
        return lane
