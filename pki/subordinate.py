"""The one rule by which a root signs an authority, whoever holds the root's key: here, in a vault, in a safe.

Of a request only key and subject are read, and the subject must be exactly the one that our own rule gives to that key
in that trust domain. Which trust domain it may be says whoever admitted the request, never the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import csr, issue
from pki.certificate import (
    authority_trust_domain,
    check_authority,
    check_time,
    load_pem,
    public_key,
    signed_by,
)
from pki.errors import Refused, Untrusted
from pki.intermediate import CURVE, Grant
from pki.issue import Template
from pki.profiles import CLUSTER_CA_ROOTED, HIGHEST_EPOCH, Profile, authority_subject, epoch_of
from pki.spiffe import TrustDomain


@dataclass(frozen=True, slots=True)
class Subordinate:
    """An authority that asks for its root-signed form, and holds `key`."""

    trust_domain: TrustDomain
    epoch: int
    key: ec.EllipticCurvePublicKey

    @property
    def key_id(self) -> bytes:
        """The subject key identifier of its certificates."""
        return x509.SubjectKeyIdentifier.from_public_key(self.key).digest

    def template(
        self, root: x509.Certificate, serial: int, now: datetime, profile: Profile = CLUSTER_CA_ROOTED
    ) -> Template:
        """What `root` is to sign, with name constraints or without. Raises `Refused` when the root ends too early."""
        return issue.rooted_authority(self.trust_domain, self.epoch, self.key, root, serial, now, profile)


@dataclass(frozen=True, slots=True)
class Foreign:
    """An authority of another system, as granted, for whoever holds `key`."""

    grant: Grant
    key: ec.EllipticCurvePublicKey

    def template(self, root: x509.Certificate, serial: int, now: datetime) -> Template:
        """What `root` is to sign. Raises `Refused` when the root ends too early."""
        return issue.intermediate_authority(self.grant, self.key, root, serial, now)


def read_foreign(request: bytes, grant: Grant) -> Foreign:
    """What is granted, for the key of a CSR of at most 16 KiB. Raises `Refused`."""
    key = csr.parse(request).public_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != CURVE:
        raise Refused("csr", "the key of an intermediate is ECDSA on P-256")
    return Foreign(grant, key)


def read_request(request: bytes, trust_domain: TrustDomain, base: str) -> Subordinate:
    """What a CSR of at most 16 KiB asks a root of `base` for. Raises `Refused`."""
    if trust_domain.cluster(base) is None and trust_domain != TrustDomain.of_hub(base):
        raise Refused("trust domain", f"{trust_domain} is not one under {base}")
    asked = csr.parse(request)
    key = asked.public_key
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused("csr", "the key of an authority is ECDSA on P-256 or P-384")
    epoch = epoch_of(asked.subject)
    if epoch is None or not 1 <= epoch <= HIGHEST_EPOCH:
        raise Refused("csr", "its subject carries no epoch")
    if asked.subject != authority_subject(trust_domain.name, epoch, key):
        raise Refused("csr", f"its subject is not that of an authority of {trust_domain} with this key")
    return Subordinate(trust_domain, epoch, key)


def read_anchor(data: bytes, asked: Subordinate, now: datetime) -> x509.Certificate:
    """The self-signed form (PEM) of the authority that asks. Raises `Refused` if key or name are not the same."""
    try:
        (anchor,) = load_pem(data, most=1)
        check_authority(anchor)
        check_time(anchor, now)
        fits = (
            public_key(anchor) == asked.key
            and anchor.subject == authority_subject(asked.trust_domain.name, asked.epoch, asked.key)
            and authority_trust_domain(anchor) == asked.trust_domain
            and signed_by(anchor, anchor)
        )
    except (Untrusted, ValueError) as error:
        raise Refused("anchor", str(error)) from error
    if not fits:
        raise Refused("anchor", "it is not the self-signed form of the authority that asks")
    return anchor
