from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pki import csr
from pki.errors import Refused
from tests.pki.world import new_key

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
KEY = new_key()

AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey | ed25519.Ed25519PrivateKey


def signed(
    key: AnyKey, digest: hashes.SHA256 | hashes.SHA224 | None = None
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    chosen = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, chosen)


def test_our_own_requests_are_read_in_both_forms() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    data = csr.request(KEY, subject)
    assert csr.parse(data) == csr.Request(KEY.public_key(), subject)
    assert csr.parse(x509.load_pem_x509_csr(data).public_bytes(DER)).public_key == KEY.public_key()
    assert csr.parse(b"\n" + data + b"\n").subject == subject


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
    ],
)
def test_r3_good_keys_pass(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    assert csr.parse(signed(key).public_bytes(PEM)).public_key == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
        ec.generate_private_key(ec.SECP192R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        dsa.generate_private_key(1024),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_r3_weak_and_strange_keys_are_refused(key: AnyKey) -> None:
    with pytest.raises(Refused):
        csr.parse(signed(key).public_bytes(PEM))


def test_r2_a_weak_hash_is_refused() -> None:
    with pytest.raises(Refused, match="algorithm"):
        csr.parse(signed(KEY, hashes.SHA224()).public_bytes(PEM))


def test_r2_possession_must_be_proven() -> None:
    data = bytearray(signed(KEY).public_bytes(DER))
    data[-1] ^= 1
    with pytest.raises(Refused):
        csr.parse(bytes(data))
    mine = signed(KEY).public_bytes(DER)
    other = new_key().public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    own = KEY.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert own in mine
    with pytest.raises(Refused, match="possession"):
        csr.parse(mine.replace(own, other))


def test_r3_explicit_curve_parameters_are_refused(tmp_path: Path) -> None:
    """Parameters that spell out P-256 instead of naming it."""
    key, asked = tmp_path / "key.pem", tmp_path / "csr.pem"
    make = [
        "openssl",
        "ecparam",
        "-name",
        "prime256v1",
        "-param_enc",
        "explicit",
        "-genkey",
        "-noout",
        "-out",
    ]
    subprocess.run([*make, str(key)], check=True, capture_output=True)
    command = ["openssl", "req", "-new", "-key", str(key), "-subj", "/CN=x", "-out", str(asked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(Refused):
        csr.parse(asked.read_bytes())


def test_r4_one_block_and_nothing_around_it() -> None:
    data = csr.request(KEY)
    other = csr.request(new_key())
    certificate = data.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE")
    for hostile in (
        data + other,
        b"x" + data,
        data + b"x",
        data + certificate,
        certificate,
        data[:-30],
        b"",
        b"\x00",
    ):
        with pytest.raises(Refused):
            csr.parse(hostile)
    with pytest.raises(Refused):
        csr.parse(x509.load_pem_x509_csr(data).public_bytes(DER) + b"\x00")


def test_an_unknown_version_is_refused() -> None:
    data = signed(KEY).public_bytes(DER)
    assert data.count(b"\x02\x01\x00") == 1
    with pytest.raises(Refused, match="cannot be"):
        csr.parse(data.replace(b"\x02\x01\x00", b"\x02\x01\x05"))


def test_r4_size_comes_before_parsing() -> None:
    names = [x509.DNSName(f"{number}.example") for number in range(2000)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    large = builder.add_extension(x509.SubjectAlternativeName(names), False).sign(KEY, hashes.SHA256())
    with pytest.raises(Refused, match="allowed are 16384"):
        csr.parse(large.public_bytes(DER))


def test_r1_what_a_request_asks_for_is_not_kept() -> None:
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier("spiffe://hub.mesh.example/federation"),
                    x509.DNSName("a.example"),
                ]
                + [x509.DNSName(f"{number}.example") for number in range(50)]
                + [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")]
            ),
            critical=False,
        )
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
        .sign(KEY, hashes.SHA256())
    )
    assert csr.parse(greedy.public_bytes(PEM)) == csr.parse(signed(KEY).public_bytes(PEM))


@given(st.binary(max_size=400) | st.tuples(st.integers(0, 10**6), st.binary(max_size=4)))
def test_no_bytes_cause_another_error(data: bytes | tuple[int, bytes]) -> None:
    if isinstance(data, tuple):
        good = signed(KEY).public_bytes(DER)
        at = data[0] % len(good)
        data = good[:at] + data[1] + good[at + len(data[1]) :]
    try:
        accepted = csr.parse(data)
    except Refused:
        return
    assert accepted.public_key == KEY.public_key()
