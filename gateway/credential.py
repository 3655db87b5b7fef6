"""What a gateway proves itself with: a chain, its key, and the agent that gave it. Checked before it is one.

Refuses a chain that is not for our key, or not of the trust domain of the bundle that came with the attestation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.errors import FederationError
from gateway import names
from gateway.pb.envoy.config.core.v3.base_pb2 import DataSource
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsCertificate
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from gateway.proto import resource
from gateway.snapshot import SECRET, Resource
from pki import bundle as bundles
from pki.bundle import Bundle
from pki.certificate import authority_key_id, load_pem, pem
from pki.spiffe import SpiffeId
from pki.validate import verify_peer


class Attested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an attestation brought, besides the certificate: `agent` is a URL, `xds` is `host:port`, `token` the hash
    (SHA-256, hex) of the one that was used, empty where an earlier version did not note it.
    """

    agent: str
    xds: str
    base: str
    bundle: bytes
    token: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A chain and its key, both in PEM; made by `checked` or `restored`."""

    spiffe_id: SpiffeId
    certificate: x509.Certificate
    chain: bytes
    key: bytes = field(repr=False)
    bundle: Bundle
    attested: Attested

    @property
    def server_name(self) -> str:
        """The DNS SAN of the agent's identity."""
        return f"agent.{self.spiffe_id.trust_domain}"

    @property
    def gateway_class(self) -> str:
        return self.spiffe_id.path.removeprefix("/gateway/")

    @property
    def cluster(self) -> str:
        domain = self.spiffe_id.trust_domain
        return domain.cluster(self.attested.base) or str(domain)

    @property
    def issuer(self) -> bytes:
        """The key identifier of the authority that issued it."""
        return authority_key_id(self.certificate) or b""

    def trusting(self, bundle: Bundle) -> Credential:
        """The same, going by a newer bundle of its trust domain."""
        attested = msgspec.structs.replace(self.attested, bundle=bundles.encode(bundle))
        return replace(self, bundle=bundle, attested=attested)

    @property
    def ends(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def secret(self) -> Resource:
        """As Envoy wants it. The one secret that no agent makes."""
        certificate = TlsCertificate(
            certificate_chain=DataSource(inline_bytes=self.chain),
            private_key=DataSource(inline_bytes=self.key),
        )
        return resource(SECRET, names.IDENTITY, Secret(name=names.IDENTITY, tls_certificate=certificate))


@dataclass(frozen=True, slots=True)
class Presented:
    """What this gateway shows to others: when its certificate ends, the key identifier of its issuer, and the version
    of its own trust domain's bundle that it goes by."""

    ends: datetime
    issuer: bytes
    bundle: tuple[int, int]


def checked(chain: bytes, key: ec.EllipticCurvePrivateKey, attested: Attested, now: datetime) -> Credential:
    """The credential of a chain (PEM) that is valid `now`. Raises PkiError, or FederationError for another key's."""
    bundle = bundles.decode(attested.bundle)
    certificates = load_pem(chain)
    spiffe_id = verify_peer(certificates, {bundle.trust_domain: bundle}, now)
    if certificates[0].public_key() != key.public_key():
        raise FederationError("the certificate is not for this gateway's key")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credential(spiffe_id, certificates[0], pem(certificates), private, bundle, attested)


def restored(chain: bytes, key: ec.EllipticCurvePrivateKey, attested: Attested, now: datetime) -> Credential:
    """As `checked`, for a chain that was when it came: one that has expired since is a credential too."""
    leaf = load_pem(chain)[0]
    return checked(chain, key, attested, min(max(now, leaf.not_valid_before_utc), leaf.not_valid_after_utc))
