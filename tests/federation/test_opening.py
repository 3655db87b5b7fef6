"""Who has to be heard before gateways are served and the others are told, and how long anybody is waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.events import GatewayReported, HubChanged
from federation.model import HUB, View
from federation.opening import PATIENCE, Known, Opening
from tests.federation.world import gateway, joined, view_after

UP = HubChanged(True)
THREE = view_after(*joined("east", "west", "central"), UP)
NOBODY = Known(frozenset())


def known(*owners: str) -> Known:
    return Known(frozenset({HUB, *owners}))


def test_a_memory_of_everybody_opens_at_once_with_no_hub() -> None:
    view = view_after(*joined("east", "west", "central"))
    assert Opening().advance(view, known("west", "central"), 0.0).may_serve


def test_the_first_cluster_ever_has_nobody_to_wait_for_but_the_registry() -> None:
    view = view_after(*joined("east"), UP)
    assert not Opening().advance(view, NOBODY, 0.0).may_serve
    assert Opening().advance(view, known(), 0.0).may_serve


def test_every_member_is_waited_for_by_name() -> None:
    opening = Opening().advance(THREE, known("west"), 1.0)
    assert not opening.may_serve
    assert opening.reasons() == ("the first word of central (at most 29 s more with the hub connected)",)
    assert opening.advance(THREE, known("west", "central"), 1.0).may_serve


def test_a_member_of_whom_nobody_hears_is_given_up_and_not_waited_for_again() -> None:
    opening = Opening().advance(THREE, known("west"), PATIENCE)
    assert opening.may_serve
    assert opening.without == {"central"}
    without_hub = view_after(*joined("east", "west", "central"))
    assert Opening(opening.without).advance(without_hub, known("west"), 0.0).may_serve


def test_without_a_hub_no_time_passes_and_its_return_begins_the_wait_anew() -> None:
    down = view_after(HubChanged(False), start=THREE)
    opening = Opening()
    for view, elapsed in ((THREE, PATIENCE - 1), (down, 10 * PATIENCE), (THREE, PATIENCE - 1)):
        opening = opening.advance(view, known("west"), elapsed)
        assert not opening.may_serve
    assert opening.advance(THREE, known("west"), 1.0).may_serve


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.sets(st.sampled_from(["west", "central"])))))
def test_without_the_whole_registry_nothing_is_ever_served(
    steps: list[tuple[bool, float, set[str]]],
) -> None:
    opening = Opening()
    for up, elapsed, owners in steps:
        opening = opening.advance(view_after(HubChanged(up), start=THREE), Known(frozenset(owners)), elapsed)
        assert not opening.may_serve
        assert opening.without == frozenset()


def test_who_forgot_its_gateways_says_nothing_before_one_has_reported() -> None:
    forgot = Known(frozenset({HUB, "west", "central"}), forgot=True)
    opening = Opening().advance(THREE, forgot, 0.0)
    assert opening.may_serve
    assert not opening.may_tell
    assert "a gateway of this cluster" in opening.reasons()[0]
    assert not opening.advance(with_gateway(serving=False), forgot, 0.0).may_tell
    assert opening.advance(with_gateway(serving=True), forgot, 0.0).may_tell
    assert opening.advance(THREE, forgot, PATIENCE).may_tell, "there may be none any more"


def test_who_never_had_gateways_has_none_to_forget() -> None:
    assert Opening().advance(THREE, known(), 0.0).may_tell


def with_gateway(*, serving: bool) -> View:
    return view_after(GatewayReported(gateway(serving=serving), {}, {}), start=THREE)
