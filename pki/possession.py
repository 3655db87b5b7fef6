"""Proof by signature that whoever asks for a successor holds the key of the certificate that it will replace.

Mutual TLS proves that for the certificate of a connection. This proves it for any other one, so that one connection
may carry the renewals of many identities. What is signed names the request, so that a proof is good for one new key
only, and a purpose, so that no other signature of the key can pass for it.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.algorithms import ALL_KINDS, PublicKey, weakness
from pki.certificate import UNREADABLE
from pki.errors import Refused

PURPOSE = b"federation svid renewal v1\n"

LONGEST_KEY = 1024
"""Bytes of a SubjectPublicKeyInfo; RSA with 4096 bits has 550."""
LONGEST_SIGNATURE = 512
"""Bytes; that of RSA with 4096 bits."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def load_key(data: bytes) -> PublicKey:
    """A key that a certificate of ours may hold, from its SubjectPublicKeyInfo; raises `Refused`."""
    if len(data) > LONGEST_KEY:
        raise Refused("key", f"{len(data)} bytes, allowed are {LONGEST_KEY}")
    try:
        key = load_der_public_key(data)
    except UNREADABLE as error:
        raise Refused("key", "cannot be parsed") from error
    if not isinstance(key, PublicKey) or weakness(key, ALL_KINDS) is not None:
        raise Refused("key", "it is of no kind that a certificate of ours holds")
    return key


def prove(key: PrivateKey, request: bytes) -> bytes:
    """The signature by the current `key` for the request (DER) of its successor. Blocks while the key signs."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(_words(request), ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(_words(request), padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PrivateKey():
            return key.sign(_words(request))


def is_proof(key: PublicKey, request: bytes, signature: bytes) -> bool:
    """Whether `signature` is what `prove` makes with the private part of `key`."""
    if len(signature) > LONGEST_SIGNATURE:
        return False
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, _words(request), ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, _words(request), padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(signature, _words(request))
    except InvalidSignature:
        return False
    return True


def _words(request: bytes) -> bytes:
    return PURPOSE + hashlib.sha256(request).digest()
