"""Files that travel between an online process and the root: read back whole, or refused with what is wrong."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import csr, issue
from pki.ceremony import (
    LONGEST_FILE,
    MOST_REQUESTS,
    Answers,
    Request,
    Requests,
    aloud,
    asked,
    decode,
    encode,
    fingerprint,
    fingerprint_of,
    open_answers,
    same_fingerprint,
)
from pki.certificate import der
from pki.errors import CeremonyFile, Refused
from pki.names import LONGEST_LABEL
from pki.profiles import authority_subject
from pki.spiffe import TrustDomain
from tests.pki.world import BASE, NOW, Ca, World, make_ca, make_root, new_key, serial


def request_of(ca: Ca) -> Request:
    return Request(ca.trust_domain.name, csr.request(ca.key, ca.self_signed.subject))


def requests_of(*cas: Ca, base: str = BASE, root: str = "") -> Requests:
    return Requests(base=base, made_at=NOW, root=root, requests=tuple(map(request_of, cas)))


def answers_of(world: World, *cas: Ca, base: str = BASE) -> Answers:
    return Answers(
        base=base, made_at=NOW, root=der(world.root), certificates=tuple(der(ca.rooted) for ca in cas)
    )


def test_a_file_is_read_back_and_its_fingerprint_does_not_depend_on_white_space(world: World) -> None:
    file = requests_of(world.hub, world.east)
    text = encode(file)
    assert decode(text, Requests) == file
    squeezed = json.dumps(json.loads(text), separators=(",", ":")).encode()
    assert squeezed != text
    assert decode(squeezed, Requests) == file
    assert fingerprint(file) == json.loads(text)["fingerprint"]


@given(data=st.data())
def test_a_changed_character_is_never_overlooked(world: World, data: st.DataObject) -> None:
    """Either the file says what it said, as with white space, or it is refused."""
    file = answers_of(world, world.east)
    text = bytearray(encode(file))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    try:
        read = decode(bytes(text), Answers)
    except CeremonyFile:
        return
    assert read == file


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": 2}, "of version 2, and this program knows version 1"),
        ({"kind": "federation-ca-answers"}, "it holds answers of a root, and requests to a root are needed"),
        ({"kind": "something"}, "it holds something else"),
        ({"fingerprint": "00" * 32}, "damaged or was changed"),
        ({"content": {"base": BASE}}, "damaged: "),
        ({"more": 1}, "damaged: "),
    ],
)
def test_a_file_of_another_kind_or_version_or_a_damaged_one_is_refused_by_what_is_wrong(
    world: World, changed: dict[str, object], reason: str
) -> None:
    whole = json.loads(encode(requests_of(world.east)))
    with pytest.raises(CeremonyFile, match=reason) as refused:
        decode(json.dumps(whole | changed).encode(), Requests)
    assert refused.value.hint


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"-----BEGIN CERTIFICATE-----"])
def test_what_is_no_file_of_a_ceremony_is_refused(data: bytes) -> None:
    with pytest.raises(CeremonyFile, match="no file of a ceremony"):
        decode(data, Requests)


def test_a_file_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(CeremonyFile, match=f"longer than {LONGEST_FILE} bytes"):
        decode(b" " * (LONGEST_FILE + 1), Requests)


@pytest.mark.parametrize("number", [0, MOST_REQUESTS + 1])
def test_none_and_too_many_are_refused(world: World, number: int) -> None:
    file = Requests(base=BASE, made_at=NOW, requests=(request_of(world.east),) * number)
    with pytest.raises(CeremonyFile, match=f"it holds {number} of them"):
        decode(encode(file), Requests)


def test_as_many_as_allowed_with_the_longest_names_fit_into_a_file() -> None:
    """Both ways: their requests, and what the root signs."""
    key, root = make_root()
    base = ".".join(["x" * LONGEST_LABEL] * 2 + ["example"])
    domain = TrustDomain.of_cluster("c" * LONGEST_LABEL, base)
    own = new_key()
    subject = authority_subject(domain.name, 999_999, own.public_key())
    request = Request(domain.name, csr.request(own, subject))
    signed = issue.sign(issue.rooted_authority(domain, 999_999, own.public_key(), root, serial(), NOW), key)
    asking = Requests(base=base, made_at=NOW, root="0" * 64, requests=(request,) * MOST_REQUESTS)
    answering = Answers(base=base, made_at=NOW, root=der(root), certificates=(der(signed),) * MOST_REQUESTS)
    assert len(encode(asking)) <= LONGEST_FILE
    assert len(encode(answering)) <= LONGEST_FILE


def test_the_root_is_asked_for_each_authority_once_whatever_file_it_is_in(world: World) -> None:
    files = (requests_of(world.west, world.hub), requests_of(world.west))
    found = asked(files, world.root, BASE)
    assert [str(one.subordinate.trust_domain) for one in found] == ["hub.mesh.example", "west.mesh.example"]
    assert [one.subordinate.key for one in found] == [ca.key.public_key() for ca in (world.hub, world.west)]


def test_two_keys_for_one_name_are_refused(world: World) -> None:
    """A person at the root compares names; the second key would be somebody else's."""
    impostor = world.authority(world.east.trust_domain)
    with pytest.raises(Refused, match="asks with two different keys"):
        asked((requests_of(world.east), requests_of(impostor)), world.root, BASE)


