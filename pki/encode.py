"""The bytes of a leaf, written straight from its template (RFC 5280 §4.1): what is signed, and what is around it.

The library's builder makes the same bytes, several times slower, and leaves are what is signed by the thousand.
Authorities are made by the builder. Whatever is written here is read by the library before it is released, and every
field compared with the template (`pki.validate.check_issued`).
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from pki.algorithms import digest_for

if TYPE_CHECKING:
    from pki.issue import Template

_INTEGER, _BIT_STRING, _OCTET_STRING, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE = 2, 3, 4, 23, 24, 48
_VERSION_3 = b"\xa0\x03\x02\x01\x02"
_EXTENSIONS, _DNS_NAME, _URI, _KEY_IDENTIFIER = 0xA3, 0x82, 0x86, 0x80
_CRITICAL = b"\x01\x01\xff"

_ECDSA_WITH = {
    "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
    "sha384": bytes.fromhex("300a06082a8648ce3d040303"),
}
"""Algorithm identifiers, without parameters (RFC 5758 §3.2)."""

_SUBJECT_KEY_ID = bytes.fromhex("0603551d0e")
_ALTERNATIVE_NAME = bytes.fromhex("0603551d11")
_AUTHORITY_KEY_ID = bytes.fromhex("0603551d23")
_NO_AUTHORITY = bytes.fromhex("300c0603551d130101ff04023000")
"""Basic constraints, critical: not an authority."""
_DIGITAL_SIGNATURE = bytes.fromhex("300e0603551d0f0101ff040403020780")
"""Key usage, critical: digitalSignature."""
_TLS_ROLES = bytes.fromhex("301d0603551d250416301406082b0601050507030106082b06010505070302")
"""Extended key usage: serverAuth and clientAuth."""
_NO_REVOCATION_AVAILABLE = bytes.fromhex("30090603551d3804020500")
"""RFC 9608."""


def sign(template: Template, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The certificate (DER) of a leaf. Blocks while the key signs; raises whatever the key raises."""
    digest = digest_for(key)
    algorithm = _ECDSA_WITH[digest.name]
    body = to_be_signed(template, algorithm)
    signature = key.sign(body, ec.ECDSA(digest))
    return _tlv(_SEQUENCE, body + algorithm + _tlv(_BIT_STRING, b"\0" + signature))


def to_be_signed(template: Template, algorithm: bytes) -> bytes:
    """The TBSCertificate (DER) of a leaf."""
    return _tlv(
        _SEQUENCE,
        b"".join(
            (
                _VERSION_3,
                _tlv(_INTEGER, template.serial.to_bytes(template.serial.bit_length() // 8 + 1)),
                algorithm,
                template.issuer_bytes,
                _tlv(_SEQUENCE, _time(template.not_before) + _time(template.not_after)),
                template.subject_bytes,
                template.key_bytes,
                _tlv(_EXTENSIONS, _tlv(_SEQUENCE, _extensions(template))),
            )
        ),
    )


def _extensions(template: Template) -> bytes:
    names = b"".join(_tlv(_DNS_NAME, name.encode()) for name in template.dns_names)
    if template.uri is not None:
        names = _tlv(_URI, template.uri.encode()) + names
    authority = _tlv(_SEQUENCE, _tlv(_KEY_IDENTIFIER, template.authority_key_id))
    # RFC 5280 §4.1.2.6: with an empty subject the SAN is critical.
    critical = b"" if template.subject.rdns else _CRITICAL
    return b"".join(
        (
            _NO_AUTHORITY,
            _DIGITAL_SIGNATURE,
            _extension(_SUBJECT_KEY_ID, _tlv(_OCTET_STRING, template.subject_key_id)),
            _extension(_AUTHORITY_KEY_ID, authority),
            _extension(_ALTERNATIVE_NAME + critical, _tlv(_SEQUENCE, names)),
            _TLS_ROLES,
            _NO_REVOCATION_AVAILABLE,
        )
    )


def _extension(head: bytes, value: bytes) -> bytes:
    return _tlv(_SEQUENCE, head + _tlv(_OCTET_STRING, value))


@lru_cache(maxsize=64)
def _time(moment: datetime) -> bytes:
    """RFC 5280 §4.1.2.5: two digits of the year until 2049."""
    if moment.year < 2050:
        return _tlv(_UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return _tlv(_GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _tlv(tag: int, content: bytes) -> bytes:
    """Tag, length and content (X.690 §8.1)."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size) + content
