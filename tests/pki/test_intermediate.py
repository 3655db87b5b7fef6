"""Authorities of other systems: who gets which, and that nothing of ours ever believes what they issue."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from federation.clock import ManualClock
from pki import csr, issue
from pki.bundle import Bundle, Proof, Rejected, accept
from pki.certificate import extension
from pki.errors import Refused, Untrusted
from pki.intermediate import Consumer, Grant, decide
from pki.keys.file import FileKeyStore
from pki.profiles import authority_subject
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain
from pki.subordinate import read_foreign
from pki.validate import check_issued, verify_peer
from tests.pki.world import BASE, NOW, World, granted, new_key, serial

CONSUL = TrustDomain.parse("36cb52cd-4058-f811-0432-6798a240c5d3.consul")
GRANTS = {
    Consumer.ISTIO: decide(Consumer.ISTIO, "east", BASE, None, None),
    Consumer.LINKERD: decide(Consumer.LINKERD, "east", BASE, None, None),
    Consumer.CONSUL: decide(Consumer.CONSUL, "east", BASE, CONSUL, None),
    Consumer.CERT_MANAGER: decide(Consumer.CERT_MANAGER, "east", BASE, None, None),
}
NAMES: dict[Consumer, list[x509.GeneralName]] = {
    Consumer.ISTIO: [x509.UniformResourceIdentifier("spiffe://cluster.local")],
    Consumer.LINKERD: [x509.DNSName("identity.linkerd.cluster.local")],
    Consumer.CONSUL: [x509.UniformResourceIdentifier(CONSUL.uri)],
    Consumer.CERT_MANAGER: [],
}


def signed(world: World, grant: Grant, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    template = issue.intermediate_authority(grant, key.public_key(), world.root, serial(), NOW)
    return check_issued(issue.sign(template, world.root_key), template, (world.root,))


@pytest.mark.parametrize("consumer", Consumer)
def test_c5_c6_an_intermediate_has_path_length_0_no_eku_and_the_names_of_its_system(
    world: World, consumer: Consumer
) -> None:
    found = signed(world, GRANTS[consumer], new_key())
    basic, usage = extension(found, x509.BasicConstraints), extension(found, x509.KeyUsage)
    names = extension(found, x509.SubjectAlternativeName)
    assert basic is not None
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert usage is not None
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert extension(found, x509.ExtendedKeyUsage) is None
    assert ([] if names is None else list(names.value)) == NAMES[consumer]


def test_c7_two_intermediates_of_one_system_have_different_subjects(world: World) -> None:
    one, other = (signed(world, GRANTS[Consumer.ISTIO], new_key()) for _ in range(2))
    assert one.subject != other.subject


def test_linkerd_finds_its_own_name_in_its_issuer(world: World) -> None:
    found = signed(world, GRANTS[Consumer.LINKERD], new_key())
    [name] = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert name.value == "identity.linkerd.cluster.local"


@pytest.mark.parametrize("text", ["east.mesh.example", BASE, "sub.east.mesh.example", "example"])
@pytest.mark.parametrize("consumer", Consumer)
def test_c11_it_never_speaks_for_a_trust_domain_of_ours_or_one_around_it(
    consumer: Consumer, text: str
) -> None:
    with pytest.raises(Refused, match="lies under") as refused:
        decide(consumer, "east", BASE, TrustDomain.parse(text), None)
    assert refused.value.field == "trust domain"


@pytest.mark.parametrize("name", ["abc.consul", "36cb52cd-4058-f811-0432-6798a240c5d3.example", "consul"])
def test_consul_speaks_for_the_id_of_a_cluster_alone(name: str) -> None:
    with pytest.raises(Refused, match="/v1/connect/ca/roots shows it"):
        decide(Consumer.CONSUL, "vms", BASE, TrustDomain.parse(name), None)


def test_consul_needs_to_be_told_its_trust_domain() -> None:
    with pytest.raises(Refused, match="connect/ca/roots"):
        decide(Consumer.CONSUL, "east", BASE, None, None)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(hours=23), timedelta(days=366), timedelta(-1)])
def test_r6_a_lifetime_outside_the_limits_is_refused_with_what_was_asked_for_and_what_is_granted(
    lifetime: timedelta,
) -> None:
    with pytest.raises(Refused, match=r"requested .*, granted are 1 to 365 days"):
        decide(Consumer.ISTIO, "east", BASE, None, lifetime)


def test_it_does_not_outlive_the_root(world: World) -> None:
    late = world.root.not_valid_after_utc - timedelta(days=30)
    with pytest.raises(Refused, match="the root has 30 days left"):
        issue.intermediate_authority(
            GRANTS[Consumer.ISTIO], new_key().public_key(), world.root, serial(), late
        )


def test_r3_only_p_256_because_linkerd_takes_no_other() -> None:
    with pytest.raises(Refused, match="P-256"):
        read_foreign(csr.request(ec.generate_private_key(ec.SECP384R1())), GRANTS[Consumer.ISTIO])


def test_a_trust_domain_name_that_linkerd_cannot_hold_is_refused() -> None:
    with pytest.raises(Refused, match="longer than 64"):
        decide(Consumer.LINKERD, "east", BASE, TrustDomain.parse("a" * 60), None)


def test_what_another_system_issues_is_believed_by_nobody_of_ours(world: World) -> None:
    """It is below the root, and no bundle has the root in it."""
    key = new_key()
    authority = signed(world, GRANTS[Consumer.ISTIO], key)
    victim = SpiffeId.gateway(world.east.trust_domain, "eastwest")
    template = world.east.template(victim)
    forged = issue.sign(
        issue.leaf(granted(victim), new_key().public_key(), (authority,), template.serial, NOW), key
    )
    with pytest.raises(Untrusted, match="no path"):
        verify_peer((forged, authority), world.bundles, NOW)


def test_its_holder_cannot_introduce_a_trust_domain(world: World) -> None:
    """The root's signature over the same key and subject is not enough: it names no trust domain of ours."""
    key = new_key()
    for consumer in Consumer:
        authority = signed(world, GRANTS[consumer], key)
        template = issue.cluster_authority(
            world.east.trust_domain, 1, key.public_key(), serial(), NOW - timedelta(days=1)
        )
        anchor = issue.sign(template, key)
        offered = Bundle(world.east.trust_domain, 1, (anchor,), Proof(rooted=(authority,)))
        assert isinstance(accept(None, offered, world.root), Rejected)


