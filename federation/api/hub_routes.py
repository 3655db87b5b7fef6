"""What the hub answers: joins, the registry, and, through their streams, questions to the agents."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from federation.access import OperatorStore
from federation.admission import Admission, Joined
from federation.api.agents import ask_agent
from federation.api.messages import (
    Anchors,
    Check,
    CheckGroup,
    ClusterInfo,
    CreatedToken,
    Done,
    HubStatus,
    NewToken,
    Redeem,
    Redeemed,
    RotationStatus,
    ServiceInfo,
    SetCluster,
    TokenInfo,
)
from federation.api.operator_routes import OperatorRoutes
from federation.api.rotation_routes import STATUS as ROTATION
from federation.api.routes import Access, ApiProblem, Call, Route, not_found, turned_away
from federation.api.shown import cluster_info, united
from federation.api.token_info import token_info
from federation.attest import no_good, secret_of
from federation.clock import Clock
from federation.errors import Banned, FederationError
from federation.explain import Explained
from federation.hub import Hub, Known
from federation.model import MemberState
from federation.questions import Question
from federation.tokens import TokenStore
from pki import bundle as bundles
from pki.bundle import Bundle
from pki.certificate import load_der, pem
from pki.errors import InvalidName, VaultError
from pki.errors import Refused as CsrRefused
from pki.lineage import Lineage
from pki.offline import OfflineRoot
from pki.root_lineage import RootLineage
from pki.upstream import Root

WAIT_FOR_ROOT = "the token is as good as before; start the agent again once the root can sign"

AT_ONCE = 1.0
"""Seconds within which an agent says how its rotation stands, or is left out of a status."""

RIGHTS = ("may_export", "ranges", "state")
"""What is written to the log of what a cluster may do."""


class Reporter(Protocol):
    """Puts together what the hub's shells know of their state."""

    def status(self, clusters: tuple[ClusterInfo, ...]) -> HubStatus: ...

    def checks(self, status: HubStatus) -> tuple[CheckGroup, ...]: ...


