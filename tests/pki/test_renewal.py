from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pki import issue
from pki.renewal import fraction, renew_at
from pki.spiffe import SpiffeId
from tests.pki.world import NOW, World


@given(st.integers(1, 2**159 - 1))
def test_the_point_is_drawn_once_and_leaves_half_of_the_life(serial: int) -> None:
    assert 0.40 <= fraction(serial) < 0.50
    assert fraction(serial) == fraction(serial)


def test_renewals_of_certificates_made_together_are_spread_evenly() -> None:
    drawn = sorted(fraction(serial) for serial in range(1, 10_001))
    assert drawn[0] < 0.401
    assert drawn[-1] > 0.499
    assert max(later - earlier for earlier, later in pairwise(drawn)) < 0.1 * 0.02


def test_a_gateways_certificate_has_at_least_twelve_hours_left(world: World) -> None:
    leaf = world.east.leaf(SpiffeId.gateway(world.east.trust_domain, "eastwest"))
    left = leaf.not_valid_after_utc - renew_at(leaf)
    assert timedelta(hours=12) <= left <= timedelta(hours=14.4)
    assert renew_at(leaf) == NOW + timedelta(hours=24) * fraction(leaf.serial_number)


def test_short_lives_are_counted_from_when_the_certificate_was_made(world: World) -> None:
    plan = world.east.template(SpiffeId.agent(world.east.trust_domain))
    leaf = issue.sign(replace(plan, not_after=NOW + timedelta(seconds=10)), world.east.key)
    assert timedelta(seconds=4) <= renew_at(leaf) - NOW < timedelta(seconds=5)
