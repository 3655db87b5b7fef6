"""Which certificates may become a root: ours, and what an organisation has already if it keeps the rules (C5, R3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pki.errors import Untrusted
from pki.root_rules import check_root, root_faults
from tests.pki.world import NOW, World

Extensions = dict[type, tuple[x509.ExtensionType, bool]]


def usage(*, cert_sign: bool = True, crl_sign: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(False, False, False, False, False, cert_sign, crl_sign, False, False)


def organisation(
    change: Callable[[Extensions], object] = lambda _: None,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    days: int = 3650,
    signer: ec.EllipticCurvePrivateKey | None = None,
) -> x509.Certificate:
    """A root as other tools make it, with `change` made to its extensions."""
    own = key or ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Ltd")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    extensions: Extensions = {
        x509.BasicConstraints: (x509.BasicConstraints(True, 2), True),
        x509.KeyUsage: (usage(), True),
        x509.SubjectKeyIdentifier: (key_id, False),
    }
    change(extensions)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(own.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=days))
    for value, critical in extensions.values():
        builder = builder.add_extension(value, critical)
    return builder.sign(signer or own, hashes.SHA256())


def test_c5_r3_a_root_of_ours_and_a_good_one_of_an_organisation_may_be_one(world: World) -> None:
    for root in (world.root, organisation()):
        assert root_faults(root, NOW) == ()
        check_root(root, NOW)


@pytest.mark.parametrize(
    ("root", "fault"),
    [
        (organisation(lambda e: e.update({x509.BasicConstraints: (x509.BasicConstraints(True, 2), False)})),
         "not marked as an authority, critical"),
        (organisation(lambda e: e.update({x509.BasicConstraints: (x509.BasicConstraints(False, None), True)})),
         "not marked as an authority"),
        (organisation(lambda e: e.pop(x509.BasicConstraints)), "not marked as an authority"),
        (organisation(lambda e: e.update({x509.BasicConstraints: (x509.BasicConstraints(True, 0), True)})),
         "allows no authority below itself"),
        (organisation(lambda e: e.update({x509.KeyUsage: (usage(crl_sign=False), True)})), "cRLSign"),
        (organisation(lambda e: e.update({x509.KeyUsage: (usage(cert_sign=False), True)})), "keyCertSign"),
        (organisation(lambda e: e.pop(x509.KeyUsage)), "keyCertSign"),
        (organisation(lambda e: e.pop(x509.SubjectKeyIdentifier)), "no subject key identifier"),
        (organisation(lambda e: e.update({x509.ExtendedKeyUsage: (
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)})), "extended key usage"),
        (organisation(lambda e: e.update({x509.SubjectAlternativeName: (
            x509.SubjectAlternativeName([x509.DNSName("ca.example")]), False)})), "no trust domain of its own"),
        (organisation(lambda e: e.update({x509.NameConstraints: (
            x509.NameConstraints([x509.DNSName("example")], None), True)})), "would bind every cluster"),
        (organisation(key=rsa.generate_private_key(65537, 2048)), "ECDSA on P-256 or P-384"),
        (organisation(key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (organisation(key=ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
        (organisation(signer=ec.generate_private_key(ec.SECP256R1())), "not self-signed"),
        (organisation(days=365), "has 364 days left"),
        (organisation(days=0), "expired"),
    ],
)  # fmt: skip
def test_c5_r3_a_root_that_breaks_a_rule_is_told_which(root: x509.Certificate, fault: str) -> None:
    faults = root_faults(root, NOW + timedelta(seconds=1))
    assert any(fault in one for one in faults), faults


def test_what_is_pinned_already_stays_one_to_its_last_day(world: World) -> None:
    """That it lives long enough is asked of a root that is to be taken over, not of the one that is there."""
    old = organisation(days=30)
    check_root(old, NOW)
    assert root_faults(old, NOW)
    with pytest.raises(Untrusted):
        check_root(world.east.self_signed, NOW)
