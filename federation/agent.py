"""The single writer of an agent: events in, one view, and what follows from it handed to the shells.

Events are collected while a step runs and taken in together by the next one, so a burst costs one decision. Nothing is
sent to a gateway before there is something true to say: the local services are listed and the registry knows us.
Silence before that is not emptiness.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog
from rpds import HashTrieMap

from federation import decide
from federation.clock import Clock
from federation.decide import Decisions
from federation.events import Event, LocalChanged, Tick
from federation.knowledge import Knowledge, Remembered
from federation.model import Me, Service, View
from federation.own import Fact, own_cluster, owned_by_service
from federation.reduce import reduce
from federation.telemetry import AgentMetrics
from gateway import compile as compiler
from gateway.check import Checked, check
from gateway.compile import Compiled, Place
from gateway.snapshot import Snapshot
from gateway.tuning import Tuning

TICK = 1.0
"""Seconds between two `Tick` events."""

log = structlog.get_logger()


class Publisher(Protocol):
    """Where our own facts go: each key once, newest state wins; `complete` says that all were set once."""

    def set(self, key: str, value: Fact) -> None: ...

    def remove(self, key: str) -> None: ...

    def complete(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outlets:
    """What an agent does with its decisions."""

    publisher: Publisher
    publish_snapshots: Callable[[Mapping[Place, Snapshot]], None]


class Agent:
    """Holds the only mutable state. Everybody else receives values, and submits events."""

    def __init__(
        self, view: View, tuning: Tuning, knowledge: Knowledge, outlets: Outlets, metrics: AgentMetrics
    ) -> None:
        self.decisions: Decisions = decide.start(view)
        self.decided_at: datetime = view.now
        self.compiled: Compiled = compiler.start(self.decisions.fabric, tuning)
        self.listed = False
        self._knowledge = knowledge
        self._outlets = outlets
        self._metrics = metrics
        self._inbox: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._pending: set[Service] = set(self.decisions.services)
        self._published: dict[Service, frozenset[str]] = {}
        self.spoken = asyncio.Event()
        """Set when the first word, to gateways and to others, is complete."""
        self._checked: dict[Place, Checked] = {}
        self.withheld: tuple[str, ...] = ()

    @property
    def view(self) -> View:
        return self.decisions.view

    def submit(self, *events: Event) -> None:
        """Take events in; they are decided on soon, together with whatever else comes meanwhile."""
        self._inbox.extend(events)
        self._wake.set()

    def services_listed(self) -> None:
        """The first full look at the local services is over: from now on our word is complete."""
        self.listed = True
        self._wake.set()

    @property
    def speaks(self) -> bool:
        """Whether there is something true to tell: to gateways, and to others."""
        return self.listed and self.view.me.name in self.view.members

    async def run(self, clock: Clock) -> None:
        """Decide for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(clock), name="agent-tick")
            while True:
                await self._wake.wait()
                self._wake.clear()
                self.catch_up()
                await asyncio.sleep(0)

    async def _tick(self, clock: Clock) -> None:
        last = clock.monotonic()
        while True:
            await clock.sleep(TICK)
            now = clock.monotonic()
            self.submit(Tick(clock.now(), now - last))
            last = now

    def catch_up(self) -> None:
        """Decide on all that was submitted so far, for a caller who needs it now."""
        events = tuple(self._inbox)
        self._inbox.clear()
        self.step(events)

    def step(self, events: Iterable[Event]) -> None:
        """Take events in, decide, and hand out what follows."""
        began = time.perf_counter()
        before = self.view
        events = tuple(events)
        for event in events:
            self._metrics.events.labels(type(event).__name__).inc()
            if not isinstance(event, Tick):
                log.debug("event", what=str(event))
        step = decide.advance(self.decisions, events)
        self.decisions = step.after
        self._remember(before, step.touched)
        self._pending |= step.changed
        if step.changed:
            self.decided_at = self.view.now
            self._metrics.decided.inc(len(step.changed))
        if self.speaks:
            self._publish_facts(before, step.touched)
            self._publish_snapshots()
            self.spoken.set()
            if step.changed:
                self._metrics.decision.observe(time.perf_counter() - began)

    def _remember(self, before: View, touched: Iterable[Service]) -> None:
        """Note what has to survive a restart. Maps that are the same object did not change."""
        view = self.view
        if before.ports is not view.ports:
            for service in {*touched, *(service for service, _ in before.released)}:
                if before.ports.get(service) is not view.ports.get(service):
                    self._knowledge.listen(service, view.ports.get(service))
        if before.first_exported is not view.first_exported:
            for service in touched:
                if before.first_exported.get(service) is not view.first_exported.get(service):
                    self._knowledge.exported_first(service, view.first_exported.get(service))
        if before.local is not view.local:
            for service in touched:
                if before.local.get(service) is not view.local.get(service):
                    self._knowledge.local(service, view.local.get(service))
        if before.gateways is not view.gateways:
            for name in {*before.gateways, *view.gateways}:
                if before.gateways.get(name) != view.gateways.get(name):
                    self._knowledge.gateway(name, view.gateways.get(name))

    def _publish_facts(self, before: View, touched: Iterable[Service]) -> None:
        first = not self.spoken.is_set()
        for service in self.view.by_cluster.get(self.view.me.name, ()) if first else touched:
            self._publish_service(service)
        if first or before.gateways is not self.view.gateways or before.members is not self.view.members:
            self._outlets.publisher.set("cluster", own_cluster(self.view))
        if first:
            self._outlets.publisher.complete()

    def _publish_service(self, service: Service) -> None:
        owned = owned_by_service(self.view, service)
        for key in self._published.pop(service, frozenset()) - owned.keys():
            self._outlets.publisher.remove(key)
        for key, fact in owned.items():
            self._outlets.publisher.set(key, fact)
        if owned:
            self._published[service] = frozenset(owned)

    def _publish_snapshots(self) -> None:
        services = self.decisions.services
        plans = {name: found.plans if (found := services.get(name)) else () for name in self._pending}
        if not plans and self.decisions.fabric == self.compiled.fabric:
            self.withheld = ()
            return
        compiled = compiler.compile_step(self.compiled, plans, self.decisions.fabric)
        checked = {
            place: check(snapshot, self._checked.get(place)) for place, snapshot in compiled.snapshots.items()
        }
        before = self.withheld
        self.withheld = tuple(sorted({str(problem) for one in checked.values() for problem in one.problems}))
        if self.withheld:
            if self.withheld != before:
                log.error("snapshots that do not pass their check are not sent", problems=self.withheld)
            return
        self._checked = checked
        self.compiled = compiled
        self._pending.clear()
        self._outlets.publish_snapshots(dict(compiled.snapshots.items()))


def remembered_view(me: Me, remembered: Remembered, heard: Iterable[Event], now: datetime) -> View:
    """The view that an agent starts with: what it knew when it stopped, before anybody has spoken.

    `heard` are the events of `remembered.heard`, decoded. Local services stay until discovery has said what became of
    them: a file that cannot be read any more is no deletion.
    """
    view = View(
        me=me,
        now=now,
        ports=HashTrieMap({service: HashTrieMap(ports) for service, ports in remembered.ports.items()}),
        first_exported=HashTrieMap(remembered.first_exported),
        gateways=HashTrieMap(remembered.gateways),
    )
    for event in (*heard, *map(LocalChanged, remembered.local.values())):
        view, _ = reduce(view, event)
    return view