class HubRoutes:
    """The routes of one hub. `url` and `sync` are where others reach it."""

    def __init__(
        self,
        hub: Hub,
        admission: Admission,
        tokens: TokenStore,
        operators: OperatorStore,
        authority: Lineage,
        root: Root,
        reporter: Reporter,
        url: str,
        sync: str,
        clock: Clock,
    ) -> None:
        self._hub = hub
        self._admission = admission
        self._tokens = tokens
        self.operators = OperatorRoutes(operators, authority, url, hub.why_banned)
        self._authority = authority
        self._root = root
        self._reporter = reporter
        self._sync = sync
        self._clock = clock

    def routes(self) -> tuple[Route, ...]:
        see, do = Access.VIEWER, Access.OPERATOR
        one, service, why = (
            "/v1/clusters/{name}",
            "/v1/services/{namespace}/{name}",
            "/v1/explain/{namespace}/{name}",
        )
        return (
            Route("GET", "/v1/bundle", "The anchors of this hub", Access.ANYBODY, self.anchors, Anchors),
            Route("POST", "/v1/join", "Redeem a cluster's one-time token", Access.OUTCOME, self.join, Redeemed, Redeem),
            Route("GET", "/v1/status", "State of the hub and its clusters", see, self.status, HubStatus),
            Route("GET", "/v1/checks", "What is right and wrong", see, self.checks, tuple[CheckGroup, ...]),
            Route("GET", "/v1/clusters", "The registry", see, self.clusters, tuple[ClusterInfo, ...]),
            Route("GET", one, "One cluster", see, self.cluster, ClusterInfo),
            Route("PUT", one, "Change what a cluster may do", do, self.set_cluster, ClusterInfo, SetCluster,
                  told=RIGHTS),
            Route("DELETE", one, "Remove a cluster", do, self.remove_cluster, Done),
            Route("GET", "/v1/services", "All services", see, self.services, tuple[ServiceInfo, ...], query=("from",)),
            Route("GET", service, "One service", see, self.service, ServiceInfo, query=("from",)),
            Route("GET", why, "Where requests go, and why", see, self.explain, Explained, query=("from",)),
            Route("GET", "/v1/tokens", "Join tokens", do, self.tokens, tuple[TokenInfo, ...]),
            Route("POST", "/v1/tokens", "Make a join token", do, self.create_token, CreatedToken, NewToken,
                  told=("id", "subject", "replace_authority", *RIGHTS)),
            Route("DELETE", "/v1/tokens/{id}", "Revoke a token", do, self.revoke_token, Done),
            *self.operators.routes(),
        )  # fmt: skip

    # ---- joining -------------------------------------------------------------------------------------------------

    async def join(self, call: Call) -> Redeemed:
        body: Redeem = call.body
        if body.token is None:
            return await self._introduce(body)
        request = (body.csr or "").encode()
        try:
            outcome = await self._admission.redeem_join(
                secret_of(body.token), body.name, request, (body.anchor or "").encode()
            )
        except InvalidName as error:
            raise ApiProblem(400, "bad-body", f"name: {error}", "set `cluster` in agent.yaml") from error
        except CsrRefused as error:
            raise ApiProblem(400, "csr", str(error)) from error
        except Banned as error:
            raise turned_away(error.reason) from error
        except VaultError as error:
            what = f"the root cannot sign now: its Vault {error.fault.value}"
            raise ApiProblem(503, "root", what, WAIT_FOR_ROOT) from error
        if not isinstance(outcome, Joined):
            raise no_good()
        return Redeemed(
            bundle=self._bundle(),
            certificates=(pem([load_der(outcome.row.rooted)]).decode(),) if outcome.row.rooted else (),
            base=self._hub.base,
            address=self._sync,
            joined_at=outcome.row.joined_at,
        )

    async def _introduce(self, body: Redeem) -> Redeemed:
        try:
            found = await self._tokens.find(bytes.fromhex(body.token_hash or ""))
        except ValueError:
            found = None
        if found is None:
            raise no_good()
        return Redeemed(
            bundle=self._bundle(),
            root=pem([self._root.certificate]).decode(),
            roots=_encoded(self._root.bundle())
            if isinstance(self._root, RootLineage | OfflineRoot)
            else None,
            now=self._clock.now(),
        )

    async def anchors(self, _: Call) -> Anchors:
        return Anchors(bundle=self._bundle())

    def _bundle(self) -> str:
        return _encoded(self._authority.bundle())

    # ---- state ---------------------------------------------------------------------------------------------------

    async def status(self, call: Call) -> HubStatus:
        own = self._reporter.status(await self.clusters(call))
        asked = await asyncio.gather(*(self._rotation_of(name) for name in self._connected()))
        running = (found for found in asked if found is not None and found.running)
        return msgspec.structs.replace(own, rotations=(*own.rotations, *running))

    async def checks(self, call: Call) -> tuple[CheckGroup, ...]:
        own = self._reporter.checks(self._reporter.status(await self.clusters(call)))
        asked = await asyncio.gather(*(self._checks_of(name) for name in self._connected()))
        return (*own, *(group for groups in asked for group in groups))

    def _connected(self) -> tuple[str, ...]:
        return tuple(known.member.name for known in self._hub.members() if known.connected)

    async def _rotation_of(self, cluster: str) -> RotationStatus | None:
        """None if its agent does not say at once: of that the checks tell."""
        try:
            async with asyncio.timeout(AT_ONCE):
                found: RotationStatus = await self._ask(cluster, ROTATION, RotationStatus)
                return found
        except (FederationError, TimeoutError):
            return None

    async def _checks_of(self, cluster: str) -> tuple[CheckGroup, ...]:
        try:
            groups: tuple[CheckGroup, ...] = await self._ask(cluster, "/v1/checks", tuple[CheckGroup, ...])
        except FederationError as error:
            hint = "look at its own socket and its log"
            silent = Check(
                result="failure", name=f"the agent of {cluster} does not answer", detail=str(error), hint=hint
            )
            return (CheckGroup(name=f"agent {cluster}", checks=(silent,)),)
        return groups

    async def _ask(self, cluster: str, path: str, shape: Any) -> Any:
        return await ask_agent(self._hub, cluster, Question(path), shape)

    # ---- the registry --------------------------------------------------------------------------------------------

    async def clusters(self, _: Call) -> tuple[ClusterInfo, ...]:
        return tuple(cluster_info(known) for known in self._hub.members())

    async def cluster(self, call: Call) -> ClusterInfo:
        return cluster_info(self._known(call.params["name"]))

    async def set_cluster(self, call: Call) -> ClusterInfo:
        body: SetCluster = call.body
        name = call.params["name"]
        state = MemberState(body.state) if body.state else None
        if await self._hub.membership.set(name, body.may_export, body.ranges, state) is None:
            raise not_found("cluster", name, "see `federation cluster list`")
        return cluster_info(self._known(name))

    async def remove_cluster(self, call: Call) -> Done:
        name = call.params["name"]
        if not await self._hub.remove_member(name):
            raise not_found("cluster", name, "see `federation cluster list`")
        back = "to come back, its agent needs a new token in join_token, and a restart"
        return Done(done=f"cluster {name} is removed; {back}")

    def _known(self, name: str) -> Known:
        known = self._hub.member(name)
        if known is None:
            raise not_found("cluster", name, "see `federation cluster list`")
        return known

    # ---- services ------------------------------------------------------------------------------------------------

    async def services(self, call: Call) -> tuple[ServiceInfo, ...]:
        if (cluster := call.query.get("from")) is not None:
            found: tuple[ServiceInfo, ...] = await self._ask(cluster, "/v1/services", tuple[ServiceInfo, ...])
            return found
        return united(self._hub.members())

    async def service(self, call: Call) -> ServiceInfo:
        name = f"{call.params['namespace']}/{call.params['name']}"
        if (cluster := call.query.get("from")) is not None:
            found: ServiceInfo = await self._ask(cluster, f"/v1/services/{name}", ServiceInfo)
            return found
        for service in united(self._hub.members()):
            if service.service == name:
                return service
        raise not_found("service", name, "nobody exports it; see `federation service list`")

    async def explain(self, call: Call) -> Explained:
        cluster = call.query.get("from")
        if cluster is None:
            names = ", ".join(known.member.name for known in self._hub.members()) or "none yet"
            raise ApiProblem(
                400, "from", "every cluster decides for itself", f"say from which: --from, one of {names}"
            )
        path = f"/v1/explain/{call.params['namespace']}/{call.params['name']}?{urlencode({'from': cluster})}"
        found: Explained = await self._ask(cluster, path, Explained)
        return found

    # ---- tokens --------------------------------------------------------------------------------------------------

    async def tokens(self, _: Call) -> tuple[TokenInfo, ...]:
        return tuple(token_info(record, self._clock.now()) for record in await self._tokens.listed())

    async def create_token(self, call: Call) -> CreatedToken:
        body: NewToken = call.body
        if body.cluster is None or body.gateway_class is not None:
            raise ApiProblem(
                400, "bad-body", "a hub makes tokens for clusters", "name one; gateways: ask their agent"
            )
        lifetime = timedelta(seconds=body.lifetime)
        text, record = await self._admission.create_token(
            body.cluster, body.may_export, body.ranges, lifetime, body.replace_authority
        )
        return CreatedToken(id=record.id, token=text, subject=record.subject, expires_at=record.not_after)

    async def revoke_token(self, call: Call) -> Done:
        if await self._tokens.revoke(call.params["id"]) is None:
            raise not_found("token", call.params["id"], "see `federation token list`")
        return Done(done=f"token {call.params['id']} is revoked")


def _encoded(bundle: Bundle) -> str:
    return base64.b64encode(bundles.encode(bundle)).decode()
