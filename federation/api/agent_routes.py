"""What an agent answers: its gateways' tokens and certificates, its services, its plans and its state."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol

from federation.agent import Agent
from federation.api.messages import (
    AgentStatus,
    CheckGroup,
    CreatedToken,
    Done,
    ExporterInfo,
    NewToken,
    PortInfo,
    Redeem,
    Redeemed,
    Renew,
    Renewed,
    ServiceInfo,
    TokenInfo,
)
from federation.api.routes import Access, ApiProblem, Call, Route, not_found
from federation.api.token_info import token_info
from federation.attest import Attestor
from federation.clock import Clock
from federation.decide import Decided
from federation.explain import Explained, explain
from federation.listen import HostPort, is_unspecified
from federation.model import Service, View
from federation.tokens import TokenStore
from pki.policy import GATEWAY_CLASSES


class Reporter(Protocol):
    """Puts together what the agent's shells know of their state."""

    def status(self) -> AgentStatus: ...

    def checks(self) -> tuple[CheckGroup, ...]: ...

    async def forget_gateway(self, name: str) -> bool: ...


class AgentRoutes:
    """The routes of one agent."""

    def __init__(
        self, agent: Agent, attestor: Attestor, tokens: TokenStore, reporter: Reporter, clock: Clock
    ) -> None:
        self._agent = agent
        self._attestor = attestor
        self._tokens = tokens
        self._reporter = reporter
        self._clock = clock

    def routes(self) -> tuple[Route, ...]:
        see, do = Access.VIEWER, Access.OPERATOR
        at = "/v1/services/{namespace}/{name}"
        why = "/v1/explain/{namespace}/{name}"
        return (
            Route("POST", "/v1/attest", "Redeem a one-time token", Access.OUTCOME, self.attest, Redeemed, Redeem),
            Route("POST", "/v1/renew", "Renew the certificate shown", Access.PEER, self.renew, Renewed, Renew),
            Route("GET", "/v1/status", "State of this agent", see, self.status, AgentStatus),
            Route("GET", "/v1/checks", "What is right and wrong", see, self.checks, tuple[CheckGroup, ...]),
            Route("GET", "/v1/services", "All services", see, self.services, tuple[ServiceInfo, ...], query=("from",)),
            Route("GET", at, "One service", see, self.service, ServiceInfo, query=("from",)),
            Route("GET", why, "Where requests go, and why", see, self.explain, Explained, query=("from",)),
            Route("GET", "/v1/tokens", "Tokens", do, self.tokens, tuple[TokenInfo, ...]),
            Route("POST", "/v1/tokens", "Make a token", do, self.create_token, CreatedToken, NewToken,
                  told=("id", "subject")),
            Route("DELETE", "/v1/tokens/{id}", "Revoke a token", do, self.revoke_token, Done),
            Route("DELETE", "/v1/gateways/{name}", "Forget a gateway", do, self.forget_gateway, Done),
        )  # fmt: skip

    async def attest(self, call: Call) -> Redeemed:
        return await self._attestor.attest(call.body)

    async def renew(self, call: Call) -> Renewed:
        caller = call.principal
        assert caller.identity is not None
        assert caller.certificate is not None
        return Renewed(
            certificates=(await self._attestor.renew(call.body.csr, caller.identity, caller.certificate),)
        )

    async def status(self, _: Call) -> AgentStatus:
        return self._reporter.status()

    async def checks(self, _: Call) -> tuple[CheckGroup, ...]:
        return self._reporter.checks()

    async def services(self, call: Call) -> tuple[ServiceInfo, ...]:
        self._refuse_others(call)
        decided = self._agent.decisions.services
        return tuple(service_info(self._agent.view, decided[service]) for service in sorted(decided))

    async def service(self, call: Call) -> ServiceInfo:
        return service_info(self._agent.view, self._decided(call))

    async def explain(self, call: Call) -> Explained:
        found = self._decided(call)
        return explain(found.inputs, found.imported, found.plans)

    async def tokens(self, _: Call) -> tuple[TokenInfo, ...]:
        return tuple(token_info(record, self._clock.now()) for record in await self._tokens.listed())

    async def create_token(self, call: Call) -> CreatedToken:
        body: NewToken = call.body
        lifetime = timedelta(seconds=body.lifetime)
        for_one = (body.gateway_class is None) != (body.workload is None)
        if not for_one or body.cluster or body.may_export or body.ranges:
            raise ApiProblem(
                400,
                "bad-body",
                "an agent makes tokens for gateways and for workloads",
                "give gateway_class or workload alone, as `federation token create --gateway` or `--workload` does",
            )
        if body.workload is not None:
            text, record = await self._attestor.create_for_workload(_path_of(body.workload), lifetime)
        elif body.gateway_class in GATEWAY_CLASSES:
            text, record = await self._attestor.create(body.gateway_class, lifetime)
        else:
            allowed = ", ".join(sorted(GATEWAY_CLASSES))
            raise ApiProblem(400, "bad-body", f"gateway_class: {body.gateway_class!r}", f"allowed: {allowed}")
        return CreatedToken(id=record.id, token=text, subject=record.subject, expires_at=record.not_after)

    async def revoke_token(self, call: Call) -> Done:
        if await self._tokens.revoke(call.params["id"]) is None:
            raise not_found("token", call.params["id"], "see `federation token list`")
        return Done(done=f"token {call.params['id']} is revoked")

    async def forget_gateway(self, call: Call) -> Done:
        name = call.params["name"]
        if not await self._reporter.forget_gateway(name):
            raise not_found(
                "gateway", name, "see `federation status`; one that is connected cannot be forgotten"
            )
        return Done(done=f"gateway {name} is forgotten")

    def _decided(self, call: Call) -> Decided:
        self._refuse_others(call)
        service = Service(call.params["namespace"], call.params["name"])
        found = self._agent.decisions.services.get(service)
        if found is None:
            raise not_found("service", str(service), "nobody exports it; see `federation service list`")
        return found

    def _refuse_others(self, call: Call) -> None:
        asked, me = call.query.get("from"), self._agent.view.me.name
        if asked is not None and asked != me:
            raise ApiProblem(
                400,
                "other-cluster",
                f"this is the agent of {me}, not of {asked}",
                f"ask {asked}'s agent, or the hub",
            )


