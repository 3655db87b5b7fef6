"""Where an agent is reached: by its gateways and workloads over gRPC, by people and gateways over REST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog

from federation.access import AgentAccess
from federation.api.routes import Route
from federation.api.server import (
    TcpDoor,
    UnixDoor,
    api_application,
    health_application,
    serving,
    with_health,
)
from federation.api.tls import served
from federation.app.agent_state import AgentState
from federation.app.gateway_reports import read_report
from federation.app.issuing_doors import IssuingDoors
from federation.clock import Clock
from federation.cluster_realm import ClusterRealm
from federation.config import AgentSettings
from federation.gateways import Gateways
from federation.identity import Identity
from federation.issuer import Issuer
from federation.svid.doors import Served
from federation.svid.server import Callers, SvidServer
from gateway.report_pb2 import GatewayReport
from gateway.xds.reports import ReportServer
from gateway.xds.server import AdsServer, Client, ServerCredentials, add_secure_port, new_server
from pki.bundle import encode
from pki.lineage import Lineage

log = structlog.get_logger()


class AgentDoors:
    """Those of the agent whose folder is `folder`."""

    def __init__(
        self,
        settings: AgentSettings,
        folder: Path,
        authority: Lineage,
        identity: Identity,
        issuer: Issuer,
        gateways: Gateways,
        realm: ClusterRealm,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._authority = authority
        self._identity = identity
        self._issuer = issuer
        self._gateways = gateways
        self._realm = realm
        self._clock = clock
        self._cuts: tuple[Callable[[Callable[[Client], str | None]], None], ...] = ()

    async def serve(self, routes: Iterable[Route], state: AgentState) -> None:
        """Keep them open until cancelled. Raises FederationError for one that cannot be opened."""
        listen, authority = self._settings.listen, self._authority
        access = AgentAccess(authority.bundle, self._clock.now, self._gateways.why_banned)
        api = api_application("federation agent", version("federation"), routes, access)
        health = partial(health_application, state.healthy, state.ready, state.exposition)
        tls = TcpDoor(listen.api, served(self._identity, authority.bundle))
        async with (
            self._xds(),
            serving(with_health(api, health()), UnixDoor(self._folder / "api.sock"), tls),
            serving(health(), TcpDoor(listen.telemetry)),
        ):
            log.info("agent runs", cluster=self._settings.cluster, api=str(listen.api), xds=str(listen.xds))
            await asyncio.Event().wait()

    def issuing(self) -> IssuingDoors | None:
        """The processes where workloads renew, if there are any besides this one."""
        wanted = self._settings.issuing.doors
        if wanted is None:
            return None
        path = self._folder / "doors.sock"
        return IssuingDoors(
            path, wanted.listen, wanted.processes, self._issuer.issue, self._served, self._clock
        )

    def cut_the_banned(self) -> None:
        """End the streams of those who are refused by now."""
        for cut in self._cuts:
            cut(self._gateways.refused)

    @asynccontextmanager
    async def _xds(self) -> AsyncIterator[None]:
        """The gRPC door for gateways, which report at once and get a configuration when there is a true one, and for
        workloads that renew.
        """
        gateways = self._gateways
        ads = AdsServer(
            gateways.authorize, gateways.choose, self._clock, gateways.stream_changed, gateways.stream_ended
        )
        reports = ReportServer(
            gateways.authorize,
            self._reported,
            gateways.fell_silent,
            lambda client: self._realm.word_for(client.instance),
        )
        self._realm.on_word = reports.tell
        self._cuts = (ads.cut, reports.cut)
        svids = SvidServer(Callers(self._authority.bundle, self._clock.now), self._issuer.issue)
        server = new_server(ads.handler(), reports.handler(), svids.handler())
        add_secure_port(server, self._settings.listen.xds, self._credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=0.5)

    def _reported(self, client: Client, message: GatewayReport) -> None:
        seen = read_report(client, message, self._clock.now())
        self._gateways.reported(client, seen.gateway, seen.report, seen.paths, seen.failed)

    def _served(self) -> Served:
        leaf = self._identity.current
        return Served(leaf.chain, leaf.key, encode(self._authority.bundle()))

    def _credentials(self) -> ServerCredentials:
        leaf = self._identity.current
        return ServerCredentials(leaf.chain, leaf.key, self._authority.bundle().pem())
