from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import InvalidName
from pki.names import dns_label, dns_name, matches_name

HOSTILE = [
    "",
    "-a",
    "a-",
    "A",
    "a.b",
    "a/b",
    "../a",
    "a%2fb",
    "a\x00",
    "a\n",
    "CON",
    "a" * 64,
    "a" * 300,
    "ä",
    "a b",
    "<b>",
    "a_b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_k8_hostile_labels_are_refused_and_shown_safely(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        dns_label(text)
    message = str(refused.value)
    assert message.isascii() or "…" in message
    assert message.isprintable()
    assert len(message) < 250


@pytest.mark.parametrize("text", ["a", "0", "east", "eu-west-1", "a" * 63])
def test_labels_pass_unchanged(text: str) -> None:
    assert dns_label(text) == text


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "A.b", ".".join(["a" * 63] * 4)])
def test_k8_hostile_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        dns_name(text)


def test_names_pass_unchanged() -> None:
    assert dns_name("federation.hub.mesh.example") == "federation.hub.mesh.example"


@given(st.text("ab*-", max_size=8), st.text("ab-", max_size=10))
def test_matching_agrees_with_a_regular_expression(pattern: str, name: str) -> None:
    reference = re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")))
    assert matches_name(pattern, name) is (reference.fullmatch(name) is not None)


def test_many_stars_take_no_more_than_linear_work() -> None:
    assert not matches_name("a*" * 60 + "b", "a" * 100_000)
