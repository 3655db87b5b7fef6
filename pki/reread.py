"""What the bytes of a leaf say, read again and compared with its template, down to the last byte of every field.

What wrote them (`pki.encode`) has no part in it: they are taken apart by the library's ASN.1 reader, which refuses what
is not DER, and each extension must be what the library itself would write, in its place and no other besides.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from pki.algorithms import ALL_KINDS, weakness
from pki.errors import Distrust, InvalidSpiffeId, Untrusted
from pki.issue import NO_REVOCATION_AVAILABLE, Template
from pki.spiffe import SpiffeId


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Validity:
    start: asn1.UTCTime | asn1.GeneralizedTime
    end: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _ToBeSigned:
    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: _Validity
    subject: asn1.TLV
    key: asn1.TLV
    extensions: Annotated[list[_Extension], asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    """RFC 5280 §4.1; no unique identifiers, which no certificate of ours has."""

    tbs: _ToBeSigned
    algorithm: asn1.TLV
    signature: asn1.BitString


_VERSION_3 = 2
_LEAST_SERIAL_BITS, _MOST_SERIAL_BITS = 64, 159

_NO_AUTHORITY = x509.BasicConstraints(ca=False, path_length=None).public_bytes()
_DIGITAL_SIGNATURE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
).public_bytes()
_TLS_ROLES = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
).public_bytes()
_NULL = b"\x05\x00"

_CALLED = {
    ExtensionOID.BASIC_CONSTRAINTS: "the basic constraints",
    ExtensionOID.KEY_USAGE: "the key usage",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: "the subject key identifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "the authority key identifier",
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: "the identity",
    ExtensionOID.EXTENDED_KEY_USAGE: "the extended key usage",
    NO_REVOCATION_AVAILABLE: "that no revocation information exists",
}

_Said = dict[x509.ObjectIdentifier, tuple[bool, bytes]]
"""Extensions: is it critical, and its value (DER)."""


def check_leaf_bytes(data: bytes, plan: Template) -> None:
    """Raise `Untrusted`, with what is different, unless `data` (DER) says what was planned and nothing else.

    A plan that is none for a leaf (two names, a weak key, another kind of identity) is refused too.
    """
    try:
        found = asn1.decode_der(_Certificate, data)
    except ValueError as error:
        raise Untrusted(Distrust.NOT_AS_PLANNED, "it is not read as a certificate of ours") from error
    tbs, said = found.tbs, {each.oid: (each.critical, each.value) for each in found.tbs.extensions}
    same = {
        "the version": tbs.version == _VERSION_3,
        "the serial number": tbs.serial == plan.serial
        and _LEAST_SERIAL_BITS <= plan.serial.bit_length() <= _MOST_SERIAL_BITS,
        "the algorithm": tbs.algorithm.data == found.algorithm.data,
        "the issuer": tbs.issuer.data == _content(plan.issuer_bytes),
        "the subject": tbs.subject.data == _content(plan.subject_bytes),
        "the public key": tbs.key.data == _content(plan.key_bytes)
        and weakness(plan.public_key, ALL_KINDS) is None,
        "the start": _is(tbs.validity.start, plan.not_before),
        "the end": _is(tbs.validity.end, plan.not_after),
        "the planned identity": _names_one(plan),
        "the number of extensions": len(tbs.extensions) == len(said),
    }
    wrong = [what for what, holds in same.items() if not holds]
    if said != (planned := _extensions(plan)):
        differ = [oid for oid in planned.keys() | said.keys() if said.get(oid) != planned.get(oid)]
        wrong += sorted(_CALLED.get(oid, f"the extension {oid.dotted_string}") for oid in differ)
    if wrong:
        raise Untrusted(Distrust.NOT_AS_PLANNED, ", ".join(wrong))


def _extensions(plan: Template) -> _Said:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in plan.dns_names]
    if plan.uri is not None:
        names.insert(0, x509.UniformResourceIdentifier(plan.uri))
    return {
        ExtensionOID.BASIC_CONSTRAINTS: (True, _NO_AUTHORITY),
        ExtensionOID.KEY_USAGE: (True, _DIGITAL_SIGNATURE),
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: (
            False,
            x509.SubjectKeyIdentifier(plan.subject_key_id).public_bytes(),
        ),
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: (False, _authority(plan.authority_key_id)),
        # RFC 5280 §4.1.2.6: with an empty subject the SAN is critical.
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: (
            not plan.subject.rdns,
            x509.SubjectAlternativeName(names).public_bytes(),
        ),
        ExtensionOID.EXTENDED_KEY_USAGE: (False, _TLS_ROLES),
        NO_REVOCATION_AVAILABLE: (False, _NULL),
    }


@lru_cache(maxsize=16)
def _authority(key_id: bytes) -> bytes:
    return x509.AuthorityKeyIdentifier(key_id, None, None).public_bytes()


def _names_one(plan: Template) -> bool:
    """Whether the plan is for one SPIFFE ID."""
    try:
        return plan.uri is not None and str(SpiffeId.parse(plan.uri)) == plan.uri
    except InvalidSpiffeId:
        return False


def _is(found: asn1.UTCTime | asn1.GeneralizedTime, planned: datetime) -> bool:
    """Two digits of the year until 2049, four from then on (RFC 5280 §4.1.2.5)."""
    kind = asn1.UTCTime if planned.year < 2050 else asn1.GeneralizedTime
    return isinstance(found, kind) and found.as_datetime() == planned


def _content(sequence: bytes) -> bytes:
    """What is in a SEQUENCE (DER): all but its tag and its length (X.690 §8.1.3)."""
    return sequence[2:] if sequence[1] < 0x80 else sequence[2 + (sequence[1] & 0x7F) :]
