from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import InvalidName, Refused
from pki.limits import NameTemplate, lifetime_of


@pytest.mark.parametrize("text", ["/ns/*/sa/*", "/ns/shop/sa/cart", "/vm/*", "/ns/team-*/sa/*.v1"])
def test_templates_of_names(text: str) -> None:
    assert NameTemplate.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "ns/a",
        "/*",
        "/n*/a",
        "/ns/",
        "/ns//a",
        "/ns/../a",
        "/ns/./a",
        "/ns/%2e",
        "/ns/a b",
        "/ns/ä",
        "/ns/a\n",
        "/" + "a" * 600,
        "spiffe://east.mesh.example/ns/a",
    ],
)
def test_templates_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="segments of A-Z"):
        NameTemplate.parse(text)


@pytest.mark.parametrize(
    "path", ["/ns/shop/sa/cart/x", "/ns/shop/sa", "/ns/shop/sa/", "/NS/shop/sa/cart", "/ns"]
)
def test_a_star_stays_within_its_segment(path: str) -> None:
    assert not NameTemplate.parse("/ns/*/sa/cart").covers(path)


@pytest.mark.parametrize(
    "seconds", [0.0, -0.0, 0.5, 9.9, -1.0, -1e300, 1e300, 3.2e9, float("nan"), float("inf"), float("-inf")]
)
def test_r6_no_strange_number_is_a_lifetime(seconds: float) -> None:
    with pytest.raises(Refused, match="no life for a certificate") as refused:
        lifetime_of(seconds)
    assert refused.value.field == "lifetime"
    assert "allowed: 10 to 3153600000 seconds" in refused.value.reason


@given(st.floats())
def test_r6_a_lifetime_is_whole_seconds_or_refused(seconds: float) -> None:
    try:
        found = lifetime_of(seconds)
    except Refused:
        return
    assert timedelta(0) <= timedelta(seconds=seconds) - found < timedelta(seconds=1)
    assert not found.microseconds
