"""What a certificate must be to become the root of a federation, whoever made it.

Ours are so by construction. One that an organisation has already is looked at with these rules; each that it breaks is
said, because whoever brings it can do something about that, and only before everybody has pinned it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki.certificate import (
    authority_key_id,
    check_form,
    check_time,
    extension,
    public_key,
    signed_by,
    subject_key_id,
)
from pki.errors import Distrust, Untrusted
from pki.profiles import CLUSTER_CA_ROOTED


def check_root(certificate: x509.Certificate, now: datetime) -> None:
    """Raise `Untrusted` with the first rule that a root breaks now."""
    for reason, detail in _faults(certificate, now):
        raise Untrusted(reason, detail)


def root_faults(certificate: x509.Certificate, now: datetime) -> tuple[str, ...]:
    """Every rule that this certificate breaks as a root that is to be taken over now; none if it may be one.

    Besides the form (RFC 5280 §4.2.1: CA mark, key usage, key identifier; no EKU, room for an authority below) it has
    to live as long as what it signs first.
    """
    try:
        found = [f"{reason.value} ({detail})" for reason, detail in _faults(certificate, now)]
        left = certificate.not_valid_after_utc - now
    except Untrusted as error:
        return (f"{error.reason.value} ({error.detail})",)
    if left < CLUSTER_CA_ROOTED.lifetime:
        days = CLUSTER_CA_ROOTED.lifetime.days
        found.append(f"it has {left.days} days left, and what it signs lives for {days}")
    return tuple(found)


def _faults(certificate: x509.Certificate, now: datetime) -> Iterator[tuple[Distrust, str]]:
    """Each broken rule. Raises `Untrusted` for what makes the rest unreadable."""
    check_form(certificate)
    if not isinstance(public_key(certificate), ec.EllipticCurvePublicKey):
        yield Distrust.KEY, "a root here is ECDSA on P-256 or P-384"
    try:
        check_time(certificate, now)
    except Untrusted as error:
        yield error.reason, error.detail
    if not signed_by(certificate, certificate):
        yield Distrust.NO_PATH, "it is not self-signed"
    basic = extension(certificate, x509.BasicConstraints)
    if basic is None or not basic.critical or not basic.value.ca:
        yield Distrust.BASIC_CONSTRAINTS, "not marked as an authority, critical"
    elif basic.value.path_length == 0:
        yield Distrust.PATH_LENGTH, "it allows no authority below itself"
    usage = extension(certificate, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.key_cert_sign or not usage.value.crl_sign:
        yield Distrust.KEY_USAGE, "it needs keyCertSign and cRLSign, critical"
    if extension(certificate, x509.ExtendedKeyUsage) is not None:
        yield Distrust.EXTENDED_KEY_USAGE, "an authority must not carry one"
    if extension(certificate, x509.SubjectAlternativeName) is not None:
        yield Distrust.SAN_KIND, "the root speaks for no trust domain of its own"
    if extension(certificate, x509.NameConstraints) is not None:
        yield Distrust.CRITICAL_EXTENSION, "name constraints of a root would bind every cluster"
    if not certificate.subject.rdns:
        yield Distrust.MALFORMED, "its subject is empty"
    try:
        if authority_key_id(certificate) not in (None, subject_key_id(certificate)):
            yield Distrust.KEY_IDENTIFIER, "its authority key identifier is not its own"
    except Untrusted as error:
        yield error.reason, error.detail
