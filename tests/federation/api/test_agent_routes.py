"""What an agent answers over its API, over the hub's stream, and what its OpenAPI document says about both."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from federation.access import AgentAccess
from federation.api.agent_routes import AgentRoutes
from federation.api.client import ApiClient, Refusal, Target, connect
from federation.api.doors import UnixDoor, serving
from federation.api.inward import Inward
from federation.api.messages import (
    AgentStatus,
    Check,
    CheckGroup,
    CreatedToken,
    GatewayStatus,
    NewToken,
    PeerStatus,
    ServiceInfo,
    TokenInfo,
)
from federation.api.routes import Access, Problem, Route, openapi
from federation.api.server import api_application
from federation.attest import Attestor, Instances
from federation.clock import ManualClock
from federation.events import ExportChanged, GatewayLost, GatewayReported, LoadChanged, LocalChanged
from federation.explain import Explained
from federation.listen import HostPort
from federation.questions import Question
from federation.store import MemoryStore
from federation.tokens import TokenStore
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import TrustDomain
from pki.token import JoinToken
from tests.federation.api.hub_world import hub_routes
from tests.federation.lives import Life, speaking
from tests.federation.world import BASE, NOW, backend, gateway, load, local, spec
from tests.pki.world import make_root

STATUS = AgentStatus(
    version="1",
    pid=1,
    cluster="east",
    region="eu",
    hub_connected=True,
    hub_problem="",
    hub="10.0.0.1:8444",
    services=1,
    exports=1,
    gateways=(
        GatewayStatus(
            name="gw-0",
            address="10.1.0.1:15443",
            connected=True,
            state="serving",
            snapshot=2,
            acknowledged=2,
            envoy="1.40",
            certificate_expires_at=NOW,
        ),
    ),
    peers=(
        PeerStatus(
            name="west", region="eu", state="active", lease="fresh", silence=1.5, path="up", trusted=True
        ),
    ),
    problems=(),
    certificate_expires_at=NOW,
    authority_expires_at=NOW,
)


class Reporter:
    def status(self) -> AgentStatus:
        return STATUS

    def checks(self) -> tuple[CheckGroup, ...]:
        return (CheckGroup(name="agent east", checks=(Check(result="ok", name="connected"),)),)

    async def forget_gateway(self, name: str) -> bool:
        return name == "gw-9"


@dataclass
class East:
    """An agent's API at a unix socket."""

    life: Life
    clock: ManualClock
    routes: tuple[Route, ...]
    client: ApiClient

    async def get(self, path: str, **query: str) -> Any:
        """The answer, which must be of the type that its route declares."""
        found = await self.client.get(path, **query)
        msgspec.convert(found, self.route("GET", path).response)
        return found

    def route(self, method: str, path: str) -> Route:
        (found,) = (
            route
            for route in self.routes
            if route.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path)
        )
        return found


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[East]:
    clock = ManualClock()
    domain = TrustDomain.of_cluster("east", BASE)
    authority = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), domain, clock)
    store = MemoryStore()
    tokens, api = TokenStore(store, clock.now), HostPort.of("10.1.0.2", 8445)
    root: x509.Certificate = make_root()[1]
    attestor = Attestor(
        authority, lambda: root, tokens, Instances(store), api, api, BASE, timedelta(days=1), clock
    )
    life = await speaking(
        LocalChanged(local(backend(1), backend(2, ready=False))),
        ExportChanged(spec("west")),
        LoadChanged(load("west", 3, 4)),
    )
    routes = AgentRoutes(life.agent, attestor, tokens, Reporter(), clock).routes()
    app = api_application("agent", "1", routes, AgentAccess(authority.bundle, clock.now))
    socket = tmp_path / "api.sock"
    async with serving(app, UnixDoor(socket)), connect(Target(f"unix://{socket}")) as client:
        yield East(life, clock, routes, client)
    await authority.close()


async def test_state_is_what_the_reporter_puts_together(east: East) -> None:
    assert msgspec.convert(await east.get("/v1/status"), AgentStatus) == STATUS
    (group,) = msgspec.convert(await east.get("/v1/checks"), tuple[CheckGroup, ...])
    assert group.checks[0].name == "connected"


