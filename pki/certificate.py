"""What one certificate says, and the small checks that need no other certificate and no issuer.

Every check raises `Untrusted` with one reason. Parsing in the library below is lazy, so each access is
guarded here: a certificate that cannot be read is `MALFORMED`, never a `ValueError` somewhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from pki.algorithms import ALL_KINDS, SIGNATURES, USUAL_KINDS, KeyKind, weakness
from pki.errors import Distrust, InvalidSpiffeId, Untrusted
from pki.spiffe import SpiffeId, TrustDomain

E = TypeVar("E", bound=x509.ExtensionType)

LONGEST_CERTIFICATE = 8 * 1024
"""Bytes of DER; ours are under 1 KiB."""

TLS_ROLES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for bytes that it cannot parse, at once or when a part is first looked at."""

_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.NAME_CONSTRAINTS,
    }
)


def load_der(data: bytes) -> x509.Certificate:
    """Parse one DER certificate of at most 8 KiB; raises `Untrusted`."""
    if len(data) > LONGEST_CERTIFICATE:
        raise Untrusted(Distrust.MALFORMED, f"{len(data)} bytes, allowed are {LONGEST_CERTIFICATE}")
    try:
        return x509.load_der_x509_certificate(data)
    except UNREADABLE as error:
        raise Untrusted(Distrust.MALFORMED, "not a DER certificate") from error


def load_pem(data: bytes, most: int = 8) -> tuple[x509.Certificate, ...]:
    """Parse 1 to `most` PEM certificates; raises `Untrusted`."""
    if len(data) > 2 * most * LONGEST_CERTIFICATE:
        raise Untrusted(Distrust.MALFORMED, f"{len(data)} bytes of PEM are too many")
    try:
        found = tuple(x509.load_pem_x509_certificates(data))
    except UNREADABLE as error:
        raise Untrusted(Distrust.MALFORMED, "not PEM certificates") from error
    if len(found) > most:
        raise Untrusted(Distrust.MALFORMED, f"{len(found)} certificates, allowed are {most}")
    return found


def der(certificate: x509.Certificate) -> bytes:
    """The DER bytes of a certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Certificates as one PEM text, in the given order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def readable(name: x509.Name) -> str:
    """A distinguished name as people read it (RFC 4514), with a word for the serial number in it."""
    return name.rfc4514_string({NameOID.SERIAL_NUMBER: "serialNumber"})


def extension(certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E] | None:
    """The extension of that kind, or None; raises `Untrusted` when any is malformed or appears twice."""
    try:
        found: x509.Extension[Any] = certificate.extensions.get_extension_for_oid(kind.oid)
        return found
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as error:
        raise Untrusted(Distrust.MALFORMED, "an extension of it cannot be parsed") from error


def public_key(
    certificate: x509.Certificate, kinds: Collection[KeyKind] = ALL_KINDS
) -> CertificatePublicKeyTypes:
    """The public key, if it is a good one of one of `kinds`; raises `Untrusted`."""
    try:
        key = certificate.public_key()
    except UNREADABLE as error:
        raise Untrusted(Distrust.KEY, "it cannot be parsed") from error
    if (reason := weakness(key, kinds)) is not None:
        raise Untrusted(Distrust.KEY, reason)
    return key


def subject_key_id(certificate: x509.Certificate) -> bytes:
    """The subject key identifier; raises `Untrusted` when it is missing."""
    found = extension(certificate, x509.SubjectKeyIdentifier)
    if found is None:
        raise Untrusted(Distrust.KEY_IDENTIFIER, "no subject key identifier")
    return found.value.digest


def authority_key_id(certificate: x509.Certificate) -> bytes | None:
    """The key identifier of the issuer; None when there is none, as a self-signed certificate may."""
    found = extension(certificate, x509.AuthorityKeyIdentifier)
    return found.value.key_identifier if found is not None else None


def alternative_names(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """All subject alternative names, none when there is no such extension."""
    found = extension(certificate, x509.SubjectAlternativeName)
    return tuple(found.value) if found is not None else ()


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the names fit and the signature verifies with the issuer's key. Says nothing about the issuer."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def signed_with(certificate: x509.Certificate, data: bytes, key: CertificatePublicKeyTypes) -> bool:
    """Whether the signature is by `key`, ECDSA as all of our authorities sign. Names are not looked at.

    `data` is what `certificate` was parsed from: what is signed is what is there, not what would be written again.
    """
    digest = certificate.signature_hash_algorithm
    if not isinstance(key, ec.EllipticCurvePublicKey) or digest is None:
        return False
    try:
        key.verify(certificate.signature, to_be_signed(data), ec.ECDSA(digest))
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def to_be_signed(data: bytes) -> bytes:
    """The TBSCertificate (DER) in a certificate (DER), its first element (RFC 5280 §4.1)."""
    start, _ = _content(data, 0)
    return data[start : _content(data, start)[1]]


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends (X.690 §8.1.3)."""
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[at + 2 : start])
    return start, start + length


def check_readable(certificate: x509.Certificate) -> None:
    """Touch every part that is parsed lazily, so that nothing behind this raises anything but `Untrusted`."""
    try:
        _ = certificate.version, certificate.serial_number, certificate.subject, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        _ = certificate.signature_algorithm_oid, certificate.extensions
    except UNREADABLE as error:
        raise Untrusted(Distrust.MALFORMED, "a part of it cannot be parsed") from error


