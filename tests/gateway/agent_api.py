"""The part of an agent's API that gateways call, with a real authority, over real TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from federation.api.messages import Redeem, Redeemed, Renew, Renewed
from federation.api.routes import Access, Call, Principal, Route
from federation.api.server import TcpDoor, api_application, serving
from federation.api.tls import renewable, server_context
from federation.attest import Attestor, Instances
from federation.clock import Clock
from federation.listen import HostPort
from federation.store import MemoryStore
from federation.tokens import TokenStore
from pki import issue
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId, TrustDomain
from pki.validate import verify_peer
from tests.gateway.certificates import BASE
from tests.gateway.process import private


@dataclass
class AgentApi:
    """While `failing`, nothing is renewed. Also tells who shows which certificate."""

    authority: Lineage
    clock: Clock
    leaf: Path
    tls: ssl.SSLContext = field(init=False)
    attestor: Attestor = field(init=False)
    failing: bool = False

    async def serve_anew(self) -> None:
        """With a leaf of the authority that issues now, to those whom the bundle of now believes."""
        self.tls = await _served(self.authority, self.leaf)

    async def token(self, folder: Path) -> Path:
        """The file of a new token for a gateway."""
        text, _ = await self.attestor.create("eastwest", timedelta(minutes=5))
        path = folder / "token"
        path.touch(0o600)
        path.write_text(text)
        return path

    async def attest(self, call: Call) -> Redeemed:
        return await self.attestor.attest(call.body)

    async def renew(self, call: Call) -> Renewed:
        caller = call.principal
        assert caller.identity is not None
        assert caller.certificate is not None
        if self.failing:
            raise RuntimeError("no renewal today")
        chain = await self.attestor.renew(call.body.csr, caller.identity, caller.certificate)
        return Renewed(certificates=(chain,))

    async def certificate(self, der: bytes) -> Principal:
        shown = x509.load_der_x509_certificate(der)
        bundle = self.authority.bundle()
        identity = verify_peer([shown], {bundle.trust_domain: bundle}, self.clock.now())
        return Principal(str(identity), Access.PEER, identity, shown)

    async def bearer(self, secret: str) -> None:
        return None


async def _served(authority: Lineage, leaf: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    grant = decide(Attested(SpiffeId.agent(authority.trust_domain), Attestation.SELF), authority.trust_domain)
    assert isinstance(grant, Grant)
    issued = await authority.issue(key.public_key(), grant, who="agent", why="test")
    leaf.write_bytes(issued.pem() + private(key))
    return server_context(leaf, leaf, authority.bundle().anchors)


@asynccontextmanager
async def agent_api(folder: Path, xds: str, clock: Clock) -> AsyncIterator[AgentApi]:
    """Served on a port of its own; `xds` is where gateways are sent for their configuration."""
    east = TrustDomain.of_cluster("east", BASE)
    authority = await Lineage.open(folder / "authority", FileKeyStore(folder / "keys"), east, clock)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = issue.sign(issue.root_authority(BASE, 1, root_key.public_key(), 1, datetime.now(UTC)), root_key)
    store = MemoryStore()
    api = AgentApi(authority, clock, folder / "agent.pem")
    await api.serve_anew()
    routes = (
        Route("POST", "/v1/attest", "", Access.OUTCOME, api.attest, Redeemed, Redeem),
        Route("POST", "/v1/renew", "", Access.PEER, api.renew, Renewed, Renew),
    )
    tls = renewable(lambda: api.tls)
    app = api_application("agent", "1", routes, api)
    try:
        async with serving(app, TcpDoor(HostPort("127.0.0.1:0"), tls)) as (bound,):
            assert bound is not None
            api.attestor = Attestor(
                authority,
                lambda: root,
                TokenStore(store, clock.now),
                Instances(store),
                bound,
                HostPort(xds),
                BASE,
                timedelta(hours=24),
                clock,
            )
            yield api
    finally:
        await authority.close()
