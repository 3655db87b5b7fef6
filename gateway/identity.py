"""A gateway's own key and certificate: made here, attested once with a one-time token, renewed at half life.

The private key never leaves this machine; Envoy gets it over its unix socket, as the secret `identity`. A new
certificate is on disk before anybody uses it. Connections that are there stay as they are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.api.client import Target, connect
from federation.api.messages import Renew, Renewed
from federation.api.redeem import redeem
from federation.api.tls import client_context
from federation.clock import Clock
from federation.errors import FederationError, Unreachable
from federation.retry import Backoff
from gateway import names
from gateway.pb.envoy.config.core.v3.base_pb2 import DataSource
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsCertificate
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from gateway.proto import resource
from gateway.snapshot import SECRET, Resource
from gateway.xds.client import Dial
from pki import bundle as bundles
from pki import csr, durable
from pki.bundle import Bundle
from pki.certificate import load_pem, pem
from pki.errors import KeyMissing, PkiError
from pki.keys.file import FileKeyStore
from pki.renewal import renew_at
from pki.spiffe import SpiffeId
from pki.token import JoinToken
from pki.validate import verify_peer

KEY = "gateway"
LONGEST_FILE = 64 * 1024

LONGEST_WAIT = 3600.0
"""Seconds after which the wall clock is looked at again: it may have jumped."""

SOONEST_RETRY = 10.0
LATEST_RETRY = 600.0
RETRIES_LEFT = 20
"""A renewal that failed is tried again so often that about this many attempts fit into the time that is left."""

SHORTEST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0
"""Seconds between attempts to reach the agent at the first start."""

log = structlog.get_logger()


class _Attested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an attestation brought, besides the certificate."""

    agent: str
    xds: str
    base: str
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """A chain with its key, and the agent that it is for: `agent` is a URL, `xds` is `host:port`."""

    spiffe_id: SpiffeId
    certificate: x509.Certificate
    chain: bytes
    key: bytes = field(repr=False)
    agent: str
    xds: str
    base: str
    bundle: Bundle

    @property
    def server_name(self) -> str:
        """The DNS SAN of the agent's identity."""
        return f"agent.{self.spiffe_id.trust_domain}"

    @property
    def gateway_class(self) -> str:
        return self.spiffe_id.path.removeprefix("/gateway/")

    @property
    def cluster(self) -> str:
        return self.spiffe_id.trust_domain.cluster(self.base) or str(self.spiffe_id.trust_domain)

    def dial(self) -> Dial:
        """How to reach the agent's port for gateways. Trusts the trust domain of this cluster only."""
        return Dial((self.xds,), self.server_name, self.bundle.pem(), self.chain, self.key)

    def secret(self) -> Resource:
        """As Envoy wants it. The one secret that no agent makes."""
        certificate = TlsCertificate(
            certificate_chain=DataSource(inline_bytes=self.chain),
            private_key=DataSource(inline_bytes=self.key),
        )
        return resource(SECRET, names.IDENTITY, Secret(name=names.IDENTITY, tls_certificate=certificate))


