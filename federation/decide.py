"""From events to plans: fold, cut out inputs, and decide anew only where inputs differ.

The memo is the only cache, and it cannot go stale: its key is the whole value that may decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rpds import HashTrieMap

from federation.events import Event
from federation.inputs import FabricInputs, ServiceInputs, fabric, inputs
from federation.merge import Imported, merge
from federation.model import Service, View
from federation.reduce import reduce
from federation.route import PortPlan, route
from federation.touched import Everything


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided for one service, and all that it was decided from."""

    inputs: ServiceInputs
    imported: Imported
    plans: tuple[PortPlan, ...]


@dataclass(frozen=True, slots=True)
class Decisions:
    """A view and what follows from it; equal views give equal decisions, however they came about."""

    view: View
    fabric: FabricInputs
    services: HashTrieMap[Service, Decided] = field(default_factory=HashTrieMap)


@dataclass(frozen=True, slots=True)
class Step:
    """`touched`: what events may have changed; `changed`: what was decided anew (a gone service is among them)."""

    after: Decisions
    touched: frozenset[Service]
    changed: frozenset[Service]


def start(view: View) -> Decisions:
    """The decisions of a view from scratch."""
    nothing = Decisions(view, fabric(view))
    return _redecide(nothing, view, known_services(nothing, view)).after


def advance(before: Decisions, events: Iterable[Event]) -> Step:
    """Take all `events` in, then decide once. Its cost is that of the services they touch."""
    view = before.view
    touched: set[Service] = set()
    everything = False
    for event in events:
        view, affected = reduce(view, event)
        if isinstance(affected, Everything):
            everything = True
        else:
            touched |= affected
    return _redecide(before, view, known_services(before, view) if everything else frozenset(touched))


def known_services(decisions: Decisions, view: View) -> frozenset[Service]:
    """Every service that has, or may have to lose, a decision."""
    return frozenset(decisions.services) | frozenset(view.exports) | frozenset(view.local)


def _redecide(before: Decisions, view: View, touched: frozenset[Service]) -> Step:
    services = before.services
    changed: set[Service] = set()
    for service in touched:
        now = inputs(view, service)
        known = services.get(service)
        if known is not None and known.inputs == now:
            continue
        if now.exports or now.withheld:
            imported = merge(now)
            services = services.insert(service, Decided(now, imported, route(now, imported)))
            changed.add(service)
        elif known is not None:
            services = services.remove(service)
            changed.add(service)
    return Step(Decisions(view, fabric(view), services), touched, frozenset(changed))
