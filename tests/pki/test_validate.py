from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from pki import issue
from pki.algorithms import weakness
from pki.bundle import Bundle, Rejected, accept
from pki.certificate import der, load_der
from pki.errors import Distrust, Untrusted
from pki.issue import Template
from pki.profiles import CLUSTER_CA, CLUSTER_CA_CONSTRAINED, Profile
from pki.spiffe import SpiffeId, TrustDomain
from pki.validate import check_issued, verify_peer
from tests.pki.world import BASE, NOW, Ca, World, constrained, make_ca, make_root, make_world, new_key, serial

EAST = TrustDomain.of_cluster("east", BASE)
WEST = TrustDomain.of_cluster("west", BASE)
GATEWAY = SpiffeId.gateway(EAST, "eastwest")

ANY_KEY = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey


def reason(world: World, *chain: x509.Certificate, now: datetime = NOW) -> Distrust:
    with pytest.raises(Untrusted) as refused:
        verify_peer(chain, world.bundles, now)
    return refused.value.reason


def leaf_with(
    ca: Ca,
    *extensions: tuple[x509.ExtensionType, bool],
    without: type[x509.ExtensionType] | None = None,
    key: ANY_KEY | None = None,
    subject: str = "",
    digest: hashes.SHA256 | hashes.SHA224 | hashes.SHA3_256 | None = None,
) -> x509.Certificate:
    """A gateway's leaf as the CA would make it, except for the extensions given or left out."""
    plan = ca.template(SpiffeId.gateway(ca.trust_domain, "eastwest"))
    honest = issue.sign(plan, ca.key)
    given = {type(value) for value, _ in extensions}
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else []
    builder = (
        x509.CertificateBuilder()
        .serial_number(plan.serial)
        .subject_name(x509.Name(attributes))
        .issuer_name(plan.issuer)
        .public_key(plan.public_key if key is None else key.public_key())
        .not_valid_before(plan.not_before)
        .not_valid_after(plan.not_after)
    )
    for found in honest.extensions:
        if type(found.value) not in given and type(found.value) is not without:
            builder = builder.add_extension(found.value, found.critical)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(ca.key, digest or hashes.SHA256())


def names(*values: x509.GeneralName) -> tuple[x509.ExtensionType, bool]:
    return (x509.SubjectAlternativeName(values), True)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier._init_without_validation(text)


@pytest.mark.parametrize(
    "shown", ["leaf", "leaf and rooted", "leaf and self-signed", "all", "with a stranger"]
)
def test_f1_a_peer_is_who_its_own_authority_says(world: World, shown: str) -> None:
    ca = world.east
    leaf = ca.leaf(GATEWAY)
    chains = {
        "leaf": (leaf,),
        "leaf and rooted": (leaf, ca.rooted),
        "leaf and self-signed": (leaf, ca.self_signed),
        "all": (leaf, ca.rooted, world.root),
        "with a stranger": (leaf, world.west.self_signed),
    }
    assert verify_peer(chains[shown], world.bundles, NOW) == GATEWAY


def test_the_hub_and_its_operators_are_verified_too(world: World) -> None:
    for identity in (
        SpiffeId.federation(TrustDomain.of_hub(BASE)),
        SpiffeId.operator(TrustDomain.of_hub(BASE), "a"),
    ):
        assert verify_peer([world.hub.leaf(identity)], world.bundles, NOW) == identity


def test_f1_another_trust_domains_authority_cannot_forge(world: World) -> None:
    forged = world.west.forge(GATEWAY)
    for rest in ((), (world.west.rooted,), (world.west.self_signed,), (world.west.rooted, world.root)):
        assert reason(world, forged, *rest) is Distrust.NO_PATH
    hub = world.west.forge(SpiffeId.federation(TrustDomain.of_hub(BASE)))
    assert reason(world, hub, world.west.rooted) is Distrust.NO_PATH


def test_f1_the_bundle_is_that_of_the_leaf_and_no_union(world: World) -> None:
    leaf = world.east.leaf(GATEWAY)
    with pytest.raises(Untrusted, match="no bundle"):
        verify_peer([leaf], {WEST: world.west.bundle}, NOW)
    with pytest.raises(Untrusted, match="no bundle"):
        verify_peer([leaf], {EAST: world.west.bundle}, NOW)
    with pytest.raises(Untrusted, match="no bundle"):
        verify_peer([leaf], {}, NOW)


