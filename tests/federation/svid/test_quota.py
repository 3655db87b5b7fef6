from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from federation.svid.quota import Level, Quota, spend

GAPS = st.lists(st.floats(0, 10), min_size=1, max_size=200)


@given(st.floats(0.1, 100), st.floats(1, 100), GAPS)
def test_nobody_gets_more_than_the_burst_and_what_flowed_in_meanwhile(
    rate: float, burst: float, gaps: list[float]
) -> None:
    quota, level, now, granted = Quota(rate, burst), None, 0.0, 0
    for gap in gaps:
        now += gap
        spent = spend(level, quota, now)
        level = spent.level
        granted += spent.wait == 0
        assert 0 <= level.left <= burst
    assert granted <= burst + rate * now + 1e-6


@given(st.floats(0.1, 100), st.floats(1, 100), st.floats(0, 0.99))
def test_whoever_waits_as_told_is_served(rate: float, burst: float, left: float) -> None:
    quota = Quota(rate, burst)
    refused = spend(Level(left, 100.0), quota, 100.0)
    assert refused.wait > 0
    assert refused.level.left == left, "a refusal costs nothing"
    assert spend(refused.level, quota, 100.0 + refused.wait * (1 + 1e-9) + 1e-9).wait == 0


def test_a_bucket_that_nobody_knows_is_full() -> None:
    quota, level = Quota(1, 3), None
    waits: list[float] = []
    for _ in range(4):
        spent = spend(level, quota, 7.0)
        level, waits = spent.level, [*waits, spent.wait]
    assert waits == [0, 0, 0, 1]
