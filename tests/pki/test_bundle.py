from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki import bundle, issue
from pki.bundle import Accepted, Bundle, Proof, Rejected, Rejection, accept, decode, encode, sign_content
from pki.errors import InvalidBundle
from pki.profiles import CLUSTER_CA, GATEWAY, HIGHEST_EPOCH
from pki.rooted import is_rooted
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import BASE, NOW, Ca, make_ca, make_root, make_world, new_key, serial

EAST = TrustDomain.of_cluster("east", BASE)

WORLD = make_world()
SECOND = make_ca(EAST, WORLD.root_key, WORLD.root, epoch=2)
THIRD = make_ca(EAST, WORLD.root_key, WORLD.root, epoch=3)
CAS = (WORLD.east, SECOND, THIRD)


def why(outcome: Accepted | Rejected) -> Rejection:
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason


def successor(previous: Bundle, by: Ca, *anchors: Ca, sequence: int | None = None) -> Bundle:
    """A later version with these anchors, signed by `by`."""
    number = previous.sequence + 1 if sequence is None else sequence
    draft = Bundle(
        previous.trust_domain,
        number,
        tuple(ca.self_signed for ca in anchors),
        generation=previous.generation,
    )
    return signed(draft, by)


def signed(draft: Bundle, *by: Ca) -> Bundle:
    return replace(
        draft, proof=replace(draft.proof, signatures=tuple(sign_content(draft, ca.key) for ca in by))
    )


def begun(generation: int, *anchors: Ca, sequence: int = 1) -> Bundle:
    """A version that begins a generation, with the root's word for each anchor."""
    proof = Proof(rooted=tuple(ca.rooted for ca in anchors))
    return Bundle(EAST, sequence, tuple(ca.self_signed for ca in anchors), proof, generation)


def test_a_new_trust_domain_needs_the_roots_word() -> None:
    first = WORLD.east.bundle
    assert accept(None, first, WORLD.root) == Accepted(first, changed=True)
    assert why(accept(None, replace(first, proof=Proof()), WORLD.root)) is Rejection.NOT_ROOTED
    _, stranger = make_root()
    assert why(accept(None, first, stranger)) is Rejection.NOT_ROOTED


def test_the_roots_word_for_another_key_or_name_does_not_count() -> None:
    west = replace(WORLD.east.bundle, proof=WORLD.west.bundle.proof)
    assert why(accept(None, west, WORLD.root)) is Rejection.NOT_ROOTED
    other_key = replace(WORLD.east.bundle, proof=Proof(rooted=(SECOND.rooted,)))
    assert why(accept(None, other_key, WORLD.root)) is Rejection.NOT_ROOTED


def test_the_root_must_have_named_this_trust_domain() -> None:
    """The root vouched for the key of west; west now shows the same key as east's anchor."""
    key = WORLD.west.key
    as_east = issue.sign(issue.cluster_authority(EAST, 1, key.public_key(), serial(), NOW), key)
    stolen = Bundle(EAST, 1, (as_east,), Proof(rooted=(WORLD.west.rooted,)))
    assert why(accept(None, stolen, WORLD.root)) is Rejection.NOT_ROOTED
    plan = issue.rooted_authority(EAST, 1, key.public_key(), WORLD.root, serial(), NOW)
    nameless = issue.sign(replace(plan, uri=None), WORLD.root_key)
    assert why(accept(None, replace(stolen, proof=Proof((nameless,))), WORLD.root)) is Rejection.NOT_ROOTED


def test_each_anchor_needs_a_word_of_its_own() -> None:
    both = Bundle(EAST, 4, (WORLD.east.self_signed, SECOND.self_signed), Proof(rooted=(WORLD.east.rooted,)))
    assert why(accept(None, both, WORLD.root)) is Rejection.NOT_ROOTED
    complete = replace(both, proof=Proof(rooted=(SECOND.rooted, WORLD.east.rooted)))
    assert accept(None, complete, WORLD.root) == Accepted(complete, changed=True)


def test_an_anchor_must_not_outlive_the_roots_word() -> None:
    key = WORLD.east.key
    plan = issue.cluster_authority(EAST, 1, key.public_key(), serial(), NOW + timedelta(days=2))
    long = issue.sign(plan, key)
    offered = Bundle(EAST, 1, (long,), WORLD.east.bundle.proof)
    assert why(accept(None, offered, WORLD.root)) is Rejection.NOT_ROOTED