def test_f1_a_root_anchor_in_a_bundle_does_not_open_other_trust_domains(world: World) -> None:
    """Even if the shared root were in east's bundle, west's intermediate could not speak for east."""
    union = {EAST: Bundle(EAST, 1, (world.east.self_signed, world.root))}
    assert verify_peer([world.east.leaf(GATEWAY), world.east.rooted], union, NOW) == GATEWAY
    with pytest.raises(Untrusted) as refused:
        verify_peer([world.west.forge(GATEWAY), world.west.rooted], union, NOW)
    assert refused.value.reason is Distrust.NO_PATH


@pytest.mark.parametrize(
    "order", [(GATEWAY, SpiffeId.gateway(WEST, "eastwest")), (SpiffeId.gateway(WEST, "eastwest"), GATEWAY)]
)
def test_c2_two_uris_are_refused_in_both_orders(world: World, order: tuple[SpiffeId, SpiffeId]) -> None:
    for ca in (world.east, world.west):
        assert reason(world, leaf_with(ca, names(*(uri(str(each)) for each in order)))) is Distrust.URI_COUNT


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://east.mesh.example",
        "spiffe://user@east.mesh.example/agent",
        "spiffe://east.mesh.example:443/agent",
        "spiffe://east.mesh.example/agent/",
        "spiffe://EAST.mesh.example/agent",
        "spiffe://east.mesh.example/%2e%2e/agent",
        "spiffe://east.mesh.example//agent",
        "https://east.mesh.example/agent",
        "spiffe://east.mesh.example/" + "a" * 2048,
    ],
)
def test_c2_hostile_uris_in_a_leaf_are_refused(world: World, text: str) -> None:
    assert reason(world, leaf_with(world.east, names(uri(text)))) is Distrust.SPIFFE_ID


def test_c2_other_kinds_of_names_are_refused(world: World) -> None:
    upn = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")
    for name in (x509.RFC822Name("a@b.example"), upn, x509.DirectoryName(x509.Name([]))):
        assert reason(world, leaf_with(world.east, names(uri(str(GATEWAY)), name))) is Distrust.SAN_KIND
    assert reason(world, leaf_with(world.east, without=x509.SubjectAlternativeName)) is Distrust.URI_COUNT
    assert (
        reason(world, leaf_with(world.east, names(x509.DNSName("east.mesh.example")))) is Distrust.URI_COUNT
    )


def usage(*allowed: str) -> tuple[x509.ExtensionType, bool]:
    every = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    ]
    every += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return (x509.KeyUsage(**{name: name in allowed for name in every}), True)


def test_c3_a_leaf_must_not_be_more_than_a_leaf(world: World) -> None:
    east = world.east
    marked = leaf_with(east, (x509.BasicConstraints(ca=True, path_length=None), True))
    assert reason(world, marked) is Distrust.BASIC_CONSTRAINTS
    assert reason(world, leaf_with(east, without=x509.BasicConstraints)) is Distrust.BASIC_CONSTRAINTS
    for wrong in (
        usage("digital_signature", "key_cert_sign"),
        usage("digital_signature", "crl_sign"),
        usage(),
    ):
        assert reason(world, leaf_with(east, wrong)) is Distrust.KEY_USAGE
    assert reason(world, leaf_with(east, without=x509.KeyUsage)) is Distrust.KEY_USAGE
    for role in (
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.CODE_SIGNING,
    ):
        one = leaf_with(east, (x509.ExtendedKeyUsage([role]), False))
        assert reason(world, one) is Distrust.EXTENDED_KEY_USAGE
    assert reason(world, leaf_with(east, without=x509.ExtendedKeyUsage)) is Distrust.EXTENDED_KEY_USAGE


def test_c6_key_identifiers_are_demanded(world: World) -> None:
    assert reason(world, leaf_with(world.east, without=x509.SubjectKeyIdentifier)) is Distrust.KEY_IDENTIFIER
    assert reason(world, leaf_with(world.east, without=x509.AuthorityKeyIdentifier)) is Distrust.NO_PATH
    other = (x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None), False)
    assert reason(world, leaf_with(world.east, other)) is Distrust.NO_PATH


