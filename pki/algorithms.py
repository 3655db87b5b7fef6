"""Which keys and signatures are good enough, decided once for requests, peers and our own authorities.

ECDSA on P-256 or P-384 and RSA of 2048 to 4096 bits with e = 65537, signed with SHA-2; Ed25519 for leaves
only, and only where an authority's limits name it, because several TLS stacks do not offer it. Everything else
is refused by not being on the list: the library below parses RSA-1024, P-192, secp256k1, brainpool and DSA
without complaint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from enum import StrEnum

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import SignatureAlgorithmOID

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class KeyKind(StrEnum):
    """The kinds of public keys that a certificate of ours may hold."""

    P256 = "ecdsa-p256"
    P384 = "ecdsa-p384"
    RSA = "rsa"
    ED25519 = "ed25519"


USUAL_KINDS = frozenset({KeyKind.P256, KeyKind.P384, KeyKind.RSA})
ALL_KINDS = frozenset(KeyKind)

_CURVES = {"secp256r1": KeyKind.P256, "secp384r1": KeyKind.P384}
RSA_BITS = range(2048, 4096 + 1)
RSA_EXPONENT = 65537

SIGNATURES = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
    }
)


REQUEST_SIGNATURES = SIGNATURES | {SignatureAlgorithmOID.ED25519}
"""Besides what authorities sign with, a request is signed with the key that it is for."""


def weakness(key: CertificatePublicKeyTypes, kinds: Collection[KeyKind] = USUAL_KINDS) -> str | None:
    """Why `key` is refused, or None when it is good enough and of one of `kinds`."""
    match key:
        case ec.EllipticCurvePublicKey():
            kind = _CURVES.get(key.curve.name)
            if kind is None:
                return f"the curve {key.curve.name} is not P-256 or P-384"
        case rsa.RSAPublicKey():
            kind = KeyKind.RSA
            if (reason := _weakness_of_rsa(key)) is not None:
                return reason
        case ed25519.Ed25519PublicKey():
            kind = KeyKind.ED25519
        case _:
            return f"{type(key).__name__} is neither ECDSA nor RSA"
    return None if kind in kinds else f"{kind} is not among the allowed keys: {', '.join(sorted(kinds))}"


def _weakness_of_rsa(key: rsa.RSAPublicKey) -> str | None:
    if key.key_size not in RSA_BITS:
        return f"RSA with {key.key_size} bits, allowed are {RSA_BITS[0]} to {RSA_BITS[-1]}"
    numbers = key.public_numbers()
    if numbers.e != RSA_EXPONENT:
        return f"RSA with exponent {numbers.e}, allowed is {RSA_EXPONENT}"
    return None if numbers.n & 1 else "RSA with an even modulus"


def digest_for(
    key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey,
) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with a signing key: SHA-256 for P-256, SHA-384 for P-384."""
    return hashes.SHA384() if key.curve.name == "secp384r1" else hashes.SHA256()


def spki(key: CertificatePublicKeyTypes) -> bytes:
    """The DER SubjectPublicKeyInfo of a key."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def spki_hash(key: CertificatePublicKeyTypes) -> str:
    """SHA-256 over the SubjectPublicKeyInfo, in hex: the name of a key in ledgers and token records."""
    return hashlib.sha256(spki(key)).hexdigest()