class GatewayIdentity:
    """The credential of the gateway `name`, in `folder`. `listener` is told of each renewal."""

    def __init__(self, name: str, folder: Path, clock: Clock) -> None:
        self._name = name
        self._folder = durable.private_folder(folder)
        self._keys = FileKeyStore(folder / "keys")
        self._clock = clock
        self._current: Credential | None = None
        self.listener: Callable[[Credential], None] = lambda credential: None
        self.problem = ""

    @property
    def current(self) -> Credential:
        if self._current is None:
            raise FederationError("the gateway has no certificate yet")
        return self._current

    async def start(self, token_file: Path | None) -> None:
        """Take the certificate on disk, else attest with the token. Raises FederationError or PkiError."""
        durable.sweep(self._folder)
        self._current = await self._stored()
        if self._current is None or self._current.certificate.not_valid_after_utc <= self._clock.now():
            self._current = await self._attest(token_file)

    async def run(self) -> None:
        """Renew in time, for ever."""
        while True:
            certificate = self.current.certificate
            wait = (renew_at(certificate) - self._clock.now()).total_seconds()
            if wait <= 0 and await self._renewed():
                continue
            if wait <= 0:
                left = (certificate.not_valid_after_utc - self._clock.now()).total_seconds()
                wait = retry_after(left) * random.uniform(0.5, 1.0)
            await self._clock.sleep(min(wait, LONGEST_WAIT))

    async def renew(self) -> None:
        """A new certificate for the same key. Raises Unreachable, Refusal, or PkiError if it is not as expected."""
        current = self.current
        tls = client_context(current.bundle.anchors, self._chain_file, self._key_file)
        request = await asyncio.to_thread(csr.request, await self._keys.load(KEY))
        async with connect(Target(current.agent, tls, current.server_name)) as client:
            answer = await client.call("POST", "/v1/renew", body=Renew(csr=request.decode()))
        try:
            chain = "".join(msgspec.convert(answer, Renewed).certificates).encode()
        except msgspec.ValidationError as error:
            raise FederationError(f"{current.agent} does not speak this version: {error}") from error
        renewed = await self._credential(chain, _attested(current))
        await asyncio.to_thread(durable.write, self._chain_file, chain)
        self._current = renewed
        log.info("certificate renewed", expires=renewed.certificate.not_valid_after_utc.isoformat())
        self.listener(renewed)

    async def _renewed(self) -> bool:
        try:
            await self.renew()
        except (FederationError, PkiError) as error:
            self.problem = f"the certificate cannot be renewed: {error}"
            log.error(self.problem, expires=self.current.certificate.not_valid_after_utc.isoformat())
            return False
        self.problem = ""
        return True

    @property
    def _attested_file(self) -> Path:
        return self._folder / "attested.json"

    @property
    def _chain_file(self) -> Path:
        return self._folder / "chain.pem"

    @property
    def _key_file(self) -> Path:
        return self._folder / "keys" / f"{KEY}.key"

    async def _stored(self) -> Credential | None:
        if not self._attested_file.exists() or not self._chain_file.exists():
            return None
        try:
            attested = msgspec.json.decode(
                durable.read_private(self._attested_file, LONGEST_FILE), type=_Attested
            )
            chain = durable.read_private(self._chain_file, LONGEST_FILE)
            return await self._credential(chain, attested, expired_too=True)
        except (msgspec.MsgspecError, PkiError, ValueError) as error:
            raise FederationError(
                f"the identity in {self._folder} cannot be read: {error}",
                "move the folder away and start again with a new token",
            ) from error

    async def _attest(self, token_file: Path | None) -> Credential:
        if token_file is None:
            raise FederationError(
                "this gateway has no valid certificate, and no token to get one",
                "make one with `federation token create --gateway` at the agent, and name its file in `token`",
            )
        token = JoinToken.decode(_read(token_file))
        if token.kind != "attest":
            raise FederationError(
                f"the token in {token_file} is not for a gateway",
                "make one with `federation token create --gateway` at the agent",
            )
        key = await self._key()

        async def request(_: Bundle) -> bytes:
            return await asyncio.to_thread(csr.request, key)

        backoff = Backoff(self._clock, SHORTEST_BACKOFF, LONGEST_BACKOFF)
        while True:
            try:
                redemption = await redeem(token, "/v1/attest", "agent", request, self._name, self._clock)
                break
            except Unreachable as error:
                self.problem = str(error)
                log.warning("the agent does not answer, trying again", reason=str(error))
                await backoff.wait()
        answer = redemption.answer
        attested = _Attested(token.url, answer.address, answer.base, bundles.encode(redemption.bundle))
        chain = "".join(answer.certificates).encode()
        credential = await self._credential(chain, attested)
        await asyncio.to_thread(durable.write, self._chain_file, chain)
        await asyncio.to_thread(durable.write, self._attested_file, msgspec.json.encode(attested))
        self.problem = ""
        log.info("attested", identity=str(credential.spiffe_id), agent=token.url)
        return credential

    async def _key(self) -> ec.EllipticCurvePrivateKey:
        """The key that this gateway has, or a new one: a token belongs to the key that used it first."""
        try:
            return await self._keys.load(KEY)
        except KeyMissing:
            return await self._keys.create(KEY)

    async def _credential(
        self, chain: bytes, attested: _Attested, *, expired_too: bool = False
    ) -> Credential:
        """Checked: the chain is for our key, and for a gateway of the trust domain of the bundle. Raises PkiError."""
        key = await self._keys.load(KEY)
        bundle = bundles.decode(attested.bundle)
        certificates = load_pem(chain)
        moment = _within(certificates[0], self._clock.now()) if expired_too else self._clock.now()
        spiffe_id = verify_peer(certificates, {bundle.trust_domain: bundle}, moment)
        if certificates[0].public_key() != key.public_key():
            raise FederationError("the certificate is not for this gateway's key")
        return Credential(
            spiffe_id,
            certificates[0],
            pem(certificates),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            attested.agent,
            attested.xds,
            attested.base,
            bundle,
        )


def retry_after(left: float) -> float:
    """Seconds until a failed renewal is tried again, `left` seconds before the certificate ends."""
    return min(max(left / RETRIES_LEFT, SOONEST_RETRY), LATEST_RETRY)


def _within(certificate: x509.Certificate, now: datetime) -> datetime:
    """`now`, or the nearest moment at which the certificate is valid: what is stored was verified when it came."""
    return min(max(now, certificate.not_valid_before_utc), certificate.not_valid_after_utc)


def _attested(current: Credential) -> _Attested:
    return _Attested(current.agent, current.xds, current.base, bundles.encode(current.bundle))


def _read(token_file: Path) -> str:
    try:
        return token_file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise FederationError(f"the token in {token_file} cannot be read: {reason}") from error
