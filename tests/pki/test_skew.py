from __future__ import annotations

from datetime import timedelta

import pytest

from pki.errors import ClockError
from pki.skew import check_forward, check_skew
from tests.pki.world import NOW


@pytest.mark.parametrize(
    ("off", "says"), [(301, "301 s ahead of"), (-301, "301 s behind"), (-86400, "86400 s behind")]
)
def test_s6_skew_over_five_minutes_says_how_much(off: int, says: str) -> None:
    with pytest.raises(ClockError, match=f"{says} the clock of the hub") as refused:
        check_skew(NOW + timedelta(seconds=off), NOW, "the hub")
    assert refused.value.off == timedelta(seconds=off)


@pytest.mark.parametrize("off", [0, 1, -1, 300, -300])
def test_skew_up_to_five_minutes_passes(off: int) -> None:
    check_skew(NOW + timedelta(seconds=off), NOW, "the hub")


def test_s6_a_clock_may_step_back_a_little() -> None:
    check_forward(NOW, NOW + timedelta(seconds=5), "now")
    with pytest.raises(ClockError, match="6 s behind the last entry"):
        check_forward(NOW, NOW + timedelta(seconds=6), "the last entry")
