"""What a gateway process shows of itself: health and metrics on its telemetry port, and its state on a unix socket.

Reads and changes nothing. There is no remote access: whoever may open the socket may look.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from federation.api.messages import RejectedResource
from federation.api.routes import Access, Call, Principal, Route
from federation.api.server import (
    TcpDoor,
    UnixDoor,
    api_application,
    health_application,
    serving,
    with_health,
)
from federation.telemetry import GatewayMetrics
from gateway.envoy.admin import Admin
from gateway.envoy.process import EnvoyProcess
from gateway.errors import EnvoyAdminError
from gateway.identity import GatewayIdentity
from gateway.relay import Relay
from gateway.settings import GatewaySettings
from gateway.snapshot import TYPES
from gateway.status import GatewayProcessStatus
from gateway.store import ResourceStore
from gateway.watch import Watch
from gateway.xds.client import Upstream


@dataclass(frozen=True, slots=True)
class Doors:
    """The parts of a gateway process that have something to tell."""

    settings: GatewaySettings
    identity: GatewayIdentity
    relay: Relay
    store: ResourceStore
    admin: Admin
    envoy: EnvoyProcess
    watch: Watch
    upstream: Upstream
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Answer for the life of the context. Raises FederationError for a socket or port that cannot be had."""
        route = Route(
            "GET", "/v1/status", "State of this gateway", Access.VIEWER, self.status, GatewayProcessStatus
        )
        api = api_application("federation gateway", version("federation"), (route,), _Nobody())
        looks = (self.healthy, self.ready, self.exposition)
        async with (
            serving(with_health(api, health_application(*looks)), UnixDoor(self.settings.api_socket)),
            serving(health_application(*looks), TcpDoor(self.settings.telemetry)),
        ):
            yield

    async def healthy(self) -> tuple[bool, dict[str, Any]]:
        return True, {"status": "ok"}

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready is a gateway that serves: a problem alone does not take it out of service."""
        return self.watch.live and not self.watch.draining, {
            "envoy": self.watch.info.state or "down",
            "draining": self.watch.draining,
            "agent": self.upstream.connected,
            "problems": self.problems(),
        }

    async def exposition(self) -> bytes:
        """Our metrics, and Envoy's if it answers."""
        metrics = self.metrics
        metrics.envoy_up.set(self.watch.live)
        metrics.envoy_failing.set(bool(self._envoy_problem()))
        metrics.crashes.set(self.envoy.crashes)
        metrics.agent_up.set(self.upstream.connected)
        metrics.resources.set(self._resources())
        metrics.rejected.set(len(self.relay.rejected))
        metrics.store_damaged.set(self.store.set_aside is not None)
        metrics.store_failing.set(bool(self.relay.store_problem))
        metrics.renewal_failing.set(bool(self.identity.problem))
        metrics.certificate.set(self.identity.current.ends.timestamp())
        try:
            return metrics.render() + await self.admin.prometheus()
        except EnvoyAdminError:
            return metrics.render()

    async def status(self, _: Call) -> GatewayProcessStatus:
        credential = self.identity.current
        return GatewayProcessStatus(
            version=version("federation"),
            pid=os.getpid(),
            name=self.settings.name,
            cluster=credential.cluster,
            gateway_class=credential.gateway_class,
            state="draining" if self.watch.draining else "serving",
            agent_connected=self.upstream.connected,
            agent=credential.attested.xds,
            envoy_pid=self.envoy.pid,
            envoy_live=self.watch.live,
            envoy_version=self.watch.info.release,
            envoy_crashes=self.envoy.crashes,
            admin=str(self.settings.admin_socket),
            resources=self._resources(),
            rejected=tuple(
                RejectedResource(type=kind.rpartition(".")[2], name=name, error=error)
                for (kind, name), error in sorted(self.relay.rejected.items())
            ),
            certificate_expires_at=credential.ends,
            problems=self.problems(),
        )

    def problems(self) -> tuple[str, ...]:
        """Sentences for people; none if all is well."""
        aside = self.store.set_aside
        found = (
            self._envoy_problem(),
            f"no stream to the agent: {self.upstream.problem}" if not self.upstream.connected else "",
            f"the stored configuration was damaged and is kept as {aside}" if aside else "",
            self.relay.store_problem,
            self.identity.problem,
        )
        return tuple(problem for problem in found if problem)

    def _envoy_problem(self) -> str:
        return "" if self.watch.live else self.envoy.problem

    def _resources(self) -> int:
        return sum(len(self.relay.accepted.of(kind)) for kind in TYPES)


class _Nobody:
    """There is no remote access to a gateway process."""

    async def certificate(self, der: bytes) -> Principal | None:
        return None

    async def bearer(self, secret: str) -> Principal | None:
        return None