async def test_the_root_signs_it_and_notes_for_whom(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "keys"), BASE, clock)
    try:
        key = new_key()
        found = await root.sign_intermediate(
            csr.request(key), GRANTS[Consumer.ISTIO], who="operator ada", why="istio of east"
        )
        assert found.public_key() == key.public_key()
        assert found.issuer == root.certificate.subject
        entry = next(one for one in root.ledger(NOW) if one.identity == "spiffe://cluster.local")
        assert entry.not_after == found.not_valid_after_utc
    finally:
        await root.close()


async def test_r1_what_a_request_asks_for_besides_its_key_changes_nothing(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "keys"), BASE, clock)
    key = new_key()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub.mesh.example")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://east.mesh.example")]), False
        )
        .sign(key, hashes.SHA256())
    )
    try:
        made = await root.sign_intermediate(
            greedy.public_bytes(Encoding.PEM), GRANTS[Consumer.LINKERD], who="ada", why="linkerd of east"
        )
    finally:
        await root.close()
    basic, names = extension(made, x509.BasicConstraints), extension(made, x509.SubjectAlternativeName)
    assert basic is not None
    assert basic.value.path_length == 0
    assert names is not None
    assert list(names.value) == NAMES[Consumer.LINKERD]
    assert made.subject == GRANTS[Consumer.LINKERD].subject(key.public_key())


async def test_r5_the_key_of_a_clusters_authority_is_no_one_elses(tmp_path: Path, world: World) -> None:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "keys"), BASE, clock)
    domain, key = TrustDomain.of_cluster("east", BASE), new_key()
    wanted = csr.request(key, authority_subject(domain.name, 1, key.public_key()))
    try:
        await root.sign_cluster_ca(wanted, domain, who="east", why="joins")
        with pytest.raises(Refused, match="belongs to spiffe://east"):
            await root.sign_intermediate(csr.request(key), GRANTS[Consumer.ISTIO], who="ada", why="istio")
    finally:
        await root.close()
