"""C1 to C14: what is in each certificate, and who else believes it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from federation.clock import ManualClock
from pki import csr, issue
from pki.algorithms import KeyKind
from pki.authority import Authority
from pki.bundle import Accepted, Bundle, Proof, accept
from pki.certificate import authority_key_id, check_authority, subject_key_id
from pki.errors import Distrust, InvalidName, InvalidSpiffeId, Refused, Untrusted
from pki.issue import NO_REVOCATION_AVAILABLE
from pki.keys.file import FileKeyStore
from pki.profiles import BACKDATE, CLUSTER_CA_CONSTRAINED, LONGEST_LEAF, SHORTEST_LEAF, authority_subject
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain
from pki.subordinate import read_request
from pki.validate import check_issued, verify_peer
from tests.pki.rules import verifiers
from tests.pki.rules.classes import AUTHORITIES, EAST, IDENTITIES, LEAVES, PROFILES, a_leaf, of
from tests.pki.world import BASE, NOW, Ca, World, constrained, granted, make_root, new_key, serial

WEST = TrustDomain.of_cluster("west", BASE)

Verify = Callable[[Path, x509.Certificate, tuple[x509.Certificate, ...], datetime], str]
QUICK: dict[str, Verify] = {"OpenSSL": verifiers.openssl, "pyca": verifiers.library}
SLOW: dict[str, Verify] = {"Go": verifiers.go, "Java": verifiers.java}


def oids(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return {found.oid for found in certificate.extensions}


# ---- C1 ------------------------------------------------------------------------------------------------


def test_c1_a_predictable_random_generator_changes_no_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "getrandbits", lambda bits: 4)
    monkeypatch.setattr(random, "random", lambda: 0.4)
    drawn = {x509.random_serial_number() for _ in range(1000)}
    assert len(drawn) == 1000
    assert 150 < max(serial.bit_length() for serial in drawn) <= 159


# ---- C3 to C6 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_c4_the_san_is_critical_exactly_where_the_subject_is_empty(world: World, profile: str) -> None:
    certificate = of(profile, world).certificate
    if ExtensionOID.SUBJECT_ALTERNATIVE_NAME in oids(certificate):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.critical is (not certificate.subject.rdns)
    else:
        assert certificate.subject.rdns


@pytest.mark.parametrize("profile", PROFILES)
def test_c6_both_key_identifiers_are_there_and_the_issuers_is_a_key_identifier_only(
    world: World, profile: str
) -> None:
    made = of(profile, world)
    found = made.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert not found.critical
    assert found.value.authority_cert_issuer is None
    assert found.value.authority_cert_serial_number is None
    assert authority_key_id(made.certificate) in {subject_key_id(anchor) for anchor in made.anchors}
    ours = made.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert not ours.critical
    assert ours.value == x509.SubjectKeyIdentifier.from_public_key(made.key.public_key())


# ---- C8 and C9 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", LEAVES)
def test_c8_a_leaf_ends_no_later_than_any_form_of_its_authority(world: World, profile: str) -> None:
    last = world.east.self_signed.not_valid_after_utc
    for left in (timedelta(days=2), timedelta(hours=1), timedelta(minutes=1)):
        leaf = of(profile, world, last - left).certificate
        assert leaf.not_valid_after_utc <= last
    for left in (2 * SHORTEST_LEAF - timedelta(seconds=1), timedelta(0), timedelta(days=-1)):
        with pytest.raises(Refused, match="validity: the authority ends"):
            of(profile, world, last - left)


@pytest.mark.parametrize("profile", LEAVES)
def test_c8_a_leaf_starts_five_minutes_ago_but_not_before_its_authority(world: World, profile: str) -> None:
    later = NOW + timedelta(hours=1)
    assert of(profile, world, later).certificate.not_valid_before_utc == later - BACKDATE
    early = of(profile, world, NOW - timedelta(minutes=3)).certificate
    assert early.not_valid_before_utc == world.east.self_signed.not_valid_before_utc


UTC_TIME, GENERALIZED_TIME = rb"\x17\x0d\d{12}Z", rb"\x18\x0f\d{14}Z"


@pytest.mark.parametrize("profile", PROFILES)
def test_c9_times_until_2049_are_utc_time_in_whole_seconds(world: World, profile: str) -> None:
    certificate = of(profile, world).certificate
    assert re.search(UTC_TIME + UTC_TIME, certificate.tbs_certificate_bytes)
    assert not re.search(GENERALIZED_TIME, certificate.tbs_certificate_bytes)


def test_c9_times_from_2050_on_are_generalized_time() -> None:
    key = new_key()
    plan = issue.root_authority(BASE, 1, key.public_key(), serial(), datetime(2045, 1, 1, tzinfo=UTC))
    assert re.search(UTC_TIME + GENERALIZED_TIME, issue.sign(plan, key).tbs_certificate_bytes)


# ---- C10 and C11 ---------------------------------------------------------------------------------------


def forged_below(ca: Ca, *names: x509.GeneralName) -> x509.Certificate:
    """A leaf that the authority's key really signed, with any names."""
    plan = ca.template(SpiffeId.gateway(ca.trust_domain, "eastwest"))
    honest = issue.sign(plan, ca.key)
    builder = (
        x509.CertificateBuilder()
        .serial_number(plan.serial)
        .subject_name(plan.subject)
        .issuer_name(plan.issuer)
        .public_key(plan.public_key)
        .not_valid_before(plan.not_before)
        .not_valid_after(plan.not_after)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
    )
    for found in honest.extensions:
        if found.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            builder = builder.add_extension(found.value, found.critical)
    return builder.sign(ca.key, hashes.SHA256())


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier._init_without_validation(text)