def test_an_anchor_may_end_with_the_roots_word_and_not_a_second_later() -> None:
    plan = issue.cluster_authority(EAST, 1, WORLD.east.key.public_key(), serial(), NOW)
    ends = WORLD.east.rooted.not_valid_after_utc
    for after, believed in ((0, True), (1, False)):
        changed = replace(plan, not_after=ends + timedelta(seconds=after))
        anchor = issue.sign(changed, WORLD.east.key)
        assert is_rooted(anchor, WORLD.east.rooted, WORLD.root) is believed


def test_a_leaf_is_no_word_of_the_root() -> None:
    plan = issue.rooted_authority(EAST, 1, WORLD.east.key.public_key(), WORLD.root, serial(), NOW)
    leaf = replace(plan, profile=GATEWAY)
    offered = replace(WORLD.east.bundle, proof=Proof(rooted=(issue.sign(leaf, WORLD.root_key),)))
    assert why(accept(None, offered, WORLD.root)) is Rejection.NOT_ROOTED


def test_s5_a_later_version_is_signed_by_an_anchor_of_the_one_before() -> None:
    first = WORLD.east.bundle
    second = successor(first, WORLD.east, WORLD.east, SECOND)
    assert accept(first, second, WORLD.root) == Accepted(second, changed=True)
    third = successor(second, SECOND, SECOND)
    assert accept(second, third, WORLD.root) == Accepted(third, changed=True)
    assert why(accept(first, third, WORLD.root)) is Rejection.NOT_SIGNED
    own = successor(first, SECOND, SECOND)
    assert why(accept(first, own, WORLD.root)) is Rejection.NOT_SIGNED


def test_the_roots_word_does_not_replace_the_signature() -> None:
    first = WORLD.east.bundle
    replaced = Bundle(EAST, 2, (SECOND.self_signed,), Proof(rooted=(SECOND.rooted,)))
    assert accept(None, replaced, WORLD.root) == Accepted(replaced, changed=True)
    assert why(accept(first, replaced, WORLD.root)) is Rejection.NOT_SIGNED


def test_sequence_and_content_decide_what_is_no_change() -> None:
    first = WORLD.east.bundle
    second = successor(first, WORLD.east, WORLD.east, SECOND)
    turned = replace(second, anchors=tuple(reversed(second.anchors)), proof=Proof())
    assert accept(second, turned, WORLD.root) == Accepted(second, changed=False)
    assert why(accept(second, first, WORLD.root)) is Rejection.OLDER
    conflict = successor(first, WORLD.east, SECOND, sequence=2)
    assert why(accept(second, conflict, WORLD.root)) is Rejection.CONFLICT
    assert why(accept(WORLD.west.bundle, first, WORLD.root)) is Rejection.OTHER_TRUST_DOMAIN


def test_a_signature_does_not_carry_over() -> None:
    first = WORLD.east.bundle
    second = successor(first, WORLD.east, WORLD.east, SECOND)
    for changed in (
        replace(second, sequence=3),
        replace(second, anchors=(SECOND.self_signed,)),
        replace(second, proof=Proof(signatures=(second.proof.signatures[0][:-1],))),
        replace(second, proof=Proof()),
    ):
        assert why(accept(first, changed, WORLD.root)) is Rejection.NOT_SIGNED


def test_who_missed_versions_gets_there_by_those_that_come_along() -> None:
    first = WORLD.east.bundle
    second = successor(first, WORLD.east, WORLD.east, SECOND)
    third = successor(second, SECOND, SECOND)
    fourth = successor(third, SECOND, SECOND, THIRD)
    fifth = replace(successor(fourth, THIRD, THIRD), earlier=(second, third, fourth))
    for held in (first, second, third, fourth):
        assert accept(held, fifth, WORLD.root) == Accepted(fifth, changed=True)
    assert why(accept(first, replace(fifth, earlier=(third, fourth)), WORLD.root)) is Rejection.NOT_SIGNED
    assert why(accept(first, replace(fifth, earlier=(second,)), WORLD.root)) is Rejection.NOT_SIGNED
    foreign = replace(second, proof=successor(first, SECOND, SECOND).proof)
    assert why(accept(first, replace(fifth, earlier=(foreign, third)), WORLD.root)) is Rejection.NOT_SIGNED
    assert accept(fifth, replace(fifth, earlier=()), WORLD.root) == Accepted(fifth, changed=False)


def test_a_version_that_both_authorities_signed_is_enough_for_who_missed_the_one_between() -> None:
    first = WORLD.east.bundle
    third = signed(Bundle(EAST, 3, (SECOND.self_signed,)), WORLD.east, SECOND)
    assert accept(first, third, WORLD.root) == Accepted(third, changed=True)


