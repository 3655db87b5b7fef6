"""The single writer of an agent: events in, one view, and what follows from it handed to the shells.

Events are collected while a step runs and taken in together by the next one, so a burst costs one decision. What was
decided goes out after one write of the facts behind it. When the disk takes no more, what begins (`begun`) waits, so
that no crash takes it back, and all else goes out: what was closed must not stay open because a disk is full.

Nothing is said before there is something true to say: the local services are listed, the registry knows us, and all
have been heard whom `opening` names. Silence before that is not emptiness. Whoever was told from this memory before may
be told at once, without what begins; to all others a first word is whole, because what it leaves out counts as gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import structlog
from rpds import HashTrieMap

from federation import decide
from federation.begun import Begun, begun
from federation.clock import Clock
from federation.decide import Decisions
from federation.events import Event, LocalChanged, Tick
from federation.knowledge import Knowledge, Remembered
from federation.model import Me, Service, View
from federation.opening import Known, Opening
from federation.own import Fact, own_cluster, owned_by_service
from federation.reduce import reduce
from federation.route import PortPlan
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


def _nobody_asks() -> None:
    """For an agent without doors."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """What an agent does with its decisions. `bans_changed` is called when somebody may have to be cut off."""

    publisher: Publisher
    publish_snapshots: Callable[[Mapping[Place, Snapshot]], None]
    bans_changed: Callable[[], None] = _nobody_asks


class Agent:
    """Holds the only mutable state. Everybody else receives values, and submits events."""

    def __init__(
        self,
        view: View,
        opening: Opening,
        known: Callable[[], Known],
        tuning: Tuning,
        knowledge: Knowledge,
        outlets: Outlets,
        metrics: AgentMetrics,
    ) -> None:
        self.decisions: Decisions = decide.start(view)
        self.decided_at: datetime = view.now
        self.compiled: Compiled = compiler.start(self.decisions.fabric, tuning)
        self.opening = opening
        self.listed = False
        self.serving = False
        """Whether gateways get what was decided. Once they do, they always will."""
        self.telling = False
        """Whether the others have been told all that we own."""
        self.withheld: tuple[str, ...] = ()
        self._known = known
        self._knowledge = knowledge
        self._outlets = outlets
        self._metrics = metrics
        self._inbox: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._began: float | None = None
        """When the first of the events came that are decided on and not handed out, by `perf_counter`."""
        self._unwritten = Begun()
        """What began and may not be on disk yet."""
        self._uncompiled: set[Service] = set(self.decisions.services)
        self._untold: set[Service] = set()
        self._told = view
        self._published: dict[Service, frozenset[str]] = {}
        self._checked: dict[Place, Checked] = {}

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

    def keeps_bundle(self, owner: str) -> bool:
        """As `Knowledge.keeps_bundle`."""
        return self._knowledge.keeps_bundle(owner)

    @property
    def speaks(self) -> bool:
        """Whether we know what there is to tell of ourselves."""
        return self.listed and self.view.me.name in self.view.members

    async def run(self, clock: Clock) -> None:
        """Decide for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(clock), name="agent-tick")
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._take_in(self._drained())
                noted = self._unwritten
                if await self._knowledge.write():
                    self._written(noted)
                self._hand_out()
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
        self._take_in(self._drained())
        self._hand_out()

    def step(self, events: Iterable[Event]) -> None:
        """Take events in, decide, and hand out what follows, whatever the disk holds: for who keeps no memory."""
        self._take_in(tuple(events))
        self._written(self._unwritten)
        self._hand_out()

    def _drained(self) -> tuple[Event, ...]:
        events = tuple(self._inbox)
        self._inbox.clear()
        return events

    def _take_in(self, events: tuple[Event, ...]) -> None:
        began = time.perf_counter()
        before = self.view
        for event in events:
            self._metrics.events.labels(type(event).__name__).inc()
            if not isinstance(event, Tick):
                log.debug("event", what=str(event))
        step = decide.advance(self.decisions, events)
        self.decisions = step.after
        if before.bans is not self.view.bans:
            self._outlets.bans_changed()
        self._remember(before, step.touched)
        self._uncompiled |= step.changed
        self._untold |= step.touched
        if not (self.serving and self.telling):
            for elapsed in [event.elapsed for event in events if isinstance(event, Tick)] or [0.0]:
                self._wait(elapsed)
        if step.changed:
            self.decided_at = self.view.now
            self._metrics.decided.inc(len(step.changed))
            self._began = self._began or began

    def _wait(self, elapsed: float) -> None:
        known, before = self._known(), self.opening
        self.opening = before.advance(self.view, known, elapsed)
        gone = (before.unheard - self.opening.unheard - known.owners) & frozenset(self.view.members)
        if gone and not before.served:
            log.warning("gateways are served without what these clusters export", unheard=sorted(gone))

    def _written(self, what: Begun) -> None:
        """`what` began and is on disk now: it may go out."""
        self._untold |= what.exports
        self._uncompiled |= {service for service, _ in what.ports}
        self._unwritten -= what

    def _hand_out(self) -> None:
        """Tell the others and our gateways what was decided."""
        began, self._began = self._began, None
        if not self.speaks:
            return
        opening, whole = self.opening, not self._unwritten
        if opening.may_tell and (opening.told or whole):
            self._publish_facts()
        if opening.may_serve and (opening.served or whole):
            self._publish_snapshots()
        if self.telling and not opening.told:
            self._knowledge.told()
        if self.serving and not opening.served:
            self._knowledge.served()
        self.opening = replace(
            opening, served=opening.served or self.serving, told=opening.told or self.telling
        )
        if began is not None and self.serving:
            self._metrics.decision.observe(time.perf_counter() - began)

    def _remember(self, before: View, touched: Iterable[Service]) -> None:
        """Note what has to survive a restart. Maps that are the same object did not change."""
        view = self.view
        self._unwritten |= begun(before, view, touched)
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
        if before.heads is not view.heads:
            for (owner, authority), kept in view.heads.items():
                if before.heads.get((owner, authority)) != kept:
                    self._knowledge.head(owner, kept)
        if before.gateways is not view.gateways:
            for name in {*before.gateways, *view.gateways}:
                if before.gateways.get(name) != view.gateways.get(name):
                    self._knowledge.gateway(name, view.gateways.get(name))

    def _publish_facts(self) -> None:
        view, told = self.view, self._told
        first = not self.telling
        for service in view.by_cluster.get(view.me.name, ()) if first else self._untold:
            self._publish_service(service)
        if first or told.gateways is not view.gateways or told.members is not view.members:
            self._outlets.publisher.set("cluster", own_cluster(view))
        if first:
            self._outlets.publisher.complete()
            self.telling = True
        self._untold = set()
        self._told = view

    def _publish_service(self, service: Service) -> None:
        owned = owned_by_service(self.view, service)
        if owned and service in self._unwritten.exports:
            return
        for key in self._published.pop(service, frozenset()) - owned.keys():
            self._outlets.publisher.remove(key)
        for key, fact in owned.items():
            self._outlets.publisher.set(key, fact)
        if owned:
            self._published[service] = frozenset(owned)

    def _publish_snapshots(self) -> None:
        plans = {service: self._plans(service) for service in self._uncompiled}
        if not plans and self.decisions.fabric == self.compiled.fabric:
            self.withheld = ()
            self.serving = True
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
        self._uncompiled = set()
        self.serving = True
        self._outlets.publish_snapshots(dict(compiled.snapshots.items()))

    def _plans(self, service: Service) -> tuple[PortPlan, ...]:
        """What gateways may have of `service`: no port that is not on disk, unless they have it already."""
        decided = self.decisions.services.get(service)
        if decided is None:
            return ()
        held, _ = self.compiled.services.get(service) or ((), None)
        there = {(plan.port.number, plan.listen_port) for plan in held}
        return tuple(
            plan
            for plan in decided.plans
            if (plan.port.number, plan.listen_port) in there
            or (service, plan.port.number) not in self._unwritten.ports
        )


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
        heads=HashTrieMap(remembered.heads),
    )
    for event in (*heard, *map(LocalChanged, remembered.local.values())):
        view, _ = reduce(view, event)
    return view