def _path_of(workload: str) -> str:
    """The path of the SPIFFE ID of `namespace/service-account`. Raises ApiProblem."""
    namespace, slash, account = workload.partition("/")
    if not slash or "/" in account:
        raise ApiProblem(400, "bad-body", f"workload: {workload!r}", "allowed: namespace/service-account")
    return f"/ns/{namespace}/sa/{account}"


def service_info(view: View, found: Decided) -> ServiceInfo:
    """One service as this cluster sees it, with the addresses where its gateways offer it."""
    numbers = dict(found.inputs.listen_ports)
    hosts = tuple(_hosts(view))
    healthy: dict[str, tuple[int, int]] = {}
    for load in found.inputs.loads:
        before = healthy.get(load.cluster, (0, 0))
        healthy[load.cluster] = (before[0] + load.healthy, before[1] + load.total)
    return ServiceInfo(
        service=str(found.inputs.service),
        host=found.inputs.service.host,
        ports=tuple(
            PortInfo(
                name=port.name,
                port=port.number,
                protocol=port.protocol,
                reach=_reach(hosts, numbers.get(port.number)) if port.protocol == "TCP" else (),
            )
            for port in found.imported.ports
        ),
        exporters=tuple(
            ExporterInfo(cluster=spec.cluster, healthy=seen[0], total=seen[1], age=_age(view, spec.cluster))
            for spec in found.inputs.exports
            for seen in (healthy.get(spec.cluster, (0, 0)),)
        ),
        conflicts=tuple(
            f"{one.field}: {one.winner} says {one.kept}, {one.loser} says {one.dropped}"
            for one in found.imported.conflicts
        ),
    )


def _hosts(view: View) -> Iterator[str]:
    """Where our gateways listen for local clients; one that listens everywhere is reached where others dial it.

    Those that are silent count only while none reports.
    """
    serving = [gateway for _, gateway in sorted(view.gateways.items()) if gateway.serving]
    reporting = [gateway for gateway in serving if gateway.name in view.paths]
    for gateway in reporting or serving:
        yield gateway.address if is_unspecified(gateway.bind) else gateway.bind


def _reach(hosts: tuple[str, ...], number: int | None) -> tuple[str, ...]:
    return () if number is None else tuple(HostPort.of(host, number) for host in hosts)


def _age(view: View, cluster: str) -> float | None:
    lease = view.leases.get(cluster)
    return None if lease is None or cluster == view.me.name else lease.silence
