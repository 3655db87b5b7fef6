"""The root's list of certificates that must not be believed any more (RFC 5280 §5): authorities, never leaves.

Leaves live for a day at most and say that no list speaks of them (RFC 9608). The list is for those who trust the root;
our own gateways trust anchors, and drop those of a banned cluster. What it lists comes from the root's journal, so
that no lost file and no backup takes a revocation back. Pure, but for the signature.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki.algorithms import digest_for
from pki.certificate import public_key, subject_key_id
from pki.errors import Distrust, Untrusted
from pki.ledger import Revoked

LIFETIME = timedelta(days=7)
"""Of one list. Whoever has missed all of them for so long does not know what is revoked."""
DUE_AFTER = timedelta(days=1)
"""The age at which the next one is made: six days may go wrong before somebody notices."""
MOST_LISTED = 10_000


class Reason(StrEnum):
    """Why (RFC 5280 §5.3.1); the others of that list make no sense for an authority of a cluster."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    CA_COMPROMISE = "ca-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessation-of-operation"
    PRIVILEGE_WITHDRAWN = "privilege-withdrawn"


_FLAGS = {
    Reason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    Reason.CA_COMPROMISE: x509.ReasonFlags.ca_compromise,
    Reason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    Reason.SUPERSEDED: x509.ReasonFlags.superseded,
    Reason.CESSATION_OF_OPERATION: x509.ReasonFlags.cessation_of_operation,
    Reason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
}


def sign_list(
    root: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Iterable[Revoked],
    number: int,
    now: datetime,
) -> x509.CertificateRevocationList:
    """List number `number`, looked at a second time. Blocking; raises `Untrusted`, or whatever the key raises.

    Of version 2, with the key identifier of its issuer and its number (§5.2.1, §5.2.3); an unspecified reason is left
    out (§5.3.1). An entry stays for ever, which §3.3 allows.
    """
    at = now.replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(at)
        .next_update(at + LIFETIME)
        .add_extension(x509.AuthorityKeyIdentifier(subject_key_id(root), None, None), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(_entry(one))
    made = builder.sign(key, digest_for(key.public_key()))
    check_list(made, root)
    return made


def _entry(one: Revoked) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(one.serial, 16))
        .revocation_date(one.at.replace(microsecond=0))
    )
    if (flag := _FLAGS.get(Reason(one.reason))) is not None:
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def check_list(made: x509.CertificateRevocationList, root: x509.Certificate) -> None:
    """Raise `Untrusted` unless `root` signed this list. Whether it is current is the caller's question."""
    key = public_key(root)
    try:
        signed = isinstance(key, ec.EllipticCurvePublicKey) and made.is_signature_valid(key)
        number_of(made)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise Untrusted(Distrust.MALFORMED, f"the revocation list: {error}") from error
    if made.issuer != root.subject or not signed:
        raise Untrusted(Distrust.NO_PATH, "the root did not sign this revocation list")


def load_list(data: bytes) -> x509.CertificateRevocationList:
    """From DER. Raises `Untrusted`."""
    try:
        return x509.load_der_x509_crl(data)
    except ValueError as error:
        raise Untrusted(Distrust.MALFORMED, f"the revocation list: {error}") from error


def number_of(made: x509.CertificateRevocationList) -> int:
    """Its number, which only rises."""
    return made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def is_due(made: x509.CertificateRevocationList, now: datetime) -> bool:
    """Whether the next list is to be made."""
    return now >= made.last_update_utc + DUE_AFTER


def der(made: x509.CertificateRevocationList) -> bytes:
    return made.public_bytes(Encoding.DER)
