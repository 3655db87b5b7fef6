"""Certificate requests, read for the public key alone.

What a request asks for (names, extensions, attributes) is never looked at: what a certificate says comes from
the policy. Limits on size and form come before parsing, and the holder must prove to have the private key.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pki.algorithms import (
    REQUEST_SIGNATURES,
    USUAL_KINDS,
    KeyKind,
    PublicKey,
    digest_for,
    spki,
    weakness,
)
from pki.certificate import UNREADABLE
from pki.errors import Refused

LONGEST_REQUEST = 16 * 1024
"""Bytes; a request of ours has about 300."""

_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
"""RFC 2985 §5.4.2"""

_PEM = re.compile(
    rb"\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END (NEW )?CERTIFICATE REQUEST-----\s*"
)


def request(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name | None = None, uri: str | None = None
) -> bytes:
    """A request (PEM) that proves possession of `key`. Blocks for as long as the key takes to sign.

    We read nothing of a request but its key, and of an authority the subject. Only a root in Vault can take `uri`, a
    URI SAN, from nowhere else.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    if uri is not None:
        name = x509.UniformResourceIdentifier(uri)
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    return builder.sign(key, digest_for(key.public_key())).public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Request:
    """What is kept of a request: the key, also as SubjectPublicKeyInfo (DER), and the subject, which only a root
    compares with its own rule."""

    public_key: PublicKey
    spki: bytes
    subject: x509.Name


def parse(data: bytes, kinds: Collection[KeyKind] = USUAL_KINDS) -> Request:
    """Read one request, PEM or DER, for a good key of one of `kinds`, whose signature proves possession of it.

    Raises `Refused`.
    """
    if len(data) > LONGEST_REQUEST:
        raise Refused("csr", f"{len(data)} bytes, allowed are {LONGEST_REQUEST}")
    found = _load(data)
    try:
        key = found.public_key()
        if (reason := weakness(key, kinds)) is not None or not isinstance(key, PublicKey):
            raise Refused("csr", reason or "its key is of an unknown kind")
        if found.signature_algorithm_oid not in REQUEST_SIGNATURES or not found.is_signature_valid:
            raise Refused(
                "csr", "its signature does not prove possession of the key with an accepted algorithm"
            )
        encoded = spki(key)
        if encoded not in found.tbs_certrequest_bytes:
            raise Refused("csr", "its public key is not in the usual encoding, with a named curve")
        return Request(key, encoded, found.subject)
    except UNREADABLE as error:
        raise Refused("csr", "its key, subject or signature cannot be read") from error


def request_extensions(data: bytes) -> list[x509.ExtensionType]:
    """The extensions that a request asks for, for whoever has to pass it on as it is. Raises `Refused`."""
    try:
        found = _load(data)
        if any(each.oid != _EXTENSION_REQUEST for each in found.attributes):
            raise Refused("csr", "it has an attribute besides the extensions that it asks for")
        return [each.value for each in found.extensions]
    except UNREADABLE as error:
        raise Refused("csr", "its attributes or extensions cannot be read") from error


def _load(data: bytes) -> x509.CertificateSigningRequest:
    try:
        if b"-----BEGIN" not in data:
            return x509.load_der_x509_csr(data)
        if _PEM.fullmatch(data) is None:
            raise Refused("csr", "not exactly one PEM block CERTIFICATE REQUEST, with nothing around it")
        return x509.load_pem_x509_csr(data)
    except UNREADABLE as error:
        raise Refused("csr", "cannot be parsed") from error
