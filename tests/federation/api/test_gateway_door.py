"""The agent's HTTPS door as its gateways use it: attest with a token, renew with the certificate, and nothing else."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from federation.access import AgentAccess
from federation.api.agent_routes import AgentRoutes
from federation.api.client import Refusal, Target, connect
from federation.api.doors import TcpDoor, serving
from federation.api.messages import Redeem, Renew
from federation.api.server import api_application
from federation.api.tls import client_context, renewable, server_context
from federation.attest import Attestor, Instances
from federation.clock import SystemClock
from federation.errors import Unreachable
from federation.identity import Identity
from federation.listen import HostPort
from federation.store import MemoryStore
from federation.tokens import TokenStore
from gateway.identity import GatewayIdentity
from pki import csr
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken
from tests.federation.forgery import Forger
from tests.gateway.certificates import BASE, ca
from tests.gateway.certificates import Identity as Shown
from tests.pki.rules.hostile import REFUSED
from tests.pki.world import make_root, new_key

CLOCK = SystemClock()
DAY = timedelta(days=1)
XDS = HostPort.of("127.0.0.1", 8446)


@dataclass
class Door:
    """Where an agent listens for its gateways; its own certificate can be renewed while it does."""

    authority: Lineage
    identity: Identity
    attestor: Attestor
    url: str

    async def token(self, folder: Path) -> Path:
        text, _ = await self.attestor.create("eastwest", timedelta(minutes=5))
        path = folder / "token"
        path.touch(0o600)
        path.write_text(text)
        return path

    def target(self, shown: Shown | None = None) -> Target:
        tls = client_context(
            self.authority.bundle().anchors, shown.chain if shown else None, shown.key if shown else None
        )
        return Target(self.url, tls, f"agent.{self.authority.trust_domain}")


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    domain = TrustDomain.of_cluster("east", BASE)
    folder = tmp_path / "agent"
    folder.mkdir()
    async with AsyncExitStack() as stack:
        keys = FileKeyStore(folder / "keys")
        authority = await Lineage.open(folder / "authority", keys, domain, CLOCK)
        stack.push_async_callback(authority.close)
        identity = Identity(authority, SpiffeId.agent(domain), folder / "leaf.pem", DAY, CLOCK)
        await identity.start()
        store = MemoryStore()
        tokens, instances = TokenStore(store, CLOCK.now), Instances(store)
        made: list[Attestor] = []
        nothing = cast(Any, None)

        def tls() -> Any:
            path = identity.current.path
            return server_context(path, path, (authority.self_signed,))

        class Later:
            """The attestor needs the address of the door, and the door its routes."""

            def __getattr__(self, name: str) -> Any:
                return getattr(made[0], name)

        routes = AgentRoutes(nothing, cast(Any, Later()), tokens, nothing, CLOCK).routes()
        app = api_application("agent", "1", routes, AgentAccess(authority.bundle, CLOCK.now))
        any_port = HostPort.of("127.0.0.1", 0)
        (bound,) = await stack.enter_async_context(serving(app, TcpDoor(any_port, renewable(tls))))
        assert bound is not None
        _, root = make_root()
        made.append(Attestor(authority, lambda: root, tokens, instances, bound, XDS, BASE, DAY, CLOCK))
        yield Door(authority, identity, made[0], f"https://{bound}")


def files(folder: Path) -> Shown:
    return Shown(folder / "chain.pem", folder / "keys" / "gateway.key")


async def shown_by(door: Door) -> x509.Certificate:
    """What the door presents in a handshake."""
    target = door.target()
    address = urlsplit(door.url)
    _, writer = await asyncio.open_connection(
        address.hostname, address.port, ssl=target.tls, server_hostname=target.server_name
    )
    try:
        return x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_gateway_attests_and_renews_for_as_long_as_it_lives(door: Door, tmp_path: Path) -> None:
    gateway = GatewayIdentity("gw-0", tmp_path / "gateway", CLOCK)
    await gateway.start(await door.token(tmp_path))
    serials = [gateway.current.certificate.serial_number]
    for _ in range(3):
        await gateway.renew()
        serials.append(gateway.current.certificate.serial_number)
    assert len(set(serials)) == 4
    assert str(gateway.current.spiffe_id) == f"spiffe://east.{BASE}/gateway/eastwest"
    again = GatewayIdentity("gw-0", tmp_path / "gateway", CLOCK)
    await again.start(None)
    await again.renew()


async def test_the_agents_own_renewal_is_seen_by_the_next_handshake(door: Door, tmp_path: Path) -> None:
    gateway = GatewayIdentity("gw-0", tmp_path / "gateway", CLOCK)
    await gateway.start(await door.token(tmp_path))
    before = door.identity.current.certificate
    assert await shown_by(door) == before
    await door.identity.renew()
    assert await shown_by(door) == door.identity.current.certificate != before
    first = gateway.current.certificate.serial_number
    await gateway.renew()
    assert gateway.current.certificate.serial_number != first


async def renew(target: Target) -> int:
    async with connect(target) as client:
        try:
            await client.call("POST", "/v1/renew", body=Renew(csr=csr.request(new_key()).decode()))
        except Refusal as refusal:
            return refusal.status
    return 200


async def test_a1_of_a_hundred_at_once_exactly_one_gets_a_certificate(door: Door, tmp_path: Path) -> None:
    """A hundred keys, each over a connection of its own, with one token."""
    token = JoinToken.decode((await door.token(tmp_path)).read_text())
    secret, arrived = base64.urlsafe_b64encode(token.secret).decode(), asyncio.Barrier(100)

    async def attempt(number: int) -> int:
        body = Redeem(token=secret, csr=csr.request(new_key()).decode(), name=f"gw-{number}")
        async with connect(door.target()) as client:
            await arrived.wait()
            try:
                await client.call("POST", "/v1/attest", body=body)
            except Refusal as refusal:
                return refusal.status
        return 200

    before = len(door.authority.ledger(CLOCK.now()))
    outcomes = await asyncio.gather(*(attempt(number) for number in range(100)))
    assert Counter(outcomes) == {200: 1, 403: 99}
    assert len(door.authority.ledger(CLOCK.now())) == before + 1


@pytest.mark.parametrize("what", ["RSA-16384", "two in one PEM", "somebody else's key"])
async def test_r2_r3_r4_a_hostile_request_leaves_a_line_in_the_log(door: Door, what: str) -> None:
    request, reason = REFUSED[what]
    data = request if b"-----BEGIN" in request else x509.load_der_x509_csr(request).public_bytes(Encoding.PEM)
    body = Redeem(token="x", csr=data.decode(), name="gw-0")
    with capture_logs() as lines:
        async with connect(door.target()) as client:
            with pytest.raises(Refusal, match=reason) as refusal:
                await client.call("POST", "/v1/attest", body=body)
    assert refusal.value.status == 400
    (line,) = [line for line in lines if line["event"] == "call refused"]
    assert (line["path"], line["status"], line["caller"]) == ("/v1/attest", 400, "127.0.0.1")
    assert line["reason"].startswith("csr: ")


@pytest.mark.parametrize("path", ["agent", "gateway/", "ns/default/sa/gateway", "operator/ada"])
async def test_a6_who_is_no_gateway_renews_nothing(door: Door, tmp_path: Path, path: str) -> None:
    assert await renew(door.target()) == 401
    forger = Forger.of(door.authority, tmp_path / "agent" / "keys")
    shown = forger.write(tmp_path / "odd", f"spiffe://east.{BASE}/{path}")
    assert await renew(door.target(shown)) == 401
    two = forger.write(
        tmp_path / "two", f"spiffe://east.{BASE}/gateway/eastwest", f"spiffe://west.{BASE}/gateway/eastwest"
    )
    assert await renew(door.target(two)) == 401


async def test_a6_a_certificate_that_is_not_in_the_journal_renews_nothing(door: Door, tmp_path: Path) -> None:
    """Right in every respect, signed by the right key, and nobody remembers having issued it."""
    shown = Forger.of(door.authority, tmp_path / "agent" / "keys").write(
        tmp_path / "unknown", f"spiffe://east.{BASE}/gateway/eastwest"
    )
    assert await renew(door.target(shown)) == 400


async def test_a_gateway_of_another_cluster_does_not_get_through_the_handshake(
    door: Door, tmp_path: Path
) -> None:
    for uri in (f"spiffe://west.{BASE}/gateway/eastwest", f"spiffe://east.{BASE}/gateway/eastwest"):
        shown = ca("west").write(tmp_path / uri.replace("/", "_"), uri)
        with pytest.raises(Unreachable):
            await renew(door.target(shown))


async def test_a_gateway_may_see_and_change_nothing_of_the_agent(door: Door, tmp_path: Path) -> None:
    gateway = GatewayIdentity("gw-0", tmp_path / "gateway", CLOCK)
    await gateway.start(await door.token(tmp_path))
    async with connect(door.target(files(tmp_path / "gateway"))) as client:
        for method, path in (
            ("GET", "/v1/status"),
            ("GET", "/v1/services"),
            ("GET", "/v1/openapi.json"),
            ("GET", "/v1/tokens"),
            ("DELETE", "/v1/gateways/gw-1"),
        ):
            with pytest.raises(Refusal) as refused:
                await client.call(method, path)
            assert refused.value.status == 403
