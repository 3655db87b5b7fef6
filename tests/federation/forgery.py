"""Certificates that an authority's key signs whatever its rules say: right in every respect but their names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pki import issue
from pki.algorithms import digest_for
from pki.certificate import pem
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId, TrustDomain
from tests.gateway.certificates import Identity as Shown
from tests.gateway.process import private


@dataclass(frozen=True)
class Forger:
    """Holds the stolen key of `authority`."""

    authority: Lineage
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, authority: Lineage, keys: Path) -> Forger:
        key = load_pem_private_key(next(keys.glob("*.key")).read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(authority, key)

    def write(self, folder: Path, *uris: str, key: ec.EllipticCurvePrivateKey | None = None) -> Shown:
        """A certificate with these URIs, and its key (a new one by default), as files."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(mode=0o700)
        shown = Shown(folder / "chain.pem", folder / "key.pem")
        shown.chain.write_bytes(pem([self._sign(own.public_key(), uris)]))
        shown.key.write_bytes(private(own))
        return shown

    def _sign(self, key: ec.EllipticCurvePublicKey, uris: tuple[str, ...]) -> x509.Certificate:
        usual = issue.sign(
            issue.leaf(
                _grant(self.authority.trust_domain),
                key,
                self.authority.forms,
                x509.random_serial_number(),
                datetime.now(UTC),
            ),
            self.key,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(usual.subject)
            .issuer_name(usual.issuer)
            .public_key(key)
            .serial_number(usual.serial_number)
            .not_valid_before(usual.not_valid_before_utc)
            .not_valid_after(usual.not_valid_after_utc)
        )
        for extension in usual.extensions:
            value = extension.value
            if isinstance(value, x509.SubjectAlternativeName):
                value = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(value, extension.critical)
        return builder.sign(self.key, digest_for(self.key.public_key()))


def _grant(trust_domain: TrustDomain) -> Grant:
    """For any role that this trust domain has; the names are replaced."""
    wanted = (
        (SpiffeId.gateway(trust_domain, "eastwest"), Attestation.TOKEN),
        (SpiffeId.operator(trust_domain, "ada"), Attestation.ADMINISTRATOR),
    )
    for identity, by in wanted:
        grant = decide(Attested(identity, by), trust_domain)
        if isinstance(grant, Grant):
            return grant
    raise AssertionError(f"no leaf for {trust_domain}")
