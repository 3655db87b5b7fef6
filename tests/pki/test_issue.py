from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pki import issue, profiles
from pki.algorithms import PublicKey
from pki.certificate import authority_key_id, der, load_der, signed_with, subject_key_id, to_be_signed
from pki.errors import Refused
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import BASE, NOW, World, granted, make_ca, make_world, new_key, openssl_verify, serial

HUB = TrustDomain.of_hub(BASE)
EAST = TrustDomain.of_cluster("east", BASE)
IDENTITIES = [
    SpiffeId.agent(EAST),
    SpiffeId.gateway(EAST, "eastwest"),
    SpiffeId.gateway(EAST, "ingress"),
    SpiffeId.federation(HUB),
    SpiffeId.operator(HUB, "alice"),
]


@pytest.mark.parametrize("which", ["root", "self_signed", "rooted"])
def test_openssl_verifies_each_authority(world: World, which: str, tmp_path: Path) -> None:
    certificate = world.root if which == "root" else getattr(world.east, which)
    anchor = world.root if which == "rooted" else certificate
    assert openssl_verify(tmp_path, anchor, [certificate]) == "OK"


@pytest.mark.parametrize("identity", IDENTITIES, ids=str)
def test_c3_c4_a_leaf_says_what_its_profile_says(world: World, identity: SpiffeId) -> None:
    ca = world.hub if identity.trust_domain == HUB else world.east
    leaf = ca.leaf(identity)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert not leaf.subject.rdns
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(identity)]
    dialled = identity.path in ("/agent", "/federation")
    dns = [f"{identity.path[1:]}.{identity.trust_domain}"] if dialled else []
    assert names.value.get_values_for_type(x509.DNSName) == dns
    assert len(names.value) == 1 + len(dns)
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca) == (True, False)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert [name for name in KEY_USAGES if getattr(usage.value, name)] == ["digital_signature"]
    roles = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(roles) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    unavailable = leaf.extensions.get_extension_for_oid(issue.NO_REVOCATION_AVAILABLE)
    assert not unavailable.critical
    assert isinstance(unavailable.value, x509.UnrecognizedExtension)
    assert unavailable.value.value == b"\x05\x00"
    assert leaf.not_valid_after_utc - NOW == timedelta(hours=24)
    assert NOW - leaf.not_valid_before_utc == timedelta(minutes=5)
    assert authority_key_id(leaf) == subject_key_id(ca.self_signed) == subject_key_id(ca.rooted)


KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def test_c6_the_two_forms_of_an_authority_differ_only_in_issuer_and_dates(world: World) -> None:
    one, other = world.east.forms
    assert one.public_key() == other.public_key()
    assert one.subject == other.subject
    assert subject_key_id(one) == subject_key_id(other)
    assert one.issuer == one.subject
    assert other.issuer == world.root.subject
    assert authority_key_id(other) == subject_key_id(world.root)
    for form in (one, other):
        basic = form.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
        names = form.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert not names.critical
        assert list(names.value) == [x509.UniformResourceIdentifier(EAST.uri)]


def test_c5_authorities_may_sign_certificates_and_lists_and_nothing_else(world: World) -> None:
    for certificate in (world.root, *world.east.forms):
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert [n for n in KEY_USAGES if getattr(usage.value, n)] == ["key_cert_sign", "crl_sign"]
        oids = {found.oid for found in certificate.extensions}
        assert x509.ExtendedKeyUsage.oid not in oids
        assert issue.NO_REVOCATION_AVAILABLE not in oids
    root = world.root.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (root.ca, root.path_length) == (True, None)


def test_c7_each_key_and_each_epoch_has_a_subject_of_its_own(world: World) -> None:
    first, second = make_ca(EAST, world.root_key, world.root), make_ca(EAST, world.root_key, world.root)
    assert first.self_signed.subject != second.self_signed.subject
    key = first.key.public_key()
    subjects = [profiles.authority_subject(EAST.name, epoch, key) for epoch in (1, 2)]
    assert subjects[0] != subjects[1]
    assert [profiles.epoch_of(subject) for subject in subjects] == [1, 2]
    for text in ("x-1", "-1", "1", "١-1", "9999999-1"):
        assert profiles.epoch_of(x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, text)])) is None
    assert profiles.epoch_of(x509.Name([])) is None
    for epoch in (0, -1, 1_000_000):
        with pytest.raises(ValueError, match="epoch"):
            profiles.authority_subject(EAST.name, epoch, key)