def test_unknown_critical_extensions_are_refused(world: World) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert reason(world, leaf_with(world.east, (unknown, True))) is Distrust.CRITICAL_EXTENSION
    loose = (x509.SubjectAlternativeName([uri(str(GATEWAY))]), False)
    assert reason(world, leaf_with(world.east, loose)) is Distrust.CRITICAL_EXTENSION
    assert verify_peer([leaf_with(world.east, loose, subject="named")], world.bundles, NOW) == GATEWAY


def test_c13_weak_keys_and_hashes_are_refused(world: World) -> None:
    keys: list[ANY_KEY] = [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        dsa.generate_private_key(1024),
    ]
    for key in keys:
        assert reason(world, leaf_with(world.east, key=key)) is Distrust.KEY, key
    assert weakness(rsa.generate_private_key(3, 2048).public_key()) == "RSA with exponent 3, allowed is 65537"
    assert weakness(rsa.generate_private_key(65537, 2048).public_key()) is None
    assert weakness(ec.generate_private_key(ec.SECP384R1()).public_key()) is None
    for digest in (hashes.SHA224(), hashes.SHA3_256()):
        assert reason(world, leaf_with(world.east, digest=digest)) is Distrust.ALGORITHM


def test_a_signature_counts_and_not_only_the_names(world: World) -> None:
    """The forger knows east's subject and key identifier, and signs with a key of its own."""
    plan = world.east.template(GATEWAY)
    assert reason(world, issue.sign(plan, new_key())) is Distrust.NO_PATH


def test_c9_the_end_is_inclusive_and_so_is_the_start(world: World) -> None:
    leaf = world.east.leaf(GATEWAY)
    start, end, second = leaf.not_valid_before_utc, leaf.not_valid_after_utc, timedelta(seconds=1)
    for now in (start, end, end + timedelta(microseconds=999_999)):
        assert verify_peer([leaf], world.bundles, now) == GATEWAY
    assert reason(world, leaf, now=end + second) is Distrust.EXPIRED
    assert reason(world, leaf, now=start - second) is Distrust.NOT_YET_VALID


def test_an_expired_anchor_carries_nobody(world: World) -> None:
    plan = replace(world.east.template(GATEWAY), not_after=NOW + timedelta(days=5000))
    late = world.east.self_signed.not_valid_after_utc + timedelta(seconds=1)
    assert reason(world, issue.sign(plan, world.east.key), now=late) is Distrust.EXPIRED