NAMES = {
    "own": ((uri("spiffe://east.mesh.example/agent"), x509.DNSName("agent.east.mesh.example")), True),
    "own, without DNS": ((uri("spiffe://east.mesh.example/gateway/eastwest"),), True),
    "another trust domain": ((uri("spiffe://west.mesh.example/agent"),), False),
    "the hub": ((uri("spiffe://hub.mesh.example/federation"),), False),
    "a trust domain above": ((uri("spiffe://mesh.example/agent"),), False),
    "own and foreign": ((uri("spiffe://east.mesh.example/a"), uri("spiffe://west.mesh.example/a")), False),
    "foreign and own": ((uri("spiffe://west.mesh.example/a"), uri("spiffe://east.mesh.example/a")), False),
    "foreign DNS": ((uri("spiffe://east.mesh.example/a"), x509.DNSName("agent.west.mesh.example")), False),
}


def test_c10_constraints_are_critical_and_name_the_trust_domain_exactly(world: World) -> None:
    found = constrained(world.east, world).rooted.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    assert found.value == x509.NameConstraints(
        [x509.UniformResourceIdentifier("east.mesh.example"), x509.DNSName("east.mesh.example")], None
    )
    for profile in set(PROFILES) - {CLUSTER_CA_CONSTRAINED.name}:
        assert ExtensionOID.NAME_CONSTRAINTS not in oids(of(profile, world).certificate)


@pytest.mark.parametrize("case", NAMES)
def test_c10_openssl_lets_a_constrained_authority_certify_its_own_trust_domain_only(
    world: World, case: str, tmp_path: Path
) -> None:
    names, allowed = NAMES[case]
    ca = constrained(world.east, world)
    leaf = forged_below(ca, *names)
    said = verifiers.openssl(tmp_path, world.root, (leaf, ca.rooted), NOW)
    assert said == "OK" if allowed else "permitted subtree violation" in said
    assert verifiers.openssl(tmp_path, world.root, (leaf, world.east.rooted), NOW) == "OK"


@pytest.mark.live
@pytest.mark.parametrize("who", SLOW)
@pytest.mark.parametrize("case", NAMES)
def test_c10_go_and_java_agree(world: World, case: str, who: str, tmp_path: Path) -> None:
    names, allowed = NAMES[case]
    ca = constrained(world.east, world)
    assert (SLOW[who](tmp_path, world.root, (forged_below(ca, *names), ca.rooted), NOW) == "OK") is allowed


def test_c10_the_library_below_refuses_every_constrained_chain_so_they_are_off_by_default(
    world: World, tmp_path: Path
) -> None:
    ca = constrained(world.east, world)
    made = a_leaf(IDENTITIES["gateway"], world, ca=ca)
    assert "name constraint" in verifiers.library(tmp_path, world.root, made.chain, NOW)
    plain = a_leaf(IDENTITIES["gateway"], world)
    assert verifiers.library(tmp_path, world.root, plain.chain, NOW) == "OK"


@pytest.mark.parametrize("case", NAMES)
def test_c10_we_obey_constraints_where_they_are_all_that_keeps_an_authority_in_its_place(
    world: World, case: str
) -> None:
    """The root in a bundle: never done, and still no way for east's authority to speak for west."""
    names, allowed = NAMES[case]
    ca = constrained(world.east, world)
    leaf = forged_below(ca, *names)
    domains = {
        SpiffeId.parse(name.value).trust_domain
        for name in names
        if isinstance(name, x509.UniformResourceIdentifier)
    }
    for domain in domains:
        bundles = {domain: Bundle(domain, 1, (world.root,))}
        if allowed:
            assert verify_peer((leaf, ca.rooted), bundles, NOW).trust_domain == domain
        else:
            with pytest.raises(Untrusted):
                verify_peer((leaf, ca.rooted), bundles, NOW)


