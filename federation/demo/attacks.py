"""What a hostile cluster would try, with real keys: west's own authority signs what it should not.

The certificates are written to a folder of the demo and go with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from federation.api.client import Refusal, Target, connect
from federation.api.redeem import redeem
from federation.clock import SystemClock
from federation.demo.claims import Claim
from federation.demo.clusters import BASE
from federation.demo.files import PASSPHRASE
from federation.demo.tunnel import Caller, End, Outcome, call_grpc, connect_through
from federation.demo.world import World
from federation.join import membership
from federation.listen import HostPort
from pki.bundle import Bundle
from pki.certificate import load_pem
from pki.csr import request
from pki.errors import Untrusted
from pki.folder import SELF_SIGNED
from pki.keys import passphrase
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase
from pki.profiles import HIGHEST_EPOCH, authority_subject
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken
from pki.validate import verify_peer

ECHO = "echo.default.svc.clusterset.local:80"
PERMISSION_DENIED = 7
UNAUTHENTICATED = 16
"""gRPC status codes."""

SYNC = "/federation.sync.v1.Federation/Sync"
XDS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


async def replay_token(world: World) -> Refusal | str:
    """Try the token that east has used, with a key of one's own, in a request that is as it should be."""

    async def forge(_: Bundle) -> bytes:
        key, east = ec.generate_private_key(ec.SECP256R1()), TrustDomain.of_cluster("east", BASE)
        return request(key, authority_subject(east.name, HIGHEST_EPOCH, key.public_key()), east.uri)

    token = JoinToken.decode(world.tokens["east"])
    try:
        await redeem(token, "/v1/join", "federation", forge, "east", SystemClock())
    except Refusal as refusal:
        return refusal
    return "the token was accepted again"


async def peer_identity(
    world: World, source: str, destination: str, believed: Path | None = None
) -> str | None:
    """The SPIFFE ID that the destination's first living gateway proves to the source's gateway, or to whoever believes
    the newest authority in the folder `believed` and no other.
    """
    return (await tunnel(world, source, destination, ECHO, believed)).peer


async def tunnel(
    world: World, source: str, destination: str, authority: str, believed: Path | None = None
) -> Outcome:
    """Ask the destination's gateways for `authority`, with the certificate of the source's own gateway; `believed` as
    in `peer_identity`.
    """
    anchor = _anchor(world, destination) if believed is None else _newest(believed)
    outcome = Outcome(End.UNREACHABLE)
    for gateway in world.clusters[destination].gateways:
        name = f"from-{source}.{destination}.{BASE}"
        outcome = await connect_through(gateway.address, name, _own(world, source, anchor), authority)
        if outcome.status is not None:
            return outcome
    return outcome


async def listeners(world: World, cluster: str) -> list[str]:
    """The names of what the gateway of `cluster` listens for, from its Envoy."""
    status = await world.clusters[cluster].gateways[0].status()
    async with connect(Target(f"unix://{status['admin']}")) as admin:
        found: dict[str, Any] = await admin.get("/listeners", format="json")
    return [listener["name"] for listener in found["listener_statuses"]]


def _own(world: World, source: str, anchor: Path) -> Caller:
    state = world.clusters[source].gateways[0].socket.parent
    key = state / "keys" / "gateway.key"
    return Caller(state / "chain.pem", key, anchor, _passphrase(world))


def _passphrase(world: World) -> Passphrase:
    return passphrase.from_file(world.folder / PASSPHRASE)


def _anchor(world: World, cluster: str) -> Path:
    """The newest that the cluster has made."""
    return _newest(world.clusters[cluster].folder / "agent" / "authority")