async def test_a_service_says_where_it_is_reached_and_who_exports_it(east: East) -> None:
    (listed,) = msgspec.convert(await east.get("/v1/services"), tuple[ServiceInfo, ...])
    shown = msgspec.convert(await east.get("/v1/services/default/echo", **{"from": "east"}), ServiceInfo)
    assert shown == listed
    assert (shown.service, shown.host) == ("default/echo", "echo.default.svc.clusterset.local")
    (port,) = shown.ports
    assert (port.port, port.reach) == (80, ("127.0.0.1:20000",))
    seen = {one.cluster: (one.healthy, one.total) for one in shown.exporters}
    assert seen == {"east": (1, 2), "west": (3, 4)}


async def test_a_gateway_that_is_silent_is_not_named_where_another_serves(east: East) -> None:
    async def reach() -> tuple[str, ...]:
        shown = msgspec.convert(await east.get("/v1/services/default/echo"), ServiceInfo)
        return shown.ports[0].reach

    east.life.agent.step([GatewayReported(replace(gateway("gw-1"), bind="127.0.0.2"), {}, {})])
    assert await reach() == ("127.0.0.1:20000", "127.0.0.2:20000")
    east.life.agent.step([GatewayLost("gw-0")])
    assert await reach() == ("127.0.0.2:20000",)
    east.life.agent.step([GatewayLost("gw-1")])
    assert await reach() == ("127.0.0.1:20000", "127.0.0.2:20000")


async def test_a_plan_is_explained_from_the_agents_own_view(east: East) -> None:
    plan = msgspec.convert(await east.get("/v1/explain/default/echo"), Explained)
    assert plan.cluster == "east"
    assert [line.cluster for line in plan.ports[0].lines] == ["east", "west"]
    assert all(line.reason for line in plan.ports[0].lines)


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v1/services/default/nothing", 404, "there is no service 'default/nothing'"),
        ("GET", "/v1/explain/default/nothing", 404, "there is no service 'default/nothing'"),
        ("GET", "/v1/explain/default/echo?from=west", 400, "this is the agent of east, not of west"),
        ("GET", "/v1/services?from=west", 400, "this is the agent of east, not of west"),
        ("GET", "/v1/services/default/echo?from=west", 400, "this is the agent of east, not of west"),
        ("DELETE", "/v1/tokens/nothing", 404, "there is no token 'nothing'"),
        ("DELETE", "/v1/gateways/gw-0", 404, "there is no gateway 'gw-0'"),
        ("GET", "/v1/clusters", 404, "no such path"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_told(
    east: East, method: str, path: str, status: int, says: str
) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        await east.client.call(method, path)
    assert refused.value.status == status
    assert refused.value.hint


async def test_tokens_for_gateways_are_made_listed_and_revoked(east: East) -> None:
    made = await east.client.call("POST", "/v1/tokens", body=NewToken(gateway_class="eastwest"))
    created = msgspec.convert(made, CreatedToken)
    assert JoinToken.decode(created.token).subject == "eastwest"
    (listed,) = msgspec.convert(await east.get("/v1/tokens"), tuple[TokenInfo, ...])
    assert (listed.id, listed.kind, listed.state) == (created.id, "attest", "unused")
    assert created.token not in str(await east.get("/v1/tokens"))
    east.clock.advance(600)
    (listed,) = msgspec.convert(await east.get("/v1/tokens"), tuple[TokenInfo, ...])
    assert listed.state == "expired"
    done = await east.client.call("DELETE", f"/v1/tokens/{created.id}")
    assert done == {"done": f"token {created.id} is revoked"}
    assert await east.get("/v1/tokens") == []
    assert await east.client.call("DELETE", "/v1/gateways/gw-9") == {"done": "gateway gw-9 is forgotten"}


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (NewToken(cluster="west"), "an agent makes tokens for gateways"),
        (NewToken(gateway_class="eastwest", may_export=("a/b",)), "an agent makes tokens for gateways"),
        (NewToken(gateway_class="north"), "gateway_class: 'north'"),
        (NewToken(workload="shop/cart/x"), "workload: 'shop/cart/x'"),
        (NewToken(gateway_class="eastwest", lifetime=601), "<= 600"),
    ],
)
async def test_a_token_that_an_agent_cannot_make_is_refused(east: East, wanted: NewToken, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        await east.client.call("POST", "/v1/tokens", body=wanted)
    assert await east.get("/v1/tokens") == []


async def test_the_hub_may_read_and_nothing_else(east: East) -> None:
    inward = Inward(east.routes)
    for path in (
        "/v1/status",
        "/v1/services",
        "/v1/services/default/echo",
        "/v1/explain/default/echo?from=east",
    ):
        status, body = await inward.answer(Question(path))
        assert status == 200
        msgspec.json.decode(body, type=east.route("GET", path.partition("?")[0]).response)
    for path in (
        "/v1/tokens",
        "/v1/attest",
        "/v1/renew",
        "/v1/gateways/gw-9",
        "/metrics",
        "",
        "//[",
        "/v1/status/",
    ):
        status, body = await inward.answer(Question(path))
        assert status in (400, 404), path
        assert msgspec.json.decode(body, type=Problem).message
    assert (await inward.answer(Question("/v1/explain/default/echo?from=west")))[0] == 400
    assert (await inward.answer(Question("/v1/services/default/%C3%A9%ff")))[0] == 404


def documented(routes: tuple[Route, ...]) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi("test", "1", routes)))
    return document


