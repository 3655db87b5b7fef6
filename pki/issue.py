"""From a decision to a certificate, in two steps: a `Template` says all that will be signed, `sign` signs it.

Templates are pure values, so that the journal can record what is about to be signed before it is. Nothing of
a request but its public key enters one. `sign` may block for as long as the key needs (a token, a remote
signer): call it in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from pki import constraints, encode, intermediate
from pki.algorithms import PublicKey, digest_for, spki, weakness
from pki.certificate import der, subject_key_id
from pki.errors import Refused
from pki.policy import Grant
from pki.profiles import (
    BACKDATE,
    CLUSTER_CA,
    CLUSTER_CA_ROOTED,
    INTERMEDIATE,
    ROOT,
    SHORTEST_LEAF,
    Profile,
    authority_subject,
)
from pki.spiffe import TrustDomain

NO_REVOCATION_AVAILABLE = ObjectIdentifier("2.5.29.56")
"""RFC 9608: there is no CRL and no OCSP for this short-lived certificate, so do not look for one."""

_NULL = b"\x05\x00"
_NOBODY = x509.Name([])
"""The subject of a leaf: who it is, its SAN says."""
_NOBODY_BYTES = _NOBODY.public_bytes()


@dataclass(frozen=True)
class Template:
    """All that one certificate will say. Times are UTC, in whole seconds. What is encoded of it is encoded once."""

    profile: Profile
    serial: int
    subject: x509.Name
    issuer: x509.Name
    public_key: PublicKey
    subject_key_id: bytes
    authority_key_id: bytes
    uri: str | None
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    @cached_property
    def subject_bytes(self) -> bytes:
        """The subject, as DER."""
        return _NOBODY_BYTES if self.subject is _NOBODY else self.subject.public_bytes()

    @cached_property
    def issuer_bytes(self) -> bytes:
        """The issuer's name, as DER."""
        return self.issuer.public_bytes()

    @cached_property
    def key_bytes(self) -> bytes:
        """The SubjectPublicKeyInfo, as DER."""
        return spki(self.public_key)

    def digest(self) -> bytes:
        """SHA-256 over every field: what the journal records before signing."""
        fields = (
            self.profile.name,
            str(self.serial),
            self.subject_bytes,
            self.issuer_bytes,
            self.key_bytes,
            self.subject_key_id,
            self.authority_key_id,
            self.uri,
            self.dns_names,
            self.not_before,
            self.not_after,
        )
        return hashlib.sha256(msgspec.json.encode(fields)).digest()


def root_authority(domain: str, epoch: int, key: PublicKey, serial: int, now: datetime) -> Template:
    """The root of an installation; `domain` (its base) only makes the subject readable."""
    return _self_issued(ROOT, authority_subject(domain, epoch, key), None, key, serial, now)


def cluster_authority(
    trust_domain: TrustDomain, epoch: int, key: PublicKey, serial: int, now: datetime
) -> Template:
    """The self-signed form of a cluster CA: the anchor of its trust domain."""
    subject = authority_subject(trust_domain.name, epoch, key)
    return _self_issued(CLUSTER_CA, subject, trust_domain.uri, key, serial, now)


def rooted_authority(
    trust_domain: TrustDomain,
    epoch: int,
    key: PublicKey,
    root: x509.Certificate,
    serial: int,
    now: datetime,
    profile: Profile = CLUSTER_CA_ROOTED,
) -> Template:
    """The root-signed form of a cluster CA: same key, subject and key identifier as the self-signed one.

    `profile` is CLUSTER_CA_ROOTED or CLUSTER_CA_CONSTRAINED. Raises `Refused` when the root ends before this
    certificate would.
    """
    start, end = _validity(now, profile.lifetime)
    if end > root.not_valid_after_utc:
        left = root.not_valid_after_utc - start
        raise Refused(
            "validity", f"the root has {left.days} days left, too few for a cluster CA; renew the root first"
        )
    return Template(
        profile=profile,
        serial=serial,
        subject=authority_subject(trust_domain.name, epoch, key),
        issuer=root.subject,
        public_key=key,
        subject_key_id=_key_id(key),
        authority_key_id=subject_key_id(root),
        uri=trust_domain.uri,
        dns_names=(),
        not_before=max(start, root.not_valid_before_utc),
        not_after=end,
    )


