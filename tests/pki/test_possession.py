from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from pki.algorithms import spki
from pki.errors import Refused
from pki.possession import LONGEST_KEY, LONGEST_SIGNATURE, PURPOSE, PrivateKey, is_proof, load_key, prove

KEYS: list[PrivateKey] = [
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    rsa.generate_private_key(65537, 2048),
    ed25519.Ed25519PrivateKey.generate(),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_proof_is_by_one_key_for_one_request(key: PrivateKey) -> None:
    proof = prove(key, b"request")
    read = load_key(spki(key.public_key()))
    assert is_proof(read, b"request", proof)
    assert not is_proof(read, b"another request", proof)
    for other in KEYS:
        if other is not key:
            assert not is_proof(load_key(spki(other.public_key())), b"request", proof)


def test_the_longest_key_that_we_certify_proves_itself() -> None:
    """An RSA signature is as long as its key."""
    key = rsa.generate_private_key(65537, 4096)
    proof = prove(key, b"request")
    assert len(proof) == LONGEST_SIGNATURE
    assert is_proof(load_key(spki(key.public_key())), b"request", proof)
    assert not is_proof(key.public_key(), b"request", proof + b"\0")


@given(st.binary(max_size=600))
def test_anything_else_is_no_proof(signature: bytes) -> None:
    for key in KEYS:
        assert not is_proof(load_key(spki(key.public_key())), b"request", signature)


def test_a_signature_for_another_purpose_is_no_proof() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(b"request", ec.ECDSA(hashes.SHA256()))
    assert not is_proof(key.public_key(), b"request", signature)
    assert PURPOSE.endswith(b"\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        b"\x00" * (LONGEST_KEY + 1),
        spki(ec.generate_private_key(ec.SECP256K1()).public_key()),
        spki(rsa.generate_private_key(65537, 1024).public_key()),
    ],
    ids=["nothing", "an empty sequence", "too long", "secp256k1", "RSA with 1024 bits"],
)
def test_keys_that_no_certificate_of_ours_holds_are_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        load_key(data)
    assert refused.value.field == "key"