def test_a_higher_generation_needs_the_root_and_nothing_else() -> None:
    held = successor(WORLD.east.bundle, WORLD.east, WORLD.east, sequence=40)
    reset = begun(2, SECOND)
    assert accept(held, reset, WORLD.root) == Accepted(reset, changed=True)
    _, stranger = make_root()
    assert why(accept(held, reset, stranger)) is Rejection.NOT_ROOTED
    assert accept(held, reset, stranger, WORLD.root) == Accepted(reset, changed=True)
    by_the_stolen_key = signed(replace(reset, anchors=(THIRD.self_signed,), proof=Proof()), WORLD.east)
    assert why(accept(held, by_the_stolen_key, WORLD.root)) is Rejection.NOT_ROOTED
    with_the_old_anchor = begun(2, WORLD.east, SECOND)
    assert why(accept(held, with_the_old_anchor, WORLD.root)) is Rejection.MALFORMED
    assert why(accept(reset, held, WORLD.root)) is Rejection.OLDER
    later = successor(reset, SECOND, SECOND, THIRD)
    assert accept(reset, later, WORLD.root) == Accepted(later, changed=True)
    assert why(accept(held, later, WORLD.root)) is Rejection.NOT_ROOTED
    told = replace(later, proof=replace(later.proof, rooted=(SECOND.rooted, THIRD.rooted)))
    assert accept(held, told, WORLD.root) == Accepted(told, changed=True)


def test_a_generation_does_not_begin_with_an_authority_that_has_ended() -> None:
    """Its key may have been stolen since, and the root's word for it is public."""
    second = successor(WORLD.east.bundle, WORLD.east, WORLD.east, SECOND)
    third = successor(second, SECOND, THIRD)
    for held in (second, third):
        outcome = accept(held, begun(2, SECOND), WORLD.root)
        assert why(outcome) is Rejection.OLDER, held
    assert "epoch 3 is held" in str(accept(third, begun(3, THIRD), WORLD.root))
    fourth = make_ca(EAST, WORLD.root_key, WORLD.root, epoch=4)
    assert accept(third, begun(4, fourth), WORLD.root) == Accepted(begun(4, fourth), changed=True)


def test_what_a_bundle_claims_to_be_is_known_without_a_look_at_its_certificates() -> None:
    data = bundle.encode(begun(2, SECOND, sequence=7))
    assert bundle.claim(data) == (EAST.name, (2, 7))
    assert bundle.claim(data.replace(b'"anchors":["', b'"anchors":["AAAA')) == (EAST.name, (2, 7))
    for damaged in (b"", b"{}", data[:-1], b"\xff" + data, b" " * bundle.LONGEST_ENCODED + data):
        with pytest.raises(InvalidBundle):
            bundle.claim(damaged)


def test_where_signatures_lead_is_known_before_anything_else_is_checked() -> None:
    first = WORLD.east.bundle
    second = successor(first, WORLD.east, WORLD.east, SECOND)
    third = replace(successor(second, SECOND, SECOND), earlier=(first, second))
    root = WORLD.root

    def leads_on(held: Bundle, offered: Bundle) -> bool:
        return bundle.leads_on(held, bundle.encode(offered), root)

    for held in (first, second):
        assert leads_on(held, third)
    assert leads_on(third, begun(3, THIRD))
    assert not leads_on(third, first)
    assert not leads_on(first, replace(third, earlier=()))
    assert not leads_on(first, successor(first, THIRD, THIRD))
    assert not leads_on(third, replace(begun(3, THIRD), proof=Proof()))
    assert not leads_on(WORLD.west.bundle, second)
    assert not leads_on(first, successor(first, WORLD.east, *CAS)), "more than a rotation has"


def test_a_newcomer_believes_by_an_earlier_version_that_the_root_signed_if_signatures_lead_on() -> None:
    rooted = begun(1, WORLD.east)
    both = replace(successor(rooted, WORLD.east, WORLD.east, SECOND), earlier=(rooted,))
    assert accept(None, both, WORLD.root) == Accepted(both, changed=True)
    unrooted = replace(rooted, proof=Proof())
    assert why(accept(None, replace(both, earlier=(unrooted,)), WORLD.root)) is Rejection.NOT_ROOTED
    by_another = signed(replace(both, proof=Proof()), SECOND)
    assert why(accept(None, by_another, WORLD.root)) is Rejection.NOT_ROOTED, "nothing leads there"
    assert why(accept(None, replace(both, earlier=()), WORLD.root)) is Rejection.NOT_ROOTED
    anew = signed(Bundle(EAST, 1, (SECOND.self_signed, THIRD.self_signed), generation=2), WORLD.east)
    of_before = replace(anew, earlier=(rooted,))
    assert why(accept(None, of_before, WORLD.root)) is Rejection.NOT_ROOTED, (
        "the root's word was for generation 1"
    )