def test_c10_the_refusal_names_the_constraint(world: World) -> None:
    ca = constrained(world.east, world)
    leaf = forged_below(ca, *NAMES["foreign DNS"][0])
    with pytest.raises(Untrusted, match=r"agent\.west\.mesh\.example is not among") as refused:
        verify_peer((leaf, ca.rooted), {EAST: Bundle(EAST, 1, (world.root,))}, NOW)
    assert refused.value.reason is Distrust.NAME_CONSTRAINTS


def test_c10_a_leaf_with_constraints_is_none(world: World) -> None:
    ca = world.east
    honest = ca.leaf(IDENTITIES["agent"])
    builder = (
        x509.CertificateBuilder()
        .serial_number(honest.serial_number)
        .subject_name(honest.subject)
        .issuer_name(honest.issuer)
        .public_key(honest.public_key())
        .not_valid_before(honest.not_valid_before_utc)
        .not_valid_after(honest.not_valid_after_utc)
        .add_extension(x509.NameConstraints([x509.DNSName("east.mesh.example")], None), critical=True)
    )
    for found in honest.extensions:
        builder = builder.add_extension(found.value, found.critical)
    leaf = builder.sign(ca.key, hashes.SHA256())
    with pytest.raises(Untrusted, match="a leaf must not carry them"):
        verify_peer((leaf,), world.bundles, NOW)


def test_c10_a_constrained_form_is_the_roots_word_like_any_other(world: World) -> None:
    ca = constrained(world.east, world)
    offered = Bundle(EAST, 1, (ca.self_signed,), Proof(rooted=(ca.rooted,)))
    assert accept(None, offered, world.root) == Accepted(offered, changed=True)
    made = a_leaf(IDENTITIES["agent"], world, ca=ca)
    assert verify_peer(made.chain, world.bundles, NOW) == IDENTITIES["agent"]


async def test_c10_a_root_with_constraints_makes_authorities_whose_leaves_openssl_believes(
    tmp_path: Path,
) -> None:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(
        tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock, True
    )
    east = await Authority.create(tmp_path / "east", FileKeyStore(tmp_path / "keys"), EAST, clock)
    rooted = await root.sign_cluster_ca(await east.csr(), EAST, who="east", why="join")
    await east.accept_root_signed(rooted, root.certificate)
    identity = IDENTITIES["agent"]
    made = await east.issue(new_key().public_key(), granted(identity), who="east", why="own certificate")
    assert ExtensionOID.NAME_CONSTRAINTS in oids(made.chain[1])
    assert verifiers.openssl(tmp_path, root.certificate, made.chain, NOW) == "OK"
    assert verify_peer(made.chain, {EAST: east.bundle()}, NOW) == identity
    for each in (east, root):
        await each.close()


def test_c11_every_trust_domain_is_one_label_below_the_base_so_none_lies_below_another() -> None:
    request = a_request_of_an_authority()
    for name in ("a.east", "east.", ".east", "", "east.mesh.example"):
        with pytest.raises(InvalidName):
            TrustDomain.of_cluster(name, BASE)
    for below in ("a.east.mesh.example", "a.hub.mesh.example", "mesh.example", "example"):
        with pytest.raises(Refused, match=r"trust domain: .* is not one under"):
            read_request(request, TrustDomain(below), BASE)
    for strange in ("east_1.mesh.example", "-east.mesh.example", "East.mesh.example"):
        with pytest.raises(InvalidSpiffeId, match="lower-case DNS labels"):
            TrustDomain(strange)


def a_request_of_an_authority() -> bytes:
    key = new_key()
    return csr.request(key, authority_subject("a.east.mesh.example", 1, key.public_key()))


# ---- C12 and C13 ---------------------------------------------------------------------------------------

REVOCATION = {
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
    ExtensionOID.FRESHEST_CRL,
}


@pytest.mark.parametrize("profile", PROFILES)
def test_c12_leaves_say_that_there_is_no_revocation_and_authorities_never_do(
    world: World, profile: str
) -> None:
    certificate = of(profile, world).certificate
    if profile in AUTHORITIES:
        assert NO_REVOCATION_AVAILABLE not in oids(certificate)
    else:
        assert PROFILES[profile].longest <= LONGEST_LEAF == timedelta(days=7)
        found = certificate.extensions.get_extension_for_oid(NO_REVOCATION_AVAILABLE)
        assert (found.critical, found.value.public_bytes()) == (False, b"\x05\x00")
        assert not oids(certificate) & REVOCATION