def intermediate_authority(
    grant: intermediate.Grant, key: PublicKey, root: x509.Certificate, serial: int, now: datetime
) -> Template:
    """The authority of another system, as granted. Raises `Refused` when the root ends before it would."""
    start, end = _validity(now, grant.lifetime)
    if end > root.not_valid_after_utc:
        left = (root.not_valid_after_utc - now).days
        raise Refused("lifetime", f"requested {grant.lifetime.days} days; the root has {left} days left")
    return Template(
        profile=INTERMEDIATE,
        serial=serial,
        subject=grant.subject(key),
        issuer=root.subject,
        public_key=key,
        subject_key_id=_key_id(key),
        authority_key_id=subject_key_id(root),
        uri=grant.uri,
        dns_names=grant.dns_names,
        not_before=max(start, root.not_valid_before_utc),
        not_after=end,
    )


def leaf(
    grant: Grant, key: PublicKey, issuer: Sequence[x509.Certificate], serial: int, now: datetime
) -> Template:
    """A leaf as granted, within the life of each form in `issuer`, all of one cluster CA.

    `not_after` is cut to the shortest of them, since verifiers accept a leaf that outlives its issuer until
    the day they do not. Raises `Refused` when an issuer has too little life left, or the key is not of a kind
    that is granted.
    """
    if (reason := weakness(key, grant.keys)) is not None:
        raise Refused("key", reason)
    start, end = _validity(now, grant.lifetime)
    end = min(end, *(form.not_valid_after_utc for form in issuer))
    if end - now < min(grant.lifetime, 2 * SHORTEST_LEAF):
        raise Refused(
            "validity", f"the authority ends at {end.isoformat()}, too soon to issue; rotate it first"
        )
    return Template(
        profile=grant.profile,
        serial=serial,
        subject=_NOBODY,
        issuer=issuer[0].subject,
        public_key=key,
        subject_key_id=_key_id(key),
        authority_key_id=subject_key_id(issuer[0]),
        uri=str(grant.spiffe_id),
        dns_names=grant.dns_names,
        not_before=max(start, *(form.not_valid_before_utc for form in issuer)),
        not_after=end,
    )


def sign(template: Template, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Build and sign. Blocking; raises whatever the key raises."""
    return x509.load_der_x509_certificate(signed(template, key))


def signed(template: Template, key: ec.EllipticCurvePrivateKey) -> bytes:
    """As `sign`, the certificate as DER."""
    return der(built(template, key)) if template.profile.authority else encode.sign(template, key)


def built(template: Template, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """As `sign`, always by the library's builder."""
    builder = (
        x509.CertificateBuilder()
        .serial_number(template.serial)
        .subject_name(template.subject)
        .issuer_name(template.issuer)
        .public_key(template.public_key)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    for value, critical in _extensions(template):
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(key, digest_for(key.public_key()))


def _self_issued(
    profile: Profile, subject: x509.Name, uri: str | None, key: PublicKey, serial: int, now: datetime
) -> Template:
    start, end = _validity(now, profile.lifetime)
    key_id = _key_id(key)
    return Template(
        profile=profile,
        serial=serial,
        subject=subject,
        issuer=subject,
        public_key=key,
        subject_key_id=key_id,
        authority_key_id=key_id,
        uri=uri,
        dns_names=(),
        not_before=start,
        not_after=end,
    )


def _extensions(template: Template) -> list[tuple[x509.ExtensionType, bool]]:
    """Extensions, each with its criticality. More than the key id in the AKI would break cross-signing."""
    authority = template.profile.authority
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=authority, path_length=template.profile.path_length), True),
        (_key_usage(authority), True),
        (x509.SubjectKeyIdentifier(template.subject_key_id), False),
        (x509.AuthorityKeyIdentifier(template.authority_key_id, None, None), False),
    ]
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in template.dns_names]
    if template.uri is not None:
        names.insert(0, x509.UniformResourceIdentifier(template.uri))
    if names:
        # RFC 5280 §4.1.2.6: with an empty subject the SAN is critical.
        found.append((x509.SubjectAlternativeName(names), not template.subject.rdns))
    if template.profile.constrained and template.uri is not None:
        found.append((constraints.permitting(TrustDomain.parse_uri(template.uri)), True))
    if not authority:
        roles = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        found.append((x509.ExtendedKeyUsage(roles), False))
        found.append((x509.UnrecognizedExtension(NO_REVOCATION_AVAILABLE, _NULL), False))
    return found


def _key_usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(key: PublicKey) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def _validity(now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    second = now.replace(microsecond=0)
    return second - BACKDATE, second + lifetime
