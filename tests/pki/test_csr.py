from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from pki import csr
from pki.algorithms import spki
from pki.errors import Refused
from tests.pki.rules.hostile import DER, GOOD_DER, KEY, signed


def test_our_own_requests_are_read_in_both_forms() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    data = csr.request(KEY, subject)
    assert csr.parse(data) == csr.Request(KEY.public_key(), spki(KEY.public_key()), subject)
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
    assert csr.parse(signed(key)).public_key == key.public_key()


def test_an_unknown_version_is_refused() -> None:
    data = GOOD_DER
    assert data.count(b"\x02\x01\x00") == 1
    with pytest.raises(Refused, match="cannot be"):
        csr.parse(data.replace(b"\x02\x01\x00", b"\x02\x01\x05"))


@given(st.binary(max_size=400) | st.tuples(st.integers(0, 10**6), st.binary(max_size=4)))
def test_no_bytes_cause_another_error(data: bytes | tuple[int, bytes]) -> None:
    if isinstance(data, tuple):
        good = GOOD_DER
        at = data[0] % len(good)
        data = good[:at] + data[1] + good[at + len(data[1]) :]
    try:
        accepted = csr.parse(data)
    except Refused:
        return
    assert accepted.public_key == KEY.public_key()
