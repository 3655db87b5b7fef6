"""Whose word counts that he holds an anchor: a hub that fakes, hides, repeats or mixes what others say gets nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from federation.evidence import Evidence
from federation.held import Held, Stamp, Version, content, digest
from federation.model import HUB
from federation.turning import Own, reports
from pki.bundle import Bundle
from pki.rotation import Blocker, Lack, Phase, Reports, Rotation, Token, advance, blockers
from pki.spiffe import TrustDomain
from pki.statement import Kind, sign
from tests.pki.world import BASE, Ca, make_ca, make_world

WORLD = make_world()
CENTRAL = make_ca(TrustDomain.of_cluster("central", BASE), WORLD.root_key, WORLD.root)
SUCCESSOR = make_ca(TrustDomain.of_cluster("central", BASE), WORLD.root_key, WORLD.root, epoch=2)
WEST = str(WORLD.west.trust_domain)
ME = "west"
"""We rotate, and wait for central and the hub."""
NEWEST, BEFORE = (1, 5), (1, 4)
OURS = replace(WORLD.west.bundle, sequence=5)
OTHER = replace(OURS, anchors=(*OURS.anchors, WORLD.east.self_signed))
"""What we published under this number before our folder was put back from a copy."""
PUBLISHED = Rotation(Token(1, 2), Phase.PUBLISHED)
RETIRING = Rotation(Token(1, 4), Phase.RETIRING)
MEMBERS = frozenset({ME, "central", HUB})
BUNDLES = {"central": CENTRAL.bundle, ME: WORLD.west.bundle, "east": WORLD.east.bundle}


def held(
    version: Version = NEWEST, owner: str = "central", stamp: Stamp = (3, 1), ours: Bundle | None = OURS
) -> Held:
    digests = () if ours is None else ((WEST, digest(ours)),)
    return Held(owner, ((WEST, *version),), (), digests, stamp)


def signed(said: Held, by: Ca = CENTRAL) -> Held:
    return replace(said, signature=sign(Kind.HELD, content(said, by.trust_domain), by.key))


def holding_up(
    told: Held | None,
    rotation: Rotation = PUBLISHED,
    evidence: Evidence | None = None,
    bundles: Mapping[str, Bundle] = BUNDLES,
    of_hub: Bundle | None = OURS,
) -> tuple[Blocker, ...]:
    """Who holds our rotation up, if that is what a hub tells of central."""
    anchors = rotation.rule.anchors
    mine = Own(NEWEST, anchors, NEWEST, rotation.rule.issuer, frozenset({rotation.rule.issuer}))
    said = {HUB: held(owner=HUB, ours=of_hub)} | ({} if told is None else {"central": told})
    weighed = (evidence or Evidence()).weigh(said, bundles.get, OURS)
    found = reports(rotation, ME, mine, WEST, weighed.counted)
    heard: Reports = {**found, **weighed.doubts}
    holding = blockers(rotation, MEMBERS, heard)
    assert (advance(rotation, MEMBERS, heard) == rotation) == bool(holding)
    return holding


@pytest.mark.parametrize("rotation", [PUBLISHED, RETIRING])
def test_who_has_signed_that_he_holds_the_newest_anchors_is_waited_for_no_longer(rotation: Rotation) -> None:
    assert holding_up(signed(held()), rotation) == ()
    assert holding_up(signed(held(BEFORE)), rotation) == (Blocker("central", Lack.ANCHORS),)
    assert holding_up(None, rotation) == (Blocker("central", Lack.REPORT),)


def test_an_agent_of_a_version_before_does_not_say() -> None:
    assert holding_up(held()) == (Blocker("central", Lack.SIGNATURE),)


FORGED = {
    "by the hub": lambda: signed(held(), replace(WORLD.hub, trust_domain=CENTRAL.trust_domain)),
    "by another member": lambda: signed(held(), replace(WORLD.east, trust_domain=CENTRAL.trust_domain)),
    "by us": lambda: signed(held(), replace(WORLD.west, trust_domain=CENTRAL.trust_domain)),
    "another version": lambda: replace(signed(held(BEFORE)), bundles=((WEST, *NEWEST),)),
    "another owner": lambda: replace(signed(held(owner="east"), WORLD.east), owner="central"),
    "another stamp": lambda: replace(signed(held()), stamp=(3, 2)),
    "another digest": lambda: replace(signed(held(ours=OTHER)), digests=((WEST, digest(OURS)),)),
    "other roots": lambda: replace(signed(held()), roots=(b"root",)),
    "another federation": lambda: signed(
        held(), replace(CENTRAL, trust_domain=TrustDomain.parse("central.other.example"))
    ),
    "no signature at all": lambda: replace(held(), signature=b"it does"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_hub_that_fakes_what_others_hold_is_not_believed(forged: object) -> None:
    assert callable(forged)
    assert holding_up(forged()) == (Blocker("central", Lack.PROOF),)


def test_during_a_rotation_of_its_own_either_authority_may_have_signed() -> None:
    both = replace(CENTRAL.bundle, sequence=2, anchors=(CENTRAL.self_signed, SUCCESSOR.self_signed))
    after = replace(both, sequence=3, anchors=(SUCCESSOR.self_signed,))
    for by in (CENTRAL, SUCCESSOR):
        assert holding_up(signed(held(), by), bundles={"central": both}) == ()
    assert holding_up(signed(held(), SUCCESSOR), bundles={"central": after}) == ()
    assert holding_up(signed(held(), CENTRAL), bundles={"central": after}) == (
        Blocker("central", Lack.PROOF),
    )


def test_whether_it_counts_follows_the_bundle_that_is_held_now() -> None:
    """Its bundle may come after its word; and an authority that was let go of has no say any more."""
    evidence, said = Evidence(), signed(held(), SUCCESSOR)
    after = replace(CENTRAL.bundle, sequence=2, anchors=(SUCCESSOR.self_signed,))
    assert holding_up(said, evidence=evidence) == (Blocker("central", Lack.PROOF),)
    assert holding_up(said, evidence=evidence, bundles={"central": after}) == ()
    assert holding_up(said, evidence=evidence) == (Blocker("central", Lack.PROOF),)


def test_nobody_is_verified_by_the_bundle_of_somebody_else() -> None:
    assert holding_up(signed(held()), bundles={}) == (Blocker("central", Lack.BUNDLE),)
    assert holding_up(signed(held()), bundles={"central": WORLD.east.bundle}) == (
        Blocker("central", Lack.PROOF),
    )


def test_an_old_word_that_is_repeated_understates() -> None:
    assert holding_up(signed(held(BEFORE, stamp=(2, 7)))) == (Blocker("central", Lack.ANCHORS),)


def test_an_old_word_does_not_count_after_a_newer_one() -> None:
    """A gateway that was put back from a copy holds less than before; what it once held is no evidence."""
    evidence = Evidence()
    more, less = signed(held(stamp=(3, 1))), signed(held(BEFORE, stamp=(3, 2)))
    assert holding_up(more, evidence=evidence) == ()
    assert holding_up(less, evidence=evidence) == (Blocker("central", Lack.ANCHORS),)
    assert holding_up(more, evidence=evidence) == (Blocker("central", Lack.NEWS),)
    assert holding_up(signed(held(stamp=(4, 1))), evidence=evidence) == (), "it started anew"


def test_what_was_forged_does_not_make_the_true_word_old() -> None:
    evidence = Evidence()
    assert holding_up(replace(held(stamp=(9, 9)), signature=b"x"), evidence=evidence) != ()
    assert holding_up(held(stamp=(9, 9)), evidence=evidence) != ()
    assert holding_up(signed(held()), evidence=evidence) == ()


def test_whoever_has_the_name_with_another_authority_counts_anew() -> None:
    evidence = Evidence()
    assert holding_up(signed(held(stamp=(9, 9))), evidence=evidence) == ()
    anew = Bundle(CENTRAL.trust_domain, 1, (SUCCESSOR.self_signed,), generation=2)
    said = signed(held(stamp=(1, 1)), SUCCESSOR)
    assert holding_up(said, evidence=evidence, bundles={"central": anew}) == ()


def test_the_hub_speaks_for_itself_on_its_own_stream_and_for_nobody_else() -> None:
    told = {HUB: held(owner=HUB), "east": held(owner="east")}
    weighed = Evidence().weigh(told, BUNDLES.get, OURS)
    assert set(weighed.counted) == {HUB}
    assert weighed.doubts == {"east": Lack.SIGNATURE}


@pytest.mark.parametrize("rotation", [PUBLISHED, RETIRING])
def test_who_holds_other_anchors_under_the_number_of_the_newest_does_not_hold_these(
    rotation: Rotation,
) -> None:
    """Our folder is from before a version that they hold: what we publish now they will never believe."""
    assert holding_up(signed(held(ours=OTHER)), rotation) == (Blocker("central", Lack.CONTENT),)
    assert holding_up(signed(held(ours=None)), rotation) == (Blocker("central", Lack.CONTENT),)
    assert holding_up(signed(held()), rotation, of_hub=OTHER) == (Blocker(HUB, Lack.CONTENT),)
    assert holding_up(signed(held()), rotation, of_hub=None) == (), "a hub of a version before"
