"""Bundles as SPIFFE implementations exchange them: what we write, what we read, and what we refuse to follow."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from pki.certificate import der
from pki.errors import InvalidBundle
from pki.spiffe import SpiffeId, TrustDomain
from pki.spiffe_bundle import (
    HIGHEST_SEQUENCE,
    LONGEST_DOCUMENT,
    MOST_AUTHORITIES,
    Followed,
    NotFollowed,
    SpiffeBundle,
    follow,
    parse,
    publish,
    write,
)
from tests.pki.world import BASE, NOW, World, make_world, new_key

EAST = TrustDomain.of_cluster("east", BASE)
FOREIGN = TrustDomain.parse("partner.example")
WORLD = make_world()
AUTHORITIES = (WORLD.east.self_signed, WORLD.west.self_signed, WORLD.hub.self_signed, WORLD.root)


def document(world: World, **changed: Any) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(publish(world.east.bundle))
    return said | changed


def first_key(world: World, **changed: Any) -> dict[str, Any]:
    said = document(world)
    said["keys"][0] |= changed
    return said


def read(said: Any) -> SpiffeBundle:
    return parse(FOREIGN, json.dumps(said).encode())


def test_what_is_published_has_the_members_that_the_format_names_and_no_others(world: World) -> None:
    said = document(world)
    assert set(said) == {"spiffe_sequence", "spiffe_refresh_hint", "keys"}
    assert (said["spiffe_sequence"], said["spiffe_refresh_hint"]) == (1, 300)
    [key] = said["keys"]
    assert set(key) == {"use", "kty", "crv", "x", "y", "x5c"}
    assert (key["use"], key["kty"], key["crv"]) == ("x509-svid", "EC", "P-256")
    assert [base64.b64decode(each) for each in key["x5c"]] == [der(world.east.self_signed)]


@given(
    st.lists(st.sampled_from(AUTHORITIES), min_size=1, unique=True),
    st.none() | st.integers(0, HIGHEST_SEQUENCE),
    st.integers(60, 86400),
)
def test_what_is_written_is_read_as_it_was(
    anchors: list[x509.Certificate], sequence: int | None, refresh: int
) -> None:
    bundle = SpiffeBundle(FOREIGN, sequence, tuple(anchors), timedelta(seconds=refresh))
    assert parse(FOREIGN, write(bundle)) == bundle


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_bytes_that_are_no_bundle_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        parse(FOREIGN, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(["use", "kty", "crv", "x", "y", "x5c", "kid", "n", "e", "extra"])


@given(NAMES, JSON)
def test_a_key_with_one_hostile_member_is_read_as_before_passed_over_or_refused(
    name: str, value: Any
) -> None:
    said = json.loads(publish(WORLD.east.bundle))
    said["keys"][0][name] = value
    try:
        found = parse(FOREIGN, json.dumps(said).encode())
    except InvalidBundle:
        return
    assert found.anchors == (WORLD.east.self_signed,)


def test_f2_the_trust_domain_comes_from_the_configuration_whatever_the_document_says(world: World) -> None:
    assert read(document(world, trust_domain="bank.example")).trust_domain == FOREIGN


@pytest.mark.parametrize(
    "key",
    [{"use": "jwt-svid", "kty": "EC", "kid": "a"}, {"use": "x509-svid", "kty": "oct"}, {"kty": "EC"}, {}],
)
def test_f3_keys_of_other_uses_and_kinds_are_passed_over(world: World, key: dict[str, Any]) -> None:
    said = document(world)
    said["keys"].insert(0, key)
    assert read(said).anchors == (world.east.self_signed,)


def test_f3_only_the_first_certificate_of_a_key_counts(world: World) -> None:
    chain = [base64.b64encode(der(one)).decode() for one in (world.east.self_signed, world.west.self_signed)]
    assert read(first_key(world, x5c=chain)).anchors == (world.east.self_signed,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kid": "one"}, r"keys\[0\]\.kid: .* has none"),
        ({"x5c": []}, r"keys\[0\]\.x5c: not a list"),
        ({"x5c": "MIIB"}, r"keys\[0\]\.x5c: not a list"),
        ({"x5c": [7]}, r"keys\[0\]\.x5c: not a list"),
        ({"x5c": ["***"]}, r"keys\[0\]\.x5c\[0\]: not base64"),
        ({"x5c": ["AAAA"]}, r"keys\[0\]\.x5c\[0\]: .*cannot be parsed"),
        ({"x": "AAAA"}, r"keys\[0\]\.x: not that of the certificate"),
        ({"crv": "P-384"}, r"keys\[0\]\.crv: not that of the certificate"),
    ],
)
def test_f3_a_wrong_authority_makes_the_document_refused_and_is_named(
    world: World, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidBundle, match=reason):
        read(first_key(world, **change))


def test_f3_a_leaf_is_no_authority(world: World) -> None:
    leaf = world.east.leaf(SpiffeId.gateway(EAST, "eastwest"))
    with pytest.raises(InvalidBundle, match="not marked as an authority"):
        parse(FOREIGN, write(SpiffeBundle(FOREIGN, 1, (leaf,))))


def test_f3_an_authority_that_may_not_sign_certificates_is_none() -> None:
    with pytest.raises(InvalidBundle, match="may not sign certificates"):
        parse(FOREIGN, write(SpiffeBundle(FOREIGN, 1, (_with_key_usage(cert_sign=False),))))


def test_f3_a_weak_key_is_refused(world: World) -> None:
    anchor = _with_key_usage(cert_sign=True, key=rsa.generate_private_key(65537, 1024))
    key = {"use": "x509-svid", "kty": "RSA", "x5c": [base64.b64encode(der(anchor)).decode()]}
    with pytest.raises(InvalidBundle, match="RSA with 1024 bits"):
        read(document(world, keys=[key]))


def test_f3_an_authority_with_an_rsa_key_of_a_foreign_profile_is_read() -> None:
    anchor = _with_key_usage(cert_sign=True, key=rsa.generate_private_key(65537, 2048))
    bundle = SpiffeBundle(FOREIGN, 3, (anchor,))
    assert parse(FOREIGN, write(bundle)) == bundle


@pytest.mark.parametrize("keys", [[], [{"use": "jwt-svid", "kty": "EC"}]])
def test_f3_a_bundle_without_an_authority_is_refused(world: World, keys: list[Any]) -> None:
    with pytest.raises(InvalidBundle, match="has no X"):
        read(document(world, keys=keys))


@pytest.mark.parametrize(
    ("said", "seconds"), [(0, 60), (59, 60), (300, 300), (86401, 86400), (10**30, 86400), (None, 300)]
)
def test_f3_the_refresh_hint_is_kept_within_bounds(world: World, said: int | None, seconds: int) -> None:
    assert read(document(world, spiffe_refresh_hint=said)).refresh == timedelta(seconds=seconds)


@pytest.mark.parametrize("sequence", [-1, 2**64, 1.5, "1", True])
def test_a_sequence_that_cannot_be_is_refused(world: World, sequence: Any) -> None:
    with pytest.raises(InvalidBundle):
        read(document(world, spiffe_sequence=sequence))


def test_f2_a_document_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidBundle, match="allowed are 1048576"):
        parse(FOREIGN, b"[" * (LONGEST_DOCUMENT + 1))


def test_nesting_is_no_way_to_bring_the_parser_down() -> None:
    with pytest.raises(InvalidBundle):
        parse(FOREIGN, b'{"keys":' + b"[" * 200_000)


def test_one_authority_too_many_is_refused(world: World) -> None:
    many = tuple(_with_key_usage(cert_sign=True) for _ in range(MOST_AUTHORITIES + 1))
    assert len(parse(FOREIGN, write(SpiffeBundle(FOREIGN, 1, many[:-1]))).anchors) == MOST_AUTHORITIES
    with pytest.raises(InvalidBundle, match="more than 32"):
        parse(FOREIGN, write(SpiffeBundle(FOREIGN, 1, many)))


# ---- following -------------------------------------------------------------------------------------------------------


def foreign(world: World, sequence: int | None, *anchors: x509.Certificate) -> SpiffeBundle:
    return SpiffeBundle(FOREIGN, sequence, anchors or (world.east.self_signed,))


def test_s5_the_first_one_is_taken(world: World) -> None:
    offered = foreign(world, 7)
    assert follow(None, offered) == Followed(offered, changed=True)


def test_s5_a_higher_sequence_is_taken(world: World) -> None:
    offered = foreign(world, 8, world.west.self_signed)
    assert follow(foreign(world, 7), offered) == Followed(offered, changed=True)


@pytest.mark.parametrize(
    ("held", "offered", "reason"),
    [(7, 6, "lower"), (7, None, "has no sequence")],
)
def test_s5_a_lower_or_missing_sequence_is_not_followed(
    world: World, held: int, offered: int | None, reason: str
) -> None:
    outcome = follow(foreign(world, held), foreign(world, offered))
    assert isinstance(outcome, NotFollowed)
    assert reason in outcome.reason


def test_s5_the_same_sequence_with_other_authorities_is_not_followed(world: World) -> None:
    outcome = follow(foreign(world, 7), foreign(world, 7, world.west.self_signed))
    assert isinstance(outcome, NotFollowed)
    assert "other authorities" in outcome.reason


def test_the_same_again_is_no_change_and_may_bring_another_rhythm(world: World) -> None:
    again = SpiffeBundle(FOREIGN, 7, (world.east.self_signed,), timedelta(minutes=1))
    assert follow(foreign(world, 7), again) == Followed(again, changed=False)


def test_without_sequences_the_last_one_fetched_counts(world: World) -> None:
    offered = foreign(world, None, world.west.self_signed)
    assert follow(foreign(world, None), offered) == Followed(offered, changed=True)
    assert follow(offered, offered) == Followed(offered, changed=False)


def test_f1_a_bundle_of_another_trust_domain_is_never_taken(world: World) -> None:
    outcome = follow(foreign(world, 1), SpiffeBundle(EAST, 2, (world.east.self_signed,)))
    assert isinstance(outcome, NotFollowed)


# ---- what the tests are made of --------------------------------------------------------------------------------------


def _with_key_usage(*, cert_sign: bool, key: Any = None) -> x509.Certificate:
    """A self-signed authority as somebody else might make it."""
    key = key or new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "partner")])
    usage = x509.KeyUsage(True, False, False, False, False, cert_sign, True, False, False)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
