"""A private key as bytes at rest: PKCS#8 in PEM, encrypted with a passphrase, plain only where there is none.

The encryption is PBES2 (RFC 8018 §6.2) with scrypt (RFC 7914) and AES-256-CBC. The library reads that form and cannot
write it: its own writer derives with PBKDF2 in 2,048 rounds, which costs whoever guesses next to nothing. So the
envelope is written here. OpenSSL reads it too: `openssl pkey -in FILE`.

Refuses a key whose encryption is weaker than ours, one that would take more memory than we give, a plain key where a
passphrase is set, and an encrypted one where there is none.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509 import ObjectIdentifier

from pki.algorithms import weakness
from pki.errors import KeyFileError, WrongPassphrase
from pki.keys.passphrase import Derivation, Passphrase

COST, BLOCK, PARALLEL = 1 << 14, 8, 5
"""scrypt's N, r and p: 0.16 s of one core and 17 MiB, measured, once for all keys that a process writes and opens.

A larger N would be above the 32 MiB that OpenSSL gives scrypt unless told otherwise, and the file unreadable by it.
"""

COSTS, MOST_PARALLEL = (COST, COST * 2, COST * 4), 16
"""What is obeyed in a key that was encrypted by hand: at least our cost, and at most 64 MiB."""

PBES2 = ObjectIdentifier("1.2.840.113549.1.5.13")
SCRYPT = ObjectIdentifier("1.3.6.1.4.1.11591.4.11")
AES_256_CBC = ObjectIdentifier("2.16.840.1.101.3.4.1.42")

_LABEL = "ENCRYPTED PRIVATE KEY"
_PEM = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----\s*")


@asn1.sequence
class _ScryptParameters:
    """RFC 7914 §7.1."""

    salt: bytes
    cost: int
    block: int
    parallel: int
    length: int | None


@asn1.sequence
class _Derivation:
    algorithm: ObjectIdentifier
    parameters: _ScryptParameters


@asn1.sequence
class _Cipher:
    algorithm: ObjectIdentifier
    iv: bytes


@asn1.sequence
class _Scheme:
    """PBES2-params, RFC 8018 §A.4."""

    derivation: _Derivation
    cipher: _Cipher


@asn1.sequence
class _Encryption:
    algorithm: ObjectIdentifier
    scheme: _Scheme


@asn1.sequence
class _EncryptedPrivateKeyInfo:
    """RFC 5208 §6."""

    encryption: _Encryption
    data: bytes


def is_encrypted(data: bytes) -> bool:
    """Whether the first private key in this PEM says that it is encrypted."""
    found = _PEM.search(data)
    return found is not None and found[1] == _LABEL.encode()


def encode(key: ec.EllipticCurvePrivateKey, passphrase: Passphrase | None) -> bytes:
    """`key` as PEM, encrypted unless there is no passphrase. May take `COST`: call it in a thread."""
    encoding = serialization.Encoding.PEM if passphrase is None else serialization.Encoding.DER
    plain = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return plain if passphrase is None else _pem(_encrypted(plain, passphrase))


def decode(data: bytes, passphrase: Passphrase | None, path: Path) -> ec.EllipticCurvePrivateKey:
    """The inverse of `encode`, for the file `path`. May take `COST`: call it in a thread.

    Raises `KeyFileError`, or `WrongPassphrase`; neither quotes what was read.
    """
    if passphrase is None and is_encrypted(data):
        raise WrongPassphrase(path, "is encrypted, and no passphrase is set; see `keys.passphrase`")
    try:
        if passphrase is None:
            key = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(_decrypted(_envelope(data, path), passphrase), None)
    except (ValueError, TypeError):
        # The cause is dropped on purpose: parsers may quote what they could not parse.
        if passphrase is not None:
            raise WrongPassphrase(path) from None
        raise KeyFileError(path, "does not hold a PKCS#8 key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or weakness(key.public_key()) is not None:
        raise KeyFileError(path, "does not hold a P-256 or P-384 key")
    return key


def _encrypted(plain: bytes, passphrase: Passphrase) -> bytes:
    how, iv = passphrase.derived(COST, BLOCK, PARALLEL), secrets.token_bytes(16)
    pad = padding.PKCS7(algorithms.AES.block_size).padder()
    encryptor = Cipher(algorithms.AES256(passphrase.derive(how)), modes.CBC(iv)).encryptor()
    data = encryptor.update(pad.update(plain) + pad.finalize()) + encryptor.finalize()
    numbers = _ScryptParameters(
        salt=how.salt, cost=how.cost, block=how.block, parallel=how.parallel, length=None
    )
    derivation = _Derivation(algorithm=SCRYPT, parameters=numbers)
    scheme = _Scheme(derivation=derivation, cipher=_Cipher(algorithm=AES_256_CBC, iv=iv))
    encryption = _Encryption(algorithm=PBES2, scheme=scheme)
    return asn1.encode_der(_EncryptedPrivateKeyInfo(encryption=encryption, data=data))


def _decrypted(envelope: _EncryptedPrivateKeyInfo, passphrase: Passphrase) -> bytes:
    """The inverse of `_encrypted`. Raises ValueError, for some wrong passphrases; others give bytes without sense."""
    scheme = envelope.encryption.scheme
    numbers = scheme.derivation.parameters
    how = Derivation(numbers.salt, numbers.cost, numbers.block, numbers.parallel)
    decryptor = Cipher(algorithms.AES256(passphrase.derive(how)), modes.CBC(scheme.cipher.iv)).decryptor()
    unpad = padding.PKCS7(algorithms.AES.block_size).unpadder()
    return unpad.update(decryptor.update(envelope.data) + decryptor.finalize()) + unpad.finalize()


def _pem(der: bytes) -> bytes:
    """RFC 7468 §11."""
    text = b64encode(der).decode()
    lines = (text[at : at + 64] for at in range(0, len(text), 64))
    return "\n".join((f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", "")).encode()


def _envelope(data: bytes, path: Path) -> _EncryptedPrivateKeyInfo:
    """What is in this PEM, if it is PBES2 as we write it, or with other numbers that are safe to obey.

    Raises `KeyFileError`.
    """
    found = _PEM.fullmatch(data)
    if found is not None and found[1] != _LABEL.encode():
        raise KeyFileError(
            path, "is not encrypted, and a passphrase is set; a start of its process encrypts it"
        )
    try:
        if found is None:
            raise ValueError
        info = asn1.decode_der(_EncryptedPrivateKeyInfo, b64decode(found[2]))
    except ValueError:
        raise KeyFileError(path, _OTHER) from None
    scheme = info.encryption.scheme
    numbers = scheme.derivation.parameters
    if (
        (info.encryption.algorithm, scheme.derivation.algorithm, scheme.cipher.algorithm)
        != (PBES2, SCRYPT, AES_256_CBC)
        or numbers.cost not in COSTS
        or numbers.block != BLOCK
        or numbers.length not in (None, 32)
        or not 1 <= numbers.parallel <= MOST_PARALLEL
    ):
        raise KeyFileError(path, _OTHER)
    return info


_OTHER = (
    f"is not encrypted as it should be: PKCS#8 in PEM, PBES2 with scrypt (N {COST} to {COSTS[-1]}, r {BLOCK},"
    f" p up to {MOST_PARALLEL}) and AES-256-CBC; write it anew with:"
    f" openssl pkcs8 -topk8 -scrypt -scrypt_N {COST} -scrypt_p {PARALLEL}"
)
