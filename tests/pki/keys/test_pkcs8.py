"""The envelope of a key: other tools read it, and what is weaker or dearer than ours is refused."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pki.errors import KeyFileError, WrongPassphrase
from pki.keys import pkcs8
from pki.keys.passphrase import LONGEST, Passphrase

PATH = Path("/etc/keys/ca-1.key")
SECRET = Passphrase(b"correct horse")
KEY = ec.generate_private_key(ec.SECP256R1())


def plain(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def openssl(*arguments: str, given: bytes, passphrase: bytes = SECRET.secret) -> bytes:
    """The output of `openssl ARGUMENTS…`; the passphrase comes as the variable P."""
    environment = {"PATH": "/usr/bin:/bin", "P": passphrase.decode()}
    done = subprocess.run(
        ["openssl", *arguments], input=given, capture_output=True, check=False, env=environment
    )
    return done.stdout if done.returncode == 0 else done.stderr


def test_k1_what_is_written_is_pbes2_with_scrypt_and_aes_256() -> None:
    written = pkcs8.encode(KEY, SECRET)
    assert pkcs8.is_encrypted(written)
    assert max(map(len, written.splitlines())) <= 64
    parsed = openssl("asn1parse", given=written).decode()
    names = [line.rpartition(":")[2].strip() for line in parsed.splitlines()]
    assert [name for name in names if name in ("PBES2", "scrypt", "aes-256-cbc")] == [
        "PBES2",
        "scrypt",
        "aes-256-cbc",
    ]
    numbers = [int(line.rpartition(":")[2], 16) for line in parsed.splitlines() if "INTEGER" in line]
    assert numbers == [1 << 14, 8, 5]


def test_a_process_derives_once_and_each_key_has_an_initialisation_vector_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    derived: list[bytes] = []

    def scrypt(salt: bytes, length: int, n: int, r: int, p: int) -> Scrypt:
        derived.append(salt)
        return Scrypt(salt, length, n, r, p)

    monkeypatch.setattr("pki.keys.passphrase.Scrypt", scrypt)
    one, other = Passphrase(b"correct horse"), Passphrase(b"correct horse")
    written = [pkcs8.encode(KEY, each) for each in (one, one, other)]
    salts, vectors, encrypted = zip(*map(octets, written), strict=True)
    assert salts[0] == salts[1] != salts[2]
    assert len(set(vectors)) == len(set(encrypted)) == 3
    assert len(derived) == 2
    for each in written:
        assert pkcs8.decode(each, one, PATH).private_numbers() == KEY.private_numbers()
    assert len(derived) == 3


def octets(written: bytes) -> list[bytes]:
    """The octet strings of an envelope: salt, initialisation vector, and what is encrypted."""
    lines = openssl("asn1parse", given=written).decode().splitlines()
    return [line.rpartition(":")[2].encode() for line in lines if "OCTET STRING" in line]


@pytest.mark.parametrize("secret", [b"x", b"two words", b"x" * LONGEST])
def test_openssl_and_the_library_read_what_is_written(secret: bytes) -> None:
    written = pkcs8.encode(KEY, Passphrase(secret))
    loaded = serialization.load_pem_private_key(written, secret)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    assert loaded.private_numbers() == KEY.private_numbers()
    shown = openssl("pkcs8", "-passin", "env:P", given=written, passphrase=secret)
    assert shown == plain(KEY)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_what_is_written_is_read_again(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    for passphrase in (SECRET, None):
        written = pkcs8.encode(key, passphrase)
        assert pkcs8.decode(written, passphrase, PATH).private_numbers() == key.private_numbers()
        assert pkcs8.is_encrypted(written) is (passphrase is not None)


def test_a_key_that_was_encrypted_anew_by_hand_is_taken() -> None:
    """The command is the one that the refusal of other encryptions names, and the way to another passphrase."""
    with pytest.raises(KeyFileError) as refused:
        pkcs8.decode(openssl("pkcs8", "-topk8", "-passout", "env:P", given=plain(KEY)), SECRET, PATH)
    command = refused.value.reason.partition("openssl ")[2].split()
    written = openssl(*command, "-passout", "env:P", given=plain(KEY))
    assert pkcs8.decode(written, SECRET, PATH).private_numbers() == KEY.private_numbers()
    with pytest.raises(WrongPassphrase):
        pkcs8.decode(written, Passphrase(b"another"), PATH)


@pytest.mark.parametrize(
    "options",
    [
        ["-v2", "aes-256-cbc", "-iter", "600000"],
        ["-v2", "aes-256-cbc"],
        ["-v2", "aes-128-cbc", "-scrypt"],
        ["-scrypt", "-scrypt_N", "8192"],
        ["-scrypt", "-scrypt_N", "1024", "-scrypt_r", "128"],
        ["-scrypt", "-scrypt_p", "17"],
        ["-v1", "PBE-SHA1-3DES"],
    ],
)
def test_k1_other_encryptions_are_refused_before_anything_is_derived(options: list[str]) -> None:
    written = openssl("pkcs8", "-topk8", "-passout", "env:P", *options, given=plain(KEY))
    assert pkcs8.is_encrypted(written), written
    with pytest.raises(KeyFileError, match="is not encrypted as it should be") as refused:
        pkcs8.decode(written, SECRET, PATH)
    assert not isinstance(refused.value, WrongPassphrase)


@pytest.mark.parametrize(
    ("ours", "instead"),
    [
        (b"\x02\x02\x40\x00", b"\x02\x02\x7f\xff"),  # N is no power of two
        (b"\x02\x02\x40\x00", b"\x02\x02\xc0\x00"),  # negative
        (b"\x02\x01\x08", b"\x02\x01\x7f"),
        (b"\x02\x01\x05", b"\x02\x01\x7f"),
        (b"\x02\x01\x05", b"\x02\x01\x00"),
    ],
)
def test_numbers_that_would_cost_too_much_or_nothing_are_refused(ours: bytes, instead: bytes) -> None:
    written = der(pkcs8.encode(KEY, SECRET))
    hostile = written.replace(ours, instead, 1)
    assert hostile != written
    with pytest.raises(KeyFileError, match="as it should be"):
        pkcs8.decode(pkcs8._pem(hostile), SECRET, PATH)


def der(written: bytes) -> bytes:
    return b64decode(b"".join(written.splitlines()[1:-1]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"canary-secret",
        pkcs8.encode(KEY, SECRET)[:-60],
        pkcs8.encode(KEY, SECRET) * 2,
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\ncanary\n-----END ENCRYPTED PRIVATE KEY-----\n",
        pkcs8._pem(der(pkcs8.encode(KEY, SECRET))[:-20]),
        pkcs8._pem(der(pkcs8.encode(KEY, SECRET)) + b"\0"),
    ],
)
def test_damaged_and_foreign_bytes_are_refused_without_quoting_them(data: bytes) -> None:
    for passphrase in (SECRET, None):
        with pytest.raises(KeyFileError) as refused:
            pkcs8.decode(data, passphrase, PATH)
        assert "canary" not in str(refused.value)
        assert refused.value.__cause__ is None
        assert str(PATH) in str(refused.value)


def test_keys_of_other_kinds_are_refused_inside_the_envelope_too() -> None:
    for key in (ec.generate_private_key(ec.SECP256K1()), rsa.generate_private_key(65537, 2048)):
        written = openssl(
            *("pkcs8", "-topk8", "-scrypt", "-scrypt_p", "5", "-passout", "env:P"), given=plain(key)
        )
        with pytest.raises(KeyFileError, match="P-256 or P-384"):
            pkcs8.decode(written, SECRET, PATH)
