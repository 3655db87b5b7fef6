"""A hub's REST API as its callers meet it: real TLS, a real authority, routes of every kind of access."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from federation.access import HubAccess, OperatorStore
from federation.api.client import Target
from federation.api.doors import TcpDoor, UnixDoor, serving
from federation.api.messages import Done, NewToken
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.api.server import api_application, health_application, with_health
from federation.api.tls import client_context, renewable, server_context
from federation.clock import SystemClock
from federation.errors import FederationError, InvalidValue
from federation.identity import Identity
from federation.listen import HostPort
from federation.store import MemoryStore
from pki.algorithms import spki_hash
from pki.errors import WriteError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.forgery import Forger
from tests.gateway.certificates import BASE
from tests.gateway.certificates import Identity as Shown
from tests.gateway.process import private

CLOCK = SystemClock()
DAY = timedelta(days=1)
ANY_PORT = HostPort.of("127.0.0.1", 0)
SERVER_NAME = f"federation.hub.{BASE}"
INSIDE = "what nobody outside may read"


class Routes:
    """One route for each kind of access, and some that go wrong."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def routes(self) -> tuple[Route, ...]:
        see, do, peer, anyone = Access.VIEWER, Access.OPERATOR, Access.PEER, Access.OUTCOME
        return (
            Route("GET", "/v1/things/{name}", "Look", see, self.note, Done, query=("from",)),
            Route("POST", "/v1/things", "Change", do, self.note, Done, NewToken, told=("may_export",)),
            Route("POST", "/v1/renew", "Renew", peer, self.note, Done, NewToken),
            Route("POST", "/v1/join", "Join", anyone, self.refuse, Done, NewToken),
            Route("GET", "/v1/broken", "Fail", see, self.fail, Done),
            Route("GET", "/v1/full", "Fail", see, self.disk_full, Done),
            Route("GET", "/v1/impossible", "Fail", see, self.impossible, Done),
        )

    async def note(self, call: Call) -> Done:
        self.calls.append(call)
        return Done(done=call.principal.name)

    async def refuse(self, call: Call) -> Done:
        match call.body.cluster:
            case "full":
                raise WriteError(Path(INSIDE), INSIDE)
            case "store":
                raise FederationError(INSIDE, INSIDE)
            case "east":
                return Done(done="joined")
            case _:
                raise ApiProblem(403, "token", "no good")

    async def fail(self, _: Call) -> Done:
        raise RuntimeError(INSIDE)

    async def impossible(self, _: Call) -> Done:
        raise InvalidValue("this cannot be")

    async def disk_full(self, _: Call) -> Done:
        raise WriteError(Path("/var/lib"), "No space left on device")


@dataclass
class Api:
    """A served API; `forger` signs with the key of the hub's authority whatever a test needs."""

    folder: Path
    authority: Lineage
    forger: Forger
    operators: OperatorStore
    routes: Routes
    url: str = ""
    ready: bool = True
    socket: Path = field(init=False)

    def __post_init__(self) -> None:
        self.socket = self.folder / "api.sock"

    @property
    def local(self) -> Target:
        return Target(f"unix://{self.socket}")

    def remote(self, shown: Shown | None = None, token: str | None = None) -> Target:
        anchors = self.authority.bundle().anchors
        tls = client_context(anchors, shown.chain if shown else None, shown.key if shown else None)
        return Target(self.url, tls, SERVER_NAME, token)

    async def operator(self, name: str, role: Literal["viewer", "operator"]) -> Shown:
        """An operator with a certificate for a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        await self.operators.create(name, role, key=spki_hash(key.public_key()))
        who = Attested(SpiffeId.operator(self.authority.trust_domain, name), Attestation.ADMINISTRATOR)
        grant = decide(who, self.authority.trust_domain)
        assert isinstance(grant, Grant)
        issued = await self.authority.issue(key.public_key(), grant, who=name, why="a test")
        shown = Shown(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        shown.chain.write_bytes(issued.pem())
        shown.key.write_bytes(private(key))
        return shown

    async def bearer(self, name: str, role: Literal["viewer", "operator"]) -> str:
        secret = await self.operators.create(name, role)
        assert secret is not None
        return secret


@asynccontextmanager
async def serve(folder: Path) -> AsyncIterator[Api]:
    keys = FileKeyStore(folder / "keys")
    authority = await Lineage.open(folder / "authority", keys, TrustDomain.of_hub(BASE), CLOCK)
    identity = Identity(
        authority, SpiffeId.federation(authority.trust_domain), folder / "leaf.pem", DAY, CLOCK
    )
    await identity.start()
    api = Api(
        folder, authority, Forger.of(authority, folder / "keys"), OperatorStore(MemoryStore()), Routes()
    )
    access = HubAccess(api.operators, authority.bundle, CLOCK.now)

    async def healthy() -> tuple[bool, dict[str, Any]]:
        return True, {"healthy": True}

    async def ready() -> tuple[bool, dict[str, Any]]:
        return api.ready, {"ready": api.ready}

    async def metrics() -> bytes:
        return b"some_metric 1\n"

    health = health_application(healthy, ready, metrics)
    app = with_health(api_application("test", "1", api.routes.routes(), access), health)
    path = identity.current.path
    tls = renewable(lambda: server_context(path, path, (authority.self_signed,)))
    try:
        async with serving(app, UnixDoor(api.socket), TcpDoor(ANY_PORT, tls)) as (_, bound):
            api.url = f"https://{bound}"
            yield api
    finally:
        await authority.close()


@asynccontextmanager
async def http(target: Target) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that may say anything, without our own client's manners."""
    connector: aiohttp.BaseConnector
    if target.url.startswith("unix://"):
        connector = aiohttp.UnixConnector(target.url.removeprefix("unix://"))
    else:
        connector = aiohttp.TCPConnector(ssl=target.tls or True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def ask(
    target: Target,
    method: str,
    path: str,
    *,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any]:
    """Status and decoded body; `body` as bytes goes out as it is."""
    base = "http://localhost" if target.url.startswith("unix://") else target.url
    data = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
    sent = {"Content-Type": "application/json"} if data is not None else {}
    if target.token is not None:
        sent["Authorization"] = f"Bearer {target.token}"
    async with http(target) as session:
        asked = session.request(
            method,
            base + path,
            data=data,
            headers=sent | dict(headers or {}),
            server_hostname=target.server_name,
        )
        async with asked as response:
            content = await response.read()
            json = response.content_type == "application/json"
            return response.status, msgspec.json.decode(content) if json else content