def _newest(folder: Path) -> Path:
    """It lies in a folder with the number of its epoch, but for the first one."""
    later = sorted(
        (path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    return (later[-1] if later else folder) / SELF_SIGNED


class Forger:
    """West's authority in hostile hands."""

    def __init__(
        self, world: World, folder: Path, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate
    ) -> None:
        self._world = world
        self._folder = folder
        self._key = key
        self._issuer = issuer
        folder.mkdir(exist_ok=True)

    def caller(self, name: str, identities: Sequence[SpiffeId], victim: Path) -> Caller:
        """A certificate for `identities`, in this order, signed by west."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(one)) for one in identities])
        ski = self._issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(names, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(both, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        chain, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        chain.write_bytes(certificate.public_bytes(Encoding.PEM))
        private.touch(0o600)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Caller(chain, private, victim)

    async def to_central(self, name: str, chain: str, identities: Sequence[SpiffeId]) -> Outcome:
        """Present `identities` to central's gateway on its filter chain `from-<chain>`."""
        caller = self.caller(name, identities, _anchor(self._world, "central"))
        gateway = self._world.clusters["central"].gateways[0].address
        return await connect_through(gateway, f"from-{chain}.central.{BASE}", caller, ECHO)


async def forgeries(world: World) -> list[Claim]:
    """Every forgery, tried on every verifier."""
    home = world.clusters["west"].folder / "agent"
    keys = FileKeyStore(home / "keys", _passphrase(world))
    key = await keys.load(min(await keys.names()))
    issuer = load_pem(await asyncio.to_thread((home / "authority" / SELF_SIGNED).read_bytes))[0]
    forger = Forger(world, world.folder / "forged", key, issuer)
    east = SpiffeId.gateway(TrustDomain.of_cluster("east", BASE), "eastwest")
    west = SpiffeId.gateway(TrustDomain.of_cluster("west", BASE), "eastwest")
    return [
        *await _at_gateway(forger, east, west),
        await _at_hub(world, forger),
        await _at_agent(world, forger, east, west),
        _at_validator(forger, issuer, east, west),
    ]


async def _at_gateway(forger: Forger, east: SpiffeId, west: SpiffeId) -> list[Claim]:
    claims = []
    for name, what, identities in (
        ("east", "east's name, signed by west,", [east]),
        ("east-west", "both names, east first,", [east, west]),
        ("west-east", "both names, west first,", [west, east]),
    ):
        outcome = await forger.to_central(f"{name}-on-east", "east", identities)
        text = f"{what} is refused by central's gateway on the chain from-east"
        claims.append(Claim(text, outcome.end is End.REFUSED, str(outcome)))
    honest = await forger.to_central("west-on-west", "west", [west])
    two = await forger.to_central("west-east-on-west", "west", [west, east])
    swapped = await forger.to_central("east-west-on-west", "west", [east, west])
    no_more = (two.end is End.REFUSED or two.status == honest.status) and swapped.end is End.REFUSED
    text = "both names count for no more than west on its own chain"
    claims.append(
        Claim(
            text,
            honest.status == 200 and no_more,
            f"west: {honest}; west first: {two}; east first: {swapped}",
        )
    )
    return claims


async def _at_hub(world: World, forger: Forger) -> Claim:
    """The hub trusts every cluster's authority: only its own look at the names can refuse these."""
    west, east = (SpiffeId.agent(TrustDomain.of_cluster(name, BASE)) for name in ("west", "east"))
    joined = membership(world.clusters["west"].folder / "agent" / "membership.json")
    assert joined is not None
    anchors = world.folder / "forged" / "hub.pem"
    await asyncio.to_thread(anchors.write_bytes, joined.hub_bundle.pem())

    async def call(name: str, identities: Sequence[SpiffeId]) -> Outcome:
        caller = forger.caller(f"agent-{name}", identities, anchors)
        return await call_grpc(world.hub_sync, f"federation.hub.{BASE}", caller, SYNC)

    honest = await call("west", [west])
    forged = {
        "west first": await call("west-east", [west, east]),
        "east first": await call("east-west", [east, west]),
        "east alone": await call("east", [east]),
    }
    return _verdict("the hub lets west's own name in and refuses all of them", honest, forged)


async def _at_agent(world: World, forger: Forger, east: SpiffeId, west: SpiffeId) -> Claim:
    """West's agent trusts west's authority: only its own look at the names can refuse these."""
    server = HostPort.of(str(world.clusters["west"].network.network_address), 8446)

    async def call(name: str, identities: Sequence[SpiffeId]) -> Outcome:
        caller = forger.caller(f"gateway-{name}", identities, _anchor(world, "west"))
        return await call_grpc(server, f"agent.west.{BASE}", caller, XDS)

    honest = await call("west", [west])
    forged = {
        "west first": await call("west-east", [west, east]),
        "east first": await call("east-west", [east, west]),
    }
    return _verdict("an agent lets its gateway's own name in and refuses both names together", honest, forged)


def _verdict(text: str, honest: Outcome, forged: Mapping[str, Outcome]) -> Claim:
    """A server that refuses everybody proves nothing: the honest name has to get in."""
    holds = (
        not _is_refused(honest)
        and honest.end is not End.UNREACHABLE
        and all(map(_is_refused, forged.values()))
    )
    figure = "; ".join(f"{name}: {outcome}" for name, outcome in {"own": honest, **forged}.items())
    return Claim(text, holds, figure)


def _is_refused(outcome: Outcome) -> bool:
    return outcome.end is End.REFUSED or outcome.grpc in (UNAUTHENTICATED, PERMISSION_DENIED)


def _at_validator(forger: Forger, issuer: x509.Certificate, east: SpiffeId, west: SpiffeId) -> Claim:
    domain = TrustDomain.of_cluster("west", BASE)
    bundle = Bundle(domain, 1, (issuer,))
    reasons = []
    for name, identities in (("own", [east]), ("both", [west, east]), ("swapped", [east, west])):
        chain = load_pem(forger.caller(f"validator-{name}", identities, Path("unused")).chain.read_bytes())
        try:
            reasons.append(f"accepted as {verify_peer(chain, {domain: bundle}, datetime.now(UTC))}")
        except Untrusted as error:
            reasons.append(error.reason.value)
    refused = not any(reason.startswith("accepted") for reason in reasons)
    return Claim("our own validation refuses all of them", refused, "; ".join(reasons))
