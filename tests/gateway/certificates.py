"""Cluster CAs and leaves for tests with a real Envoy: correct ones, and ones that no honest CA would sign."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway import names
from pki import issue
from pki.bundle import Bundle
from pki.certificate import pem
from pki.spiffe import TrustDomain

BASE = "mesh.example"


@dataclass(frozen=True)
class Ca:
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def trust_domain(self) -> TrustDomain:
        return TrustDomain.of_cluster(self.name, BASE)

    @property
    def bundle(self) -> Bundle:
        return Bundle(self.trust_domain, 1, (self.certificate,))

    def write(self, folder: Path, *uris: str) -> Identity:
        """A certificate with these URIs, by default the one of this cluster's gateways, and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(key.public_key(), uris or (str(names.gateway_id(self.trust_domain)),))
        folder.mkdir(mode=0o700, parents=True)
        identity = Identity(folder / "chain.pem", folder / "key.pem")
        identity.chain.write_bytes(pem((leaf, self.certificate)))
        identity.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        identity.key.chmod(0o600)
        return identity

    def _sign(self, key: ec.EllipticCurvePublicKey, uris: tuple[str, ...]) -> x509.Certificate:
        now = datetime.now(UTC)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        roles = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names_in_it = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(roles, critical=False)
            .add_extension(names_in_it, critical=True)
            .sign(self.key, hashes.SHA256())
        )


@dataclass(frozen=True)
class Identity:
    """Where a certificate chain and its key are."""

    chain: Path
    key: Path


@cache
def ca(name: str) -> Ca:
    """The CA of the cluster `name`, made once."""
    key = ec.generate_private_key(ec.SECP256R1())
    domain = TrustDomain.of_cluster(name, BASE)
    template = issue.cluster_authority(
        domain, 1, key.public_key(), x509.random_serial_number(), datetime.now(UTC)
    )
    return Ca(name, key, issue.sign(template, key))
