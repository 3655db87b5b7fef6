"""What an authority says besides certificates and bundles: short statements, signed with its key.

What is signed begins with words of its own, and with the kind of statement. No certificate, request, revocation list or
bundle begins like that, so a signature of one of these is never one of another, nor of a statement of another kind.
Whether the authority may be believed is for whoever chooses the anchors; nothing here is written to a journal, because
a statement gives nobody anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from pki.algorithms import digest_for

LONGEST_SIGNATURE = 256
"""Bytes; ECDSA on P-384 takes 104 at most."""

_SIGNED_AS = b"federation statement v1\n"


class Kind(StrEnum):
    """What a statement is about. One line, as it is followed by a line break where it is signed."""

    HELD = "held bundles"


def content(kind: Kind, said: bytes) -> bytes:
    """The bytes that are signed."""
    return _SIGNED_AS + kind.value.encode() + b"\n" + said


def sign(kind: Kind, said: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """An ECDSA signature of a statement. Blocks for as long as the key takes."""
    return key.sign(content(kind, said), ec.ECDSA(digest_for(key.public_key())))


def is_said(kind: Kind, said: bytes, signature: bytes, anchors: Iterable[x509.Certificate]) -> bool:
    """Whether one of `anchors` has signed this statement."""
    signed = content(kind, said)
    keys = [key for anchor in anchors if isinstance(key := anchor.public_key(), ec.EllipticCurvePublicKey)]
    return any(_verifies(key, signature, signed) for key in keys)


def _verifies(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ec.ECDSA(digest_for(key)))
    except InvalidSignature:
        return False
    return True