def check_form(certificate: x509.Certificate) -> None:
    """Version 3, a good key and signature algorithm, no critical extension that we do not understand.

    RFC 5280 §4.2: a critical extension that is not processed makes the certificate unusable.
    """
    check_readable(certificate)
    if certificate.version is not x509.Version.v3:
        raise Untrusted(Distrust.NOT_V3)
    if certificate.serial_number <= 0:
        raise Untrusted(Distrust.MALFORMED, "its serial number is not positive")
    public_key(certificate)
    if certificate.signature_algorithm_oid not in SIGNATURES:
        raise Untrusted(Distrust.ALGORITHM, certificate.signature_algorithm_oid.dotted_string)
    for found in certificate.extensions:
        if found.critical and found.oid not in _UNDERSTOOD:
            raise Untrusted(Distrust.CRITICAL_EXTENSION, found.oid.dotted_string)


def check_time(certificate: x509.Certificate, now: datetime) -> None:
    """Both ends of the validity are inclusive, with a resolution of seconds (RFC 5280 §4.1.2.5)."""
    second = now.replace(microsecond=0)
    if second < certificate.not_valid_before_utc:
        wait = certificate.not_valid_before_utc - second
        raise Untrusted(Distrust.NOT_YET_VALID, f"starts in {wait.total_seconds():.0f} s; is a clock wrong?")
    if second > certificate.not_valid_after_utc:
        ago = second - certificate.not_valid_after_utc
        raise Untrusted(Distrust.EXPIRED, f"{ago.total_seconds():.0f} s ago")


def check_authority(certificate: x509.Certificate) -> None:
    """The form of what may issue others: a critical CA mark, keyCertSign, a key identifier, no EKU."""
    check_form(certificate)
    public_key(certificate, USUAL_KINDS)
    basic = extension(certificate, x509.BasicConstraints)
    if basic is None or not basic.critical or not basic.value.ca:
        raise Untrusted(Distrust.BASIC_CONSTRAINTS, "not marked as an authority")
    usage = extension(certificate, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.key_cert_sign:
        raise Untrusted(Distrust.KEY_USAGE, "may not sign certificates")
    if extension(certificate, x509.ExtendedKeyUsage) is not None:
        raise Untrusted(Distrust.EXTENDED_KEY_USAGE, "an authority must not carry one")
    subject_key_id(certificate)


def authority_trust_domain(certificate: x509.Certificate) -> TrustDomain | None:
    """The trust domain in the single URI SAN of an authority's certificate; None when it has no SAN."""
    uris, others = _alternative_names(certificate)
    if not uris and not others:
        return None
    if len(uris) != 1 or others:
        raise Untrusted(Distrust.URI_COUNT, "an authority names one trust domain and nothing else")
    try:
        return TrustDomain.parse_uri(uris[0])
    except InvalidSpiffeId as error:
        raise Untrusted(Distrust.SPIFFE_ID, error.reason) from error


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """The identity that a leaf claims, if its form allows it to claim one (X509-SVID §2 to §4).

    One URI SAN that is a SPIFFE ID, besides it DNS names only; not an authority; digitalSignature and nothing
    that signs certificates; both TLS roles; key identifiers; a critical SAN when the subject is empty. Proves
    nothing yet.
    """
    check_form(certificate)
    uris, _ = _alternative_names(certificate)
    if len(uris) != 1:
        raise Untrusted(Distrust.URI_COUNT, f"found {len(uris)}")
    basic = extension(certificate, x509.BasicConstraints)
    if basic is None or basic.value.ca:
        raise Untrusted(Distrust.BASIC_CONSTRAINTS, "a leaf must be marked as no authority")
    usage = extension(certificate, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.digital_signature:
        raise Untrusted(Distrust.KEY_USAGE, "a leaf needs digitalSignature, critical")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise Untrusted(Distrust.KEY_USAGE, "a leaf must not sign certificates or CRLs")
    roles = extension(certificate, x509.ExtendedKeyUsage)
    if roles is None or not set(roles.value) >= TLS_ROLES:
        raise Untrusted(Distrust.EXTENDED_KEY_USAGE)
    if extension(certificate, x509.NameConstraints) is not None:
        raise Untrusted(Distrust.NAME_CONSTRAINTS, "a leaf must not carry them")
    subject_key_id(certificate)
    names = extension(certificate, x509.SubjectAlternativeName)
    if names is not None and not certificate.subject.rdns and not names.critical:
        raise Untrusted(Distrust.CRITICAL_EXTENSION, "the SAN must be critical when the subject is empty")
    try:
        return SpiffeId.parse(uris[0])
    except InvalidSpiffeId as error:
        raise Untrusted(Distrust.SPIFFE_ID, error.reason) from error


def _alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """URI and DNS names; any other kind of name is refused."""
    uris: list[str] = []
    others: list[str] = []
    for name in alternative_names(certificate):
        match name:
            case x509.UniformResourceIdentifier():
                uris.append(name.value)
            case x509.DNSName():
                others.append(name.value)
            case _:
                raise Untrusted(Distrust.SAN_KIND, type(name).__name__)
    return tuple(uris), tuple(others)


def presented_chain(auth_context: Mapping[str, Iterable[bytes | str]]) -> bytes:
    """What a gRPC client presented, as PEM, leaf first; empty without TLS. `auth_context` is that of grpcio.

    On a server grpcio leaves the leaf out of the chain, as SSL_get_peer_cert_chain of OpenSSL does.
    """
    leaf = b"".join(map(_bytes, auth_context.get("x509_pem_cert", ())))
    above = b"".join(map(_bytes, auth_context.get("x509_pem_cert_chain", ())))
    return above if above.startswith(leaf) else leaf + above


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