def instants(node: Any) -> Iterator[Any]:
    """The schemas of everything that is named as an instant is."""
    match node:
        case dict():
            for key, value in node.items():
                if key.endswith("_at") and isinstance(value, dict):
                    yield value
                yield from instants(value)
        case list():
            for value in node:
                yield from instants(value)


async def test_every_instant_is_documented_as_one(routes: tuple[Route, ...]) -> None:
    found = list(instants(documented(routes)))
    assert len(found) >= 2
    for schema in found:
        assert any(one.get("format") == "date-time" for one in (schema, *schema.get("anyOf", ()))), schema


def references(node: Any) -> Iterator[str]:
    match node:
        case dict():
            for key, value in node.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        case list():
            for value in node:
                yield from references(value)
        case _:
            pass


@pytest.fixture(params=["agent", "hub"])
def routes(request: pytest.FixtureRequest, east: East, tmp_path: Path) -> tuple[Route, ...]:
    return east.routes if request.param == "agent" else hub_routes()


async def test_the_document_describes_exactly_the_routes(routes: tuple[Route, ...]) -> None:
    document = documented(routes)
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    looks = {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/v1/openapi.json")}
    assert described == looks | {(route.method, route.path) for route in routes}
    operations = {}
    for route in routes:
        operation = document["paths"][route.path][route.method.lower()]
        operations[operation["operationId"]] = route
        inside = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert inside == set(re.findall(r"\{(\w+)\}", route.path))
        assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")
        assert {one["name"] for one in operation["parameters"] if one["in"] == "query"} == set(route.query)
        assert ("requestBody" in operation) == (route.request is not None)
        assert (operation["security"] == []) == (route.access in (Access.ANYBODY, Access.OUTCOME))
        assert ({"bearer": []} in operation["security"]) == (route.access in (Access.VIEWER, Access.OPERATOR))
    assert len(operations) == len(routes)
    assert [route.path for route in routes if route.access is Access.OUTCOME] in (
        ["/v1/attest"],
        ["/v1/join"],
    )


async def test_every_reference_leads_to_the_schema_of_its_type(routes: tuple[Route, ...]) -> None:
    document = documented(routes)
    for reference in references(document):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert "type" in node or "anyOf" in node
    schemas = document["components"]["schemas"]
    for route in routes:
        operation = document["paths"][route.path][route.method.lower()]
        carriers = (
            (route.response, operation["responses"]["200"]),
            (route.request, operation.get("requestBody")),
        )
        for kind, carrier in carriers:
            if kind is None:
                continue
            made = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
            (schema,), components = msgspec.json.decode(msgspec.json.encode(made))
            assert carrier["content"]["application/json"]["schema"] == schema
            assert components == {name: schemas[name] for name in components}