def test_long_trust_domains_have_authorities_too(world: World, tmp_path: Path) -> None:
    long = TrustDomain(".".join(["a" * 63] * 3 + ["b" * 50]))
    ca = make_ca(long, world.root_key, world.root)
    assert (
        openssl_verify(tmp_path, world.root, [ca.leaf(SpiffeId.gateway(long, "eastwest")), ca.rooted]) == "OK"
    )


def test_c8_a_root_that_ends_too_soon_signs_no_cluster_authority(world: World) -> None:
    late = world.root.not_valid_after_utc - timedelta(days=365)
    with pytest.raises(Refused, match="the root has 365 days left"):
        issue.rooted_authority(EAST, 1, new_key().public_key(), world.root, serial(), late)


def test_c9_times_are_whole_seconds(world: World) -> None:
    leaf = world.east.leaf(SpiffeId.agent(EAST), NOW + timedelta(microseconds=999_999))
    assert leaf.not_valid_after_utc - NOW == timedelta(hours=24)


def test_a_template_decides_every_byte_but_the_signature(world: World) -> None:
    template = world.east.template(SpiffeId.agent(EAST))
    one = issue.sign(template, world.east.key)
    other = issue.sign(template, world.east.key)
    assert one.tbs_certificate_bytes == other.tbs_certificate_bytes
    assert one.signature != other.signature


def test_s1_the_digest_covers_every_field(world: World) -> None:
    template = world.east.template(SpiffeId.agent(EAST))
    west = world.west.template(SpiffeId.gateway(world.west.trust_domain, "ingress"))
    later: dict[str, Any] = {"not_before": NOW, "not_after": NOW, "serial": 1, "subject": world.root.subject}
    digests = {template.digest()}
    for field in fields(template):
        value = later.get(field.name, getattr(west, field.name))
        digests.add(replace(template, **{field.name: value}).digest())
    assert len(digests) == 1 + len(fields(template))
    assert replace(template).digest() == template.digest()


def test_c1_a_serial_has_up_to_twenty_octets_and_is_positive(world: World) -> None:
    template = replace(world.east.template(SpiffeId.agent(EAST)), serial=(1 << 159) - 1)
    assert load_der(der(issue.sign(template, world.east.key))).serial_number == (1 << 159) - 1


def test_granted_lifetimes_are_used(world: World) -> None:
    grant = replace(granted(SpiffeId.gateway(EAST, "eastwest")), lifetime=timedelta(seconds=10))
    template = issue.leaf(grant, new_key().public_key(), world.east.forms, serial(), NOW)
    assert template.not_after == NOW + timedelta(seconds=10)


LEAF_KEYS: dict[str, PublicKey] = {
    "p256": ec.generate_private_key(ec.SECP256R1()).public_key(),
    "p384": ec.generate_private_key(ec.SECP384R1()).public_key(),
    "rsa": rsa.generate_private_key(65537, 2048).public_key(),
    "ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
}
SIGNERS = {curve.name: ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1())}
EAST_CA = make_world().east
NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
MOMENTS = st.integers(946_684_800, 3_155_760_000).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(
    serial=st.integers(1 << 63, (1 << 159) - 1),
    namespace=NAMES,
    account=NAMES,
    dns_names=st.lists(NAMES, max_size=4).map(tuple),
    times=st.tuples(MOMENTS, MOMENTS).map(sorted),
    named=st.booleans(),
    kind=st.sampled_from(sorted(LEAF_KEYS)),
    curve=st.sampled_from(sorted(SIGNERS)),
)
def test_the_bytes_of_a_leaf_are_those_that_the_library_would_write(
    serial: int,
    curve: str,
    namespace: str,
    account: str,
    dns_names: tuple[str, ...],
    times: list[datetime],
    named: bool,
    kind: str,
) -> None:
    plan = replace(
        EAST_CA.template(SpiffeId.gateway(EAST, "eastwest")),
        serial=serial,
        uri=str(SpiffeId.workload(EAST, namespace, account)),
        dns_names=dns_names,
        not_before=times[0],
        not_after=times[1],
        public_key=LEAF_KEYS[kind],
        subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, account)])
        if named
        else x509.Name([]),
    )
    ours, theirs = issue.sign(plan, SIGNERS[curve]), issue.built(plan, SIGNERS[curve])
    assert ours.tbs_certificate_bytes == theirs.tbs_certificate_bytes
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    assert to_be_signed(der(ours)) == ours.tbs_certificate_bytes
    assert signed_with(ours, der(ours), SIGNERS[curve].public_key())