def test_the_root_refuses_what_is_not_for_it(world: World) -> None:
    _, other = make_root()
    with pytest.raises(CeremonyFile, match=r"of the federation other\.example"):
        asked((requests_of(world.east, base="other.example"),), world.root, BASE)
    with pytest.raises(CeremonyFile, match="has pinned the root"):
        asked((requests_of(world.east, root=fingerprint_of(other)),), world.root, BASE)
    stranger = make_ca(TrustDomain.parse("east.other.example"), world.root_key, world.root)
    with pytest.raises(Refused, match=r"not one under mesh\.example"):
        asked((requests_of(stranger),), world.root, BASE)
    as_west = Request(world.west.trust_domain.name, request_of(world.east).csr)
    with pytest.raises(Refused, match="its subject is not that of an authority of"):
        asked((Requests(base=BASE, made_at=NOW, requests=(as_west,)),), world.root, BASE)


def test_answers_are_opened_by_the_trust_domain_that_each_is_for(world: World) -> None:
    opened = open_answers(answers_of(world, world.east, world.west), BASE, world.root, NOW)
    assert opened.signed == {ca.trust_domain: ca.rooted for ca in (world.east, world.west)}
    assert open_answers(answers_of(world, world.east), BASE, None, NOW).root == world.root


def test_answers_of_another_federation_or_root_are_refused(world: World) -> None:
    _, other = make_root()
    with pytest.raises(CeremonyFile, match=r"of the federation other\.example"):
        open_answers(answers_of(world, world.east, base="other.example"), BASE, None, NOW)
    with pytest.raises(CeremonyFile, match="pinned here is"):
        open_answers(answers_of(world, world.east), BASE, other, NOW)
    swapped = msgspec.structs.replace(answers_of(world, world.east), root=der(other))
    with pytest.raises(CeremonyFile, match="not signed by the root that comes along"):
        open_answers(swapped, BASE, None, NOW)


def test_answers_that_hold_a_leaf_a_self_signed_form_or_the_same_name_twice_are_refused(world: World) -> None:
    for certificates in (
        (der(world.east.self_signed),),
        (der(world.root),),
        (der(world.east.rooted), der(world.authority(world.east.trust_domain).rooted)),
        (b"not DER",),
    ):
        file = Answers(base=BASE, made_at=NOW, root=der(world.root), certificates=certificates)
        with pytest.raises(CeremonyFile):
            open_answers(file, BASE, world.root, NOW)


def test_answers_that_have_ended_are_refused(world: World) -> None:
    with pytest.raises(CeremonyFile, match="expired"):
        open_answers(answers_of(world, world.east), BASE, world.root, NOW + timedelta(days=400))


def test_people_may_write_a_fingerprint_as_they_hear_it(world: World) -> None:
    digest = fingerprint_of(world.root)
    assert same_fingerprint(aloud(digest), digest)
    colons = ":".join(digest[at : at + 2] for at in range(0, 64, 2)).upper()
    assert same_fingerprint(colons, digest)
    assert not same_fingerprint(digest[:-1], digest)
