"""C14: an independent linter finds nothing in what we issue, and would find what is wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pki.certificate import alternative_names, der
from pki.intermediate import Consumer
from tests.pki.rules import linter
from tests.pki.rules.classes import IDENTITIES, PROFILES, another_systems, of
from tests.pki.world import NOW, World

SPIFFE_ID = "pkix.invalid_uri_syntax ERROR"
"""The one finding that is passed over: the linter knows the URIs of the web, and a SPIFFE ID is none."""


def expected(certificate: x509.Certificate) -> set[str]:
    """Exactly this one, exactly where there is a SPIFFE ID."""
    named = any(isinstance(name, x509.UniformResourceIdentifier) for name in alternative_names(certificate))
    return {SPIFFE_ID} if named else set()


@pytest.mark.parametrize("profile", PROFILES)
def test_c14_no_class_of_certificate_has_a_finding(world: World, profile: str) -> None:
    certificate = of(profile, world).certificate
    assert linter.of_certificate(der(certificate)) == expected(certificate)


@pytest.mark.parametrize("consumer", Consumer)
def test_c14_no_authority_of_another_system_has_a_finding(world: World, consumer: Consumer) -> None:
    certificate = another_systems(consumer, world).certificate
    assert linter.of_certificate(der(certificate)) == expected(certificate)


SPOILT: dict[str, tuple[type[x509.ExtensionType], bool, str]] = {
    "no key identifier of the issuer": (
        x509.AuthorityKeyIdentifier,
        False,
        "pkix.authority_key_identifier_extension_absent ERROR",
    ),
    "a SAN that is not critical beside an empty subject": (
        x509.SubjectAlternativeName,
        True,
        "pkix.san_extension_not_critical_empty_subject ERROR",
    ),
    "a key usage that is not critical": (
        x509.KeyUsage,
        True,
        "pkix.key_usage_extension_not_critical WARNING",
    ),
}
"""The extension that is not as it should be, whether it is there (not critical), and what is found."""


@pytest.mark.parametrize("what", SPOILT)
def test_the_linter_sees_what_is_wrong(world: World, what: str) -> None:
    honest = world.east.leaf(IDENTITIES["agent"])
    builder = (
        x509.CertificateBuilder()
        .serial_number(honest.serial_number)
        .subject_name(honest.subject)
        .issuer_name(honest.issuer)
        .public_key(honest.public_key())
        .not_valid_before(honest.not_valid_before_utc)
        .not_valid_after(honest.not_valid_after_utc)
    )
    kind, there, finding = SPOILT[what]
    for found in honest.extensions:
        if not isinstance(found.value, kind):
            builder = builder.add_extension(found.value, found.critical)
        elif there:
            builder = builder.add_extension(found.value, False)
    spoilt = builder.sign(world.east.key, hashes.SHA256())
    assert linter.of_certificate(der(spoilt)) == {SPIFFE_ID, finding}


def test_the_linter_reads_lists_too(world: World) -> None:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(world.root.subject)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=7))
    )
    spoilt = builder.sign(world.root_key, hashes.SHA256()).public_bytes(Encoding.DER)
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(world.root_key.public_key())
    builder = builder.add_extension(key_id, False).add_extension(x509.CRLNumber(1), False)
    good = builder.sign(world.root_key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert linter.of_crl(good) == set()
    missing = {"pkix.authority_key_identifier_missing ERROR", "pkix.crl_number_missing ERROR"}
    assert linter.of_crl(spoilt) == missing