def test_another_version_of_the_number_that_is_held_leads_nowhere() -> None:
    """Whoever signs two versions of one number has two successions, and only one of them goes on from ours."""
    first = WORLD.east.bundle
    held = successor(first, WORLD.east, WORLD.east, SECOND)
    other = successor(first, WORLD.east, WORLD.east, THIRD)
    offered = replace(successor(other, THIRD, THIRD), earlier=(other,))
    assert accept(other, offered) == Accepted(offered, changed=True)
    assert why(accept(held, offered)) is Rejection.NOT_SIGNED


def test_a_signature_is_for_one_generation() -> None:
    first = WORLD.east.bundle
    second = successor(first, WORLD.east, SECOND)
    raised = replace(second, generation=2)
    assert why(accept(replace(begun(2, SECOND)), raised, WORLD.root)) is Rejection.NOT_SIGNED


def test_versions_that_come_along_are_of_the_same_trust_domain_and_in_order() -> None:
    second = successor(WORLD.east.bundle, WORLD.east, WORLD.east, SECOND)
    third = successor(second, SECOND, SECOND)
    for earlier in (
        (third,),
        (second, second),
        (second, WORLD.east.bundle),
        (replace(second, earlier=(WORLD.east.bundle,)),),
        (WORLD.west.bundle,),
        (replace(second, anchors=()),),
        (second,) * 17,
    ):
        with pytest.raises(InvalidBundle):
            bundle.check_bundle(replace(third, earlier=earlier))


steps = st.lists(
    st.tuples(
        st.integers(-1, 2),
        st.sampled_from(CAS),
        st.lists(st.sampled_from(CAS), min_size=1, max_size=3, unique=True),
        st.booleans(),
    ),
    max_size=8,
)


@given(steps)
def test_nobody_goes_back_and_no_key_comes_in_unsigned(
    offers: list[tuple[int, Ca, list[Ca], bool]],
) -> None:
    held = WORLD.east.bundle
    for distance, signer, anchors, intact in offers:
        offered = successor(held, signer, *anchors, sequence=held.sequence + distance)
        if not intact:
            offered = replace(offered, proof=Proof())
        outcome = accept(held, offered, WORLD.root)
        if isinstance(outcome, Accepted):
            assert outcome.bundle.sequence >= held.sequence
            if outcome.changed:
                assert outcome.bundle.sequence > held.sequence
                assert intact
                assert signer.self_signed in held.anchors
            else:
                assert outcome.bundle == held
            held = outcome.bundle


def test_what_is_not_a_bundle_is_refused() -> None:
    east = WORLD.east
    gateway = east.leaf(SpiffeId.gateway(EAST, "eastwest"))
    twin_plan = issue.cluster_authority(EAST, 1, east.key.public_key(), serial(), NOW)
    twin = issue.sign(twin_plan, east.key)
    unnamed = issue.sign(replace(twin_plan, uri=None), east.key)
    unsigned = issue.sign(twin_plan, new_key())
    for anchors in (
        (),
        (gateway,),
        (east.rooted,),
        (WORLD.root,),
        (WORLD.west.self_signed,),
        (east.self_signed, WORLD.west.self_signed),
        (east.self_signed, east.self_signed),
        (east.self_signed, twin),
        (unnamed,),
        (unsigned,),
        (east.self_signed,) * 9,
    ):
        offered = Bundle(EAST, 1, anchors, east.bundle.proof)
        assert why(accept(None, offered, WORLD.root)) is Rejection.MALFORMED
        with pytest.raises(InvalidBundle):
            decode(encode(offered))
    for sequence in (0, -1, 2**63):
        assert why(accept(None, replace(east.bundle, sequence=sequence), WORLD.root)) is Rejection.MALFORMED


def test_the_holder_of_a_stolen_key_leaves_epochs_to_replace_it_with() -> None:
    """Whoever relays it: a bundle goes so far above its generation, and the root's word begins another one beyond."""
    last, beyond, newest = (
        make_ca(EAST, WORLD.root_key, WORLD.root, epoch)
        for epoch in (bundle.MOST_EPOCHS, bundle.MOST_EPOCHS + 1, HIGHEST_EPOCH)
    )
    held = WORLD.east.bundle
    for far in (beyond, newest):
        assert why(accept(held, successor(held, WORLD.east, far), WORLD.root)) is Rejection.MALFORMED
        assert why(accept(None, replace(far.bundle, generation=1), WORLD.root)) is Rejection.MALFORMED
    stolen = successor(held, WORLD.east, last)
    assert isinstance(accept(held, stolen, WORLD.root), Accepted)
    assert isinstance(accept(stolen, begun(bundle.MOST_EPOCHS + 1, beyond), WORLD.root), Accepted)