def below(
    parent: Template, key: ec.EllipticCurvePrivateKey, profile: Profile
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """An authority signed by the authority of `parent`, whose key is `key`."""
    child = new_key()
    plan = replace(
        issue.cluster_authority(EAST, 7, child.public_key(), serial(), NOW),
        profile=profile,
        issuer=parent.subject,
        authority_key_id=parent.subject_key_id,
    )
    return child, issue.sign(plan, key)


def leaf_of(key: ec.EllipticCurvePrivateKey, authority: x509.Certificate) -> x509.Certificate:
    return Ca(EAST, key, authority, authority).leaf(GATEWAY)


def test_c5_path_length_and_presented_intermediates() -> None:
    key = new_key()
    for path_length, levels, allowed in (
        (None, 2, True),
        (1, 1, True),
        (1, 2, False),
        (0, 1, False),
        (0, 0, True),
    ):
        profile = replace(CLUSTER_CA, path_length=path_length)
        plan = replace(issue.cluster_authority(EAST, 1, key.public_key(), serial(), NOW), profile=profile)
        anchor = issue.sign(plan, key)
        signer, parent, chain = key, plan, list[x509.Certificate]()
        for _ in range(levels):
            signer_key, made = below(parent, signer, replace(CLUSTER_CA, path_length=None))
            signer, chain = signer_key, [made, *chain]
            parent = replace(plan, subject=made.subject, subject_key_id=issue._key_id(signer.public_key()))
        leaf = leaf_of(signer, chain[0] if chain else anchor)
        bundles = {EAST: Bundle(EAST, 1, (anchor,))}
        if allowed:
            assert verify_peer([leaf, *chain], bundles, NOW) == GATEWAY
            assert verify_peer([leaf, *reversed(chain)], bundles, NOW) == GATEWAY
        else:
            with pytest.raises(Untrusted) as refused:
                verify_peer([leaf, *chain], bundles, NOW)
            assert refused.value.reason is Distrust.PATH_LENGTH


def test_c3_a_leaf_cannot_issue(world: World) -> None:
    """A leaf that signs another leaf, with matching names and key identifiers."""
    plan = replace(
        world.east.template(GATEWAY), subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    )
    key = new_key()
    plan = replace(plan, public_key=key.public_key(), subject_key_id=issue._key_id(key.public_key()))
    middle = issue.sign(plan, world.east.key)
    victim = replace(
        world.east.template(GATEWAY), issuer=middle.subject, authority_key_id=plan.subject_key_id
    )
    assert reason(world, issue.sign(victim, key), middle) is Distrust.BASIC_CONSTRAINTS


def test_loops_and_long_chains_end(world: World) -> None:
    leaf = world.east.leaf(GATEWAY)
    _, foreign = make_root()
    assert reason(world) is Distrust.EMPTY_CHAIN
    assert reason(world, *[leaf] * 5) is Distrust.LONG_CHAIN
    assert reason(world, world.west.forge(GATEWAY), foreign, foreign, foreign) is Distrust.NO_PATH
    one = make_ca(EAST, world.root_key, world.root)
    assert (
        reason(world, one.leaf(GATEWAY), one.self_signed, one.self_signed, one.self_signed)
        is Distrust.NO_PATH
    )


def test_c14_the_second_look_accepts_what_was_planned(world: World) -> None:
    plan = world.east.template(GATEWAY)
    assert check_issued(issue.sign(plan, world.east.key), plan, world.east.forms).serial_number == plan.serial
    root_plan = issue.root_authority(BASE, 1, world.root_key.public_key(), serial(), NOW)
    check_issued(issue.sign(root_plan, world.root_key), root_plan, ())
    rooted = issue.rooted_authority(EAST, 1, world.east.key.public_key(), world.root, serial(), NOW)
    check_issued(issue.sign(rooted, world.root_key), rooted, (world.root,))


def test_c14_the_second_look_sees_each_difference(world: World) -> None:
    plan = world.east.template(SpiffeId.agent(EAST))
    other = world.west.template(SpiffeId.gateway(WEST, "ingress"))
    hour = timedelta(hours=1)
    differences = {
        "serial": replace(plan, serial=plan.serial + 1),
        "subject": replace(plan, subject=other.issuer),
        "issuer": replace(plan, issuer=other.issuer),
        "key": replace(plan, public_key=other.public_key),
        "ski": replace(plan, subject_key_id=other.subject_key_id),
        "aki": replace(plan, authority_key_id=other.authority_key_id),
        "uri": replace(plan, uri=other.uri),
        "no uri": replace(plan, uri=None),
        "no dns": replace(plan, dns_names=()),
        "more dns": replace(plan, dns_names=(*plan.dns_names, "federation.hub.mesh.example")),
        "longer": replace(plan, not_after=plan.not_after + hour),
        "earlier": replace(plan, not_before=plan.not_before - hour),
        "authority": replace(plan, profile=CLUSTER_CA),
    }
    for what, signed in differences.items():
        with pytest.raises(Untrusted):
            check_issued(issue.sign(signed, world.east.key), plan, world.east.forms)
        with pytest.raises(Untrusted):
            check_issued(issue.sign(plan, world.east.key), signed, world.east.forms)
        assert what
    with pytest.raises(Untrusted, match="signature"):
        check_issued(issue.sign(plan, world.west.key), plan, world.east.forms)
    extra = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False)
    with pytest.raises(Untrusted):
        check_issued(leaf_with(world.east, extra), plan, world.east.forms)


def test_c14_the_second_look_refuses_a_weak_serial_and_a_life_beyond_the_issuer(world: World) -> None:
    weak = replace(world.east.template(GATEWAY), serial=1)
    with pytest.raises(Untrusted, match="serial"):
        check_issued(issue.sign(weak, world.east.key), weak, world.east.forms)
    end = world.east.self_signed.not_valid_after_utc
    long = replace(world.east.template(GATEWAY), not_after=end + timedelta(seconds=1))
    with pytest.raises(Untrusted, match="outlives"):
        check_issued(issue.sign(long, world.east.key), long, world.east.forms)