@pytest.mark.parametrize("profile", PROFILES)
def test_c13_every_certificate_is_signed_with_ecdsa_and_sha_256(world: World, profile: str) -> None:
    assert of(profile, world).certificate.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256


def test_c13_a_leaf_may_hold_an_ed25519_key_where_that_is_granted_and_an_authority_never(
    world: World, tmp_path: Path
) -> None:
    identity, key = IDENTITIES["svid"], ed25519.Ed25519PrivateKey.generate().public_key()
    usual = granted(identity)
    with pytest.raises(Refused, match="key: ed25519 is not among the allowed keys"):
        issue.leaf(usual, key, world.east.forms, serial(), NOW)
    grant = replace(usual, keys=frozenset({KeyKind.ED25519}))
    plan = issue.leaf(grant, key, world.east.forms, serial(), NOW)
    leaf = check_issued(issue.sign(plan, world.east.key), plan, world.east.forms)
    assert verify_peer((leaf,), world.bundles, NOW) == identity
    assert verifiers.openssl(tmp_path, world.east.self_signed, (leaf,), NOW) == "OK"
    anchor = issue.sign(issue.cluster_authority(EAST, 1, key, serial(), NOW), world.east.key)
    with pytest.raises(Untrusted, match="ed25519 is not among the allowed keys"):
        check_authority(anchor)


# ---- C14 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [CLUSTER_CA_CONSTRAINED.name])
def test_c14_the_second_look_sees_constraints_that_are_missing_or_others(world: World, profile: str) -> None:
    key = world.east.key
    plan = issue.rooted_authority(EAST, 1, key.public_key(), world.root, serial(), NOW, PROFILES[profile])
    signed = issue.sign(plan, world.root_key)
    assert check_issued(signed, plan, (world.root,)) == signed
    plain = issue.sign(replace(plan, profile=PROFILES["cluster-ca-rooted"]), world.root_key)
    with pytest.raises(Untrusted, match="name constraints"):
        check_issued(plain, plan, (world.root,))
    with pytest.raises(Untrusted, match="name constraints"):
        check_issued(signed, replace(plan, profile=PROFILES["cluster-ca-rooted"]), (world.root,))


# ---- what others say -----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", QUICK)
@pytest.mark.parametrize("profile", LEAVES)
def test_c14_openssl_and_the_library_below_believe_each_leaf_under_both_anchors_and_no_forged_one(
    world: World, profile: str, who: str, tmp_path: Path
) -> None:
    agree(QUICK[who], world, profile, tmp_path)


@pytest.mark.live
@pytest.mark.parametrize("who", SLOW)
@pytest.mark.parametrize("profile", LEAVES)
def test_c14_go_and_java_believe_each_leaf_under_both_anchors_and_no_forged_one(
    world: World, profile: str, who: str, tmp_path: Path
) -> None:
    agree(SLOW[who], world, profile, tmp_path)


def agree(verify: Verify, world: World, profile: str, folder: Path) -> None:
    made = of(profile, world)
    for anchor in made.anchors:
        assert verify(folder, anchor, made.chain, NOW) == "OK"
    assert verify(folder, world.west.self_signed, made.chain, NOW) != "OK"
    second, last = timedelta(seconds=1), made.certificate.not_valid_after_utc
    assert verify(folder, made.anchors[0], made.chain, last - second) == "OK"
    assert verify(folder, made.anchors[0], made.chain, last + second) != "OK"
    forged = world.west.forge(IDENTITIES[profile])
    assert verify(folder, made.anchors[0], (forged, world.west.rooted), NOW) != "OK"


@pytest.mark.parametrize("profile", LEAVES)
def test_c14_pythons_ssl_shakes_hands_with_each_leaf_and_with_no_stranger(
    profile: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    _, stranger = make_root()
    identity = IDENTITIES[profile]
    key, authority = new_key(), new_key()
    anchor = issue.sign(
        issue.cluster_authority(identity.trust_domain, 1, authority.public_key(), serial(), now), authority
    )
    plan = issue.leaf(granted(identity), key.public_key(), (anchor,), serial(), now)
    chain = (issue.sign(plan, authority),)
    assert verifiers.handshake(tmp_path, anchor, chain, key) == "OK"
    assert "certificate verify failed" in verifiers.handshake(tmp_path, stranger, chain, key)
