"""A hub that clusters join over real HTTPS, and what may stand between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from federation.access import OperatorStore
from federation.admission import Admission
from federation.api.doors import TcpDoor, serving
from federation.api.hub_routes import HubRoutes
from federation.api.messages import CheckGroup, ClusterInfo, HubStatus, Redeem, Redeemed
from federation.api.routes import Access, ApiProblem, Call, Principal, Route
from federation.api.server import api_application
from federation.api.tls import renewable, server_context
from federation.clock import Clock, SystemClock
from federation.hub import Hub
from federation.identity import Identity
from federation.listen import HostPort
from federation.registry import Registry
from federation.store import MemoryStore
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain

BASE = "mesh.example"
ANY_PORT = HostPort.of("127.0.0.1", 0)
SYNC = HostPort.of("10.0.0.1", 8444)
GRANTS = (("default/*",), ("10.1.0.0/16",))

Answer = Callable[[Redeem], Awaitable[Redeemed]]


class _Nobody:
    async def certificate(self, der: bytes) -> Principal | None:
        return None

    async def bearer(self, secret: str) -> Principal | None:
        return None


class _Reporter:
    def status(self, clusters: tuple[ClusterInfo, ...]) -> HubStatus:
        raise NotImplementedError

    def checks(self, status: HubStatus) -> tuple[CheckGroup, ...]:
        raise NotImplementedError


@dataclass
class Issuer:
    """A hub's `POST /v1/join`. `seen` is every body that arrived; `answer` may be replaced."""

    root: RootAuthority
    authority: Lineage
    hub: Hub
    tokens: TokenStore
    identity: Identity
    address: HostPort
    routes: HubRoutes
    operators: OperatorStore
    admission: Admission
    answer: Answer
    seen: list[Redeem] = field(default_factory=list)

    async def honest(self, body: Redeem) -> Redeemed:
        return await self.routes.join(Call(Principal("anonymous", Access.OUTCOME), body=body))

    async def answer_lost(self, body: Redeem) -> Redeemed:
        """Do what was asked; the answer to the secret does not arrive."""
        answer = await self.honest(body)
        if body.token is not None:
            raise ApiProblem(500, "lost", "the answer was lost on its way")
        return answer

    async def token(self, folder: Path, cluster: str = "east") -> Path:
        text, _ = await self.admission.create_token(cluster, *GRANTS, timedelta(minutes=5))
        path = folder / f"{cluster}.token"
        path.touch(0o600)
        path.write_text(text + "\n")
        return path

    @property
    def secrets_seen(self) -> int:
        return sum(body.token is not None for body in self.seen)


@asynccontextmanager
async def issuer(folder: Path, clock: Clock | None = None) -> AsyncIterator[Issuer]:
    clock = clock or SystemClock()
    domain = TrustDomain.of_hub(BASE)
    async with AsyncExitStack() as stack:
        root = await RootAuthority.create(folder / "root", FileKeyStore(folder / "root-keys"), BASE, clock)
        stack.push_async_callback(root.close)
        authority = await Lineage.open(folder / "hub", FileKeyStore(folder / "hub-keys"), domain, clock)
        stack.push_async_callback(authority.close)
        identity = Identity(
            authority, SpiffeId.federation(domain), folder / "leaf.pem", timedelta(hours=24), clock
        )
        await identity.start()
        store, metrics = MemoryStore(), HubMetrics()
        hub = Hub(Registry(store), lambda: (root.certificate,), BASE, clock, metrics)
        await hub.start()
        made: list[Issuer] = []

        async def answer(body: Redeem) -> Redeemed:
            made[0].seen.append(body)
            return await made[0].answer(body)

        address = await stack.enter_async_context(redeeming(answer, identity, authority))
        tokens, operators = TokenStore(store, clock.now), OperatorStore(store)
        admission = Admission(hub, tokens, root, authority.bundle, address, clock, metrics)
        routes = HubRoutes(
            hub,
            admission,
            tokens,
            operators,
            authority,
            root,
            _Reporter(),
            f"https://{address}",
            str(SYNC),
            clock,
        )
        made.append(
            Issuer(root, authority, hub, tokens, identity, address, routes, operators, admission, answer)
        )
        made[0].answer = made[0].honest
        yield made[0]


@asynccontextmanager
async def redeeming(answer: Answer, identity: Identity, authority: Lineage) -> AsyncIterator[HostPort]:
    """Serve `POST /v1/join` with the certificate of `identity`."""

    async def join(call: Call) -> Redeemed:
        return await answer(call.body)

    route = Route("POST", "/v1/join", "", Access.OUTCOME, join, Redeemed, Redeem)
    path = identity.current.path
    tls = renewable(lambda: server_context(path, path, (authority.self_signed,)))
    async with serving(api_application("issuer", "1", (route,), _Nobody()), TcpDoor(ANY_PORT, tls)) as (
        bound,
    ):
        assert bound is not None
        yield bound
