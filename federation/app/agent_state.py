"""How an agent is, put together from what its parts know: status, checks, health and metrics.

Nothing is kept here and nothing is decided: each answer is made when somebody asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from itertools import groupby
from typing import Any

from federation import admit
from federation.agent import Agent
from federation.api.messages import AgentStatus, CheckGroup, PeerStatus, RotationStatus
from federation.checks import agent_checks
from federation.clock import Clock
from federation.discovery.files import FileDiscovery
from federation.gateways import Gateways
from federation.identity import Identity
from federation.inputs import ban_of, standing
from federation.knowledge import Knowledge
from federation.listen import HostPort
from federation.own import gateways_held_back, held_back
from federation.sync.client import SyncClient
from federation.sync.publisher import Publisher
from federation.telemetry import AgentMetrics
from pki.lineage import Lineage

MOST_PROBLEMS = 200
"""Lines that a status tells; more of them say nothing new."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """Whom to ask. `hub` is the address of its sync port; certificates of this cluster live for `leaf_life`; `unsigned`
    says why nothing can be signed, `doubted` what is wrong with journals of others, `rotation` how the rotation of its
    authority stands."""

    agent: Agent
    gateways: Gateways
    discovery: FileDiscovery
    publisher: Publisher
    knowledge: Knowledge
    sync: SyncClient
    identity: Identity
    authority: Lineage
    hub: HostPort
    leaf_life: timedelta
    metrics: AgentMetrics
    clock: Clock
    rotation: Callable[[], RotationStatus]
    unsigned: Callable[[], Iterable[str]] = tuple
    doubted: Callable[[], Iterable[str]] = tuple

    def status(self) -> AgentStatus:
        view = self.agent.view
        return AgentStatus(
            version=version("federation"),
            pid=os.getpid(),
            cluster=view.me.name,
            region=view.me.region,
            hub_connected=self.sync.connected,
            hub=str(self.hub),
            hub_problem="" if self.sync.connected else self.sync.problem or "",
            services=len(self.agent.decisions.services),
            exports=len(view.by_cluster.get(view.me.name, ())),
            gateways=self.gateways.status(),
            peers=tuple(self._peers()),
            problems=self._problems(),
            certificate_expires_at=self.identity.current.certificate.not_valid_after_utc,
            authority_expires_at=min(form.not_valid_after_utc for form in self.authority.forms),
            behind=self.gateways.behind(),
            rotations=(rotation,) if (rotation := self.rotation()).running else (),
        )

    def checks(self) -> tuple[CheckGroup, ...]:
        return agent_checks(self.status(), self.clock.now(), self.leaf_life)

    async def forget_gateway(self, name: str) -> bool:
        return await self.gateways.forget(name)

    def _peers(self) -> Iterator[PeerStatus]:
        view = self.agent.view
        for name, member in sorted(view.members.items()):
            how = standing(view, name)
            if how is None or name == view.me.name:
                continue
            lease, ban = view.leases.get(name), ban_of(view, member)
            yield PeerStatus(
                name=name,
                region=how.region,
                state=how.state.value,
                lease=how.freshness.value,
                silence=lease.silence if lease else None,
                path=how.path.value,
                trusted=how.trusted,
                banned="" if ban is None else str(ban),
            )

    def _problems(self) -> tuple[str, ...]:
        """What is wrong, each once, what concerns all first; what is too much to be read is cut."""
        found: dict[str, None] = {}
        for problem in self._all_problems():
            if len(found) == MOST_PROBLEMS and problem not in found:
                return (*found, f"there are more than these {MOST_PROBLEMS}")
            found[problem] = None
        return tuple(found)

    def _all_problems(self) -> Iterator[str]:
        if not (self.agent.serving and self.agent.telling):
            what = "the others are not told yet" if self.agent.serving else "gateways are not served yet"
            yield from (f"{what}: waiting for {reason}" for reason in self._waiting_for())
        if self.knowledge.problem:
            yield self.knowledge.problem
        if self.authority.root_signed is None:
            yield (
                "the root, which is offline, has not signed our authority: whoever does not believe us yet waits for "
                "that; `federation ca request` at the hub, or here"
            )
        yield from self.unsigned()
        yield from self.doubted()
        if self.sync.connected and self.sync.problem:
            yield f"hub: {self.sync.problem}"
        yield from (f"a snapshot is withheld: {problem}" for problem in self.agent.withheld)
        yield from map(str, self.discovery.problems())
        yield from self._held_back()
        for key, one in self.publisher.refused.items():
            yield f"the hub refuses {key}: {one.why.detail}"

    def _held_back(self) -> Iterator[str]:
        """What is not offered, and why: an address by the file and line that gives it, if there is one."""
        view = self.agent.view
        member = view.members.get(view.me.name)
        if member is None:
            return
        for gateway, refused in gateways_held_back(view):
            told = f"gateway {gateway.name} is not offered to other clusters: {refused.detail}"
            mend = (
                f"; change its `advertise`, or on the hub `federation cluster set {view.me.name} --range …`"
            )
            yield told + (mend if refused.rule == admit.ADDRESS else "")
        for service, reasons in groupby(held_back(view), key=lambda one: one[0]):
            located = self.discovery.outside(service, member.ranges)
            yield from map(str, located)
            for _, refused in reasons:
                if refused.rule != admit.ADDRESS or not located:
                    yield f"{service}: {refused.detail}"

    async def healthy(self) -> tuple[bool, dict[str, Any]]:
        return True, {"healthy": True}

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        serves = self.agent.serving and self.agent.telling
        waiting = [] if serves else list(self._waiting_for())
        waiting += (f"nothing can be signed: {problem}" for problem in self.unsigned())
        ready = serves and not waiting
        return ready, {"ready": ready, "waiting_for": waiting}

    def _waiting_for(self) -> Iterator[str]:
        """Why gateways are not served yet, or the others not told what we own."""
        agent = self.agent
        if not agent.listed:
            yield "local services"
        if agent.view.me.name not in agent.view.members:
            yield "its own record from the hub"
        else:
            yield from agent.opening.reasons()
        if self.knowledge.problem:
            yield f"its disk: {self.knowledge.problem}"
        if agent.withheld:
            yield "a configuration that passes its check"

    async def exposition(self) -> bytes:
        view, metrics = self.agent.view, self.metrics
        metrics.hub_up.set(self.sync.connected)
        metrics.services.set(len(self.agent.decisions.services))
        metrics.gateways.set(self.gateways.connected)
        metrics.silence.clear()
        for name, lease in view.leases.items():
            metrics.silence.labels(name).set(lease.silence)
        metrics.rejected.set(sum(len(gateway.rejected) for gateway in self.gateways.status()))
        metrics.problems.set(len(self.discovery.problems()))
        metrics.rotation.show(self.rotation())
        return metrics.render()