def test_encoding_keeps_everything() -> None:
    second = successor(WORLD.east.bundle, WORLD.east, WORLD.east, SECOND)
    third = replace(successor(second, SECOND, SECOND), earlier=(WORLD.east.bundle, second))
    for value in (WORLD.east.bundle, WORLD.hub.bundle, second, third, begun(2, SECOND, THIRD)):
        assert decode(encode(value)) == value
        assert hash(decode(encode(value))) == hash(value)


def test_hostile_encodings_are_refused() -> None:
    good = msgspec.json.decode(encode(WORLD.east.bundle))
    anchor = good["anchors"][0]
    changes: list[dict[str, object]] = [
        {"unknown": 1},
        {"sequence": "1"},
        {"sequence": 1.5},
        {"sequence": 0},
        {"trust_domain": "East"},
        {"trust_domain": "west.mesh.example"},
        {"anchors": []},
        {"anchors": [anchor] * 9},
        {"anchors": ["AAAA"]},
        {"anchors": ["not base64!"]},
        {"anchors": [anchor + "AAAA"]},
        {"rooted": ["AAAA"]},
        {"signatures": ["AAAA"] * 3},
        {"generation": 0},
        {"generation": 2},
        {"generation": 1_000_000},
        {"earlier": [good]},
        {"earlier": [good | {"earlier": []}]},
        {"earlier": [{}] * 17},
        {"rooted": [anchor] * 9},
    ]
    for changed in changes:
        with pytest.raises(InvalidBundle):
            decode(msgspec.json.encode(good | changed))
    for data in (b"", b"{}", b"[]", b"\xff", b" " * (bundle.LONGEST_ENCODED + 1)):
        with pytest.raises(InvalidBundle):
            decode(data)


def test_what_is_just_within_the_limits_is_a_bundle_and_one_more_is_not() -> None:
    cas = [make_ca(EAST, WORLD.root_key, WORLD.root, epoch) for epoch in range(1, bundle.MOST_ANCHORS + 2)]
    *most, extra = (ca.self_signed for ca in cas)
    fullest = Bundle(
        EAST,
        bundle.HIGHEST_SEQUENCE,
        tuple(most),
        Proof(
            tuple(ca.rooted for ca in cas[: bundle.MOST_ANCHORS]), (b"signature",) * bundle.MOST_SIGNATURES
        ),
        earlier=tuple(Bundle(EAST, number, (most[0],)) for number in range(1, bundle.MOST_EARLIER + 1)),
    )
    bundle.check_bundle(fullest)
    assert decode(encode(fullest)) == fullest
    newest = make_ca(EAST, WORLD.root_key, WORLD.root, HIGHEST_EPOCH)
    bundle.check_bundle(begun(HIGHEST_EPOCH, newest))
    for more in (
        replace(fullest, sequence=bundle.HIGHEST_SEQUENCE + 1),
        replace(fullest, anchors=(*most, extra)),
        replace(fullest, earlier=(*fullest.earlier, Bundle(EAST, bundle.MOST_EARLIER + 1, (most[0],)))),
        replace(
            fullest, proof=replace(fullest.proof, signatures=(b"signature",) * (bundle.MOST_SIGNATURES + 1))
        ),
        replace(begun(HIGHEST_EPOCH, newest), generation=HIGHEST_EPOCH + 1),
    ):
        with pytest.raises(InvalidBundle):
            bundle.check_bundle(more)


def test_as_many_bytes_as_are_allowed_are_read() -> None:
    data = encode(WORLD.east.bundle)
    longest = data + b" " * (bundle.LONGEST_ENCODED - len(data))
    assert decode(longest) == WORLD.east.bundle
    with pytest.raises(InvalidBundle, match="bytes"):
        decode(longest + b" ")


def test_pem_holds_the_anchors_and_nothing_else() -> None:
    assert x509.load_pem_x509_certificates(WORLD.east.bundle.pem()) == [WORLD.east.self_signed]


def test_a_pathless_profile_is_still_an_anchor() -> None:
    key = new_key()
    plan = issue.cluster_authority(EAST, 1, key.public_key(), serial(), NOW)
    anchor = issue.sign(replace(plan, profile=replace(CLUSTER_CA, path_length=None)), key)
    bundle.check_bundle(Bundle(EAST, 1, (anchor,)))