def test_c14_the_second_look_at_an_authority_names_each_difference(world: World) -> None:
    key, day = world.east.key.public_key(), timedelta(days=1)
    plan = issue.rooted_authority(EAST, 1, key, world.root, serial(), NOW)
    other = issue.rooted_authority(WEST, 2, world.west.key.public_key(), world.root, serial(), NOW)
    differences = {
        "the serial number": replace(plan, serial=plan.serial + 1),
        "the subject": replace(plan, subject=other.subject),
        "the issuer": replace(plan, issuer=other.subject),
        "the public key": replace(plan, public_key=other.public_key),
        "the start": replace(plan, not_before=plan.not_before + day),
        "the end": replace(plan, not_after=plan.not_after - day),
        "the subject key identifier": replace(plan, subject_key_id=other.subject_key_id),
        "the authority key identifier": replace(plan, authority_key_id=other.subject_key_id),
        "the alternative names": replace(plan, uri=other.uri),
        "the name constraints": replace(plan, profile=CLUSTER_CA_CONSTRAINED),
        "the path length": replace(plan, profile=replace(plan.profile, path_length=1)),
        "the set of extensions": replace(plan, uri=None),
    }
    for what, changed in differences.items():
        with pytest.raises(Untrusted, match=what):
            check_issued(issue.sign(changed, world.root_key), plan, (world.root,))


@pytest.mark.parametrize(
    ("number", "good"), [((1 << 63) - 1, False), (1 << 63, True), ((1 << 159) - 1, True)]
)
def test_c1_a_serial_number_of_an_authority_has_64_to_159_bits(world: World, number: int, good: bool) -> None:
    plan = issue.rooted_authority(EAST, 1, world.east.key.public_key(), world.root, number, NOW)
    with contextlib.nullcontext() if good else pytest.raises(Untrusted, match="serial number"):
        check_issued(issue.sign(plan, world.root_key), plan, (world.root,))


def test_c10_the_second_look_obeys_the_name_constraints_of_every_form(world: World) -> None:
    bound, of_west = constrained(world.east, world), str(SpiffeId.gateway(WEST, "eastwest"))
    plan = replace(world.east.template(GATEWAY), uri=of_west)
    check_issued(issue.sign(plan, world.east.key), plan, world.east.forms)
    with pytest.raises(Untrusted) as refused:
        check_issued(issue.sign(plan, bound.key), plan, bound.forms)
    assert refused.value.reason is Distrust.NAME_CONSTRAINTS
    fits = bound.template(GATEWAY)
    check_issued(issue.sign(fits, bound.key), fits, bound.forms)


FUZZED = make_world()
FUZZED_LEAF = FUZZED.east.leaf(GATEWAY)


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@given(
    st.sampled_from([FUZZED_LEAF, FUZZED.east.rooted, FUZZED.east.self_signed]),
    st.integers(0, 10**6),
    st.integers(1, 255),
)
def test_a_changed_certificate_is_never_believed_and_never_crashes(
    certificate: x509.Certificate, where: int, change: int
) -> None:
    """Any byte of a leaf, an intermediate or an anchor. A changed signature of a self-signed anchor is not
    looked at.
    """
    data = bytearray(der(certificate))
    at = where % len(data)
    data[at] ^= change
    try:
        changed = load_der(bytes(data))
    except Untrusted:
        return
    for chain, anchor in (
        ([changed], FUZZED.east.self_signed),
        ([FUZZED_LEAF, changed], FUZZED.root),
        ([FUZZED_LEAF], changed),
    ):
        with contextlib.suppress(Untrusted):
            accepted = verify_peer(chain, {EAST: Bundle(EAST, 1, (anchor,))}, NOW)
            assert accepted == GATEWAY
            assert changed is not chain[0]
        offered = Bundle(EAST, 1, (changed,), FUZZED.east.bundle.proof)
        assert isinstance(accept(None, offered, FUZZED.root), Rejected)
