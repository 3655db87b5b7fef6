"""Looks at Envoy several times a second, and says what it sees as a report for the agent."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from federation.clock import Clock
from gateway.credential import Presented
from gateway.envoy.admin import Admin
from gateway.envoy.answers import ServerInfo
from gateway.errors import EnvoyAdminError
from gateway.health import WATCHED, Health, health
from gateway.report_pb2 import Backends, BundleVersion, GatewayReport
from gateway.report_pb2 import Path as PathReport
from gateway.settings import GatewaySettings
from gateway.xds.latest import Latest

INTERVAL = 0.25
"""Seconds between two looks."""

SHARE = 10
"""A look that takes long is followed by a pause of so many times its length, so that Envoy has time for its work."""

LONGEST_PAUSE = 2.0

log = structlog.get_logger()


class Watch:
    """`reports` has the newest report, a new object only when something changed."""

    def __init__(
        self,
        settings: GatewaySettings,
        gateway_class: str,
        presented: Callable[[], Presented],
        admin: Admin,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._gateway_class = gateway_class
        self._presented = presented
        self._admin = admin
        self._clock = clock
        self.info = ServerInfo()
        self.health = Health()
        self.draining = False
        self.reports = Latest(self._report())

    @property
    def live(self) -> bool:
        """Envoy has its configuration and serves."""
        return self.info.state == "LIVE"

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            began = self._clock.monotonic()
            await self.look()
            took = self._clock.monotonic() - began
            pause = max(INTERVAL, min(SHARE * took, LONGEST_PAUSE)) if self.live else INTERVAL
            await self._clock.sleep(pause)

    async def look(self) -> None:
        """Once. An Envoy that does not answer is not live; what it said of others before stays."""
        try:
            if await self._admin.state() != self.info.state:
                self.info = await self._admin.info()
            self.health = health(await self._admin.clusters(WATCHED))
        except EnvoyAdminError as error:
            log.debug("Envoy does not answer", reason=str(error))
            self.info = ServerInfo(version=self.info.version)
        self.tell()

    def drain(self) -> None:
        self.draining = True
        self.tell()

    def tell(self) -> None:
        """Publish the report if it differs from the last one."""
        report = self._report()
        if report != self.reports.value:
            self.reports.publish(report)

    def _report(self) -> GatewayReport:
        settings, presented = self._settings, self._presented()
        return GatewayReport(
            instance=settings.name,
            address=settings.advertise.host,
            port=settings.advertise.port,
            bind=settings.bind,
            bind_port=settings.bind_port,
            state=GatewayReport.STATE_DRAINING if self.draining else GatewayReport.STATE_SERVING,
            paths=[
                PathReport(cluster=p.cluster, healthy=p.healthy, total=p.total) for p in self.health.paths
            ],
            backends=[
                Backends(namespace=f.service.namespace, name=f.service.name, port=f.port, failed=f.addresses)
                for f in self.health.failed
            ],
            envoy_version=self.info.release,
            envoy_live=self.live,
            certificate_not_after_ms=int(presented.ends.timestamp() * 1000),
            issuer=presented.issuer,
            bundle=BundleVersion(generation=presented.bundle[0], sequence=presented.bundle[1]),
            **{"class": self._gateway_class},
        )
