"""Who has to be heard before gateways are served and the others are told, and how long anybody is waited for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from federation.events import GatewayReported, HubChanged
from federation.model import HUB, View
from federation.opening import LONGEST_STEP, PATIENCE, Known, Opening
from tests.federation.world import gateway, joined, view_after

UP = HubChanged(True)
THREE = view_after(*joined("east", "west", "central"), UP)
DOWN = view_after(HubChanged(False), start=THREE)
NOBODY = Known(frozenset())


def known(*owners: str) -> Known:
    return Known(frozenset({HUB, *owners}))


def after(opening: Opening, seconds: float, view: View, known: Known) -> Opening:
    """How things stand `seconds` later, looked at each second."""
    for _ in range(round(seconds)):
        opening = opening.advance(view, known, 1.0)
    return opening


def test_who_has_heard_everybody_opens_at_once_with_no_hub() -> None:
    assert Opening().advance(DOWN, known("west", "central"), 0.0).may_serve


def test_who_served_from_its_memory_serves_from_it_again_with_no_hub_and_whoever_is_missing_in_it() -> None:
    assert Opening(served=True).may_serve
    opening = Opening(served=True).advance(DOWN, NOBODY, 0.0)
    assert opening.may_serve
    assert opening.reasons() == ()


def test_the_first_cluster_ever_has_nobody_to_wait_for_but_the_registry() -> None:
    view = view_after(*joined("east"), UP)
    assert not Opening().advance(view, NOBODY, 0.0).may_serve
    assert Opening().advance(view, known(), 0.0).may_serve


def test_every_member_is_waited_for_by_name() -> None:
    opening = Opening().advance(THREE, known("west"), 1.0)
    assert not opening.may_serve
    assert opening.reasons() == ("the first word of central (at most 29 s more with the hub connected)",)
    assert opening.advance(THREE, known("west", "central"), 1.0).may_serve


def test_a_member_of_whom_nobody_hears_is_given_up() -> None:
    opening = after(Opening(), PATIENCE - 1, THREE, known("west"))
    assert not opening.may_serve
    assert opening.advance(THREE, known("west"), 1.0).may_serve


def test_a_process_that_was_stopped_has_not_waited_meanwhile() -> None:
    opening = Opening().advance(THREE, known("west"), 2 * PATIENCE)
    assert not opening.may_serve
    assert opening.waited == LONGEST_STEP


def test_without_a_hub_no_time_passes_and_what_had_passed_counts_on() -> None:
    opening = after(Opening(), PATIENCE - 1, THREE, known("west"))
    opening = after(opening, 10 * PATIENCE, DOWN, known("west"))
    assert not opening.may_serve
    assert opening.advance(THREE, known("west"), 1.0).may_serve


def test_the_wait_for_members_begins_with_the_registry() -> None:
    opening = after(Opening(), 2 * PATIENCE, THREE, NOBODY)
    assert opening.reasons()[0] == "the registry from the hub"
    assert not after(opening, PATIENCE - 1, THREE, known("west")).may_serve


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.sets(st.sampled_from(["west", "central"])))))
def test_without_the_whole_registry_nothing_is_ever_served(
    steps: list[tuple[bool, float, set[str]]],
) -> None:
    opening = Opening()
    for up, elapsed, owners in steps:
        opening = opening.advance(view_after(HubChanged(up), start=THREE), Known(frozenset(owners)), elapsed)
        assert not opening.may_serve


SPOKE_BEFORE = Known(frozenset({HUB, "west", "central"}), epoch=2)


def test_who_forgot_its_gateways_says_nothing_before_one_has_reported() -> None:
    opening = Opening().advance(THREE, SPOKE_BEFORE, 0.0)
    assert opening.may_serve
    assert not opening.may_tell
    assert opening.reasons() == (
        "a gateway of this cluster, which others still know of (at most 30 s more with the hub connected)",
    )
    assert not opening.advance(with_gateway(serving=False), SPOKE_BEFORE, 0.0).may_tell
    assert opening.advance(with_gateway(serving=True), SPOKE_BEFORE, 0.0).may_tell
    assert after(opening, PATIENCE, THREE, SPOKE_BEFORE).may_tell, "there may be none any more"


def test_who_told_from_its_memory_tells_from_it_again() -> None:
    assert Opening(told=True).advance(DOWN, SPOKE_BEFORE, 0.0).may_tell


def test_who_never_had_gateways_has_none_to_forget() -> None:
    assert Opening().advance(THREE, replace(SPOKE_BEFORE, epoch=1), 0.0).may_tell


def with_gateway(*, serving: bool) -> View:
    return view_after(GatewayReported(gateway(serving=serving), {}, {}), start=THREE)
