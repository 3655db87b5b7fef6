from __future__ import annotations

import pytest

from pki.errors import InvalidName
from pki.names import dns_label, dns_name

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
def test_hostile_labels_are_refused_and_shown_safely(text: str) -> None:
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
def test_hostile_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        dns_name(text)


def test_names_pass_unchanged() -> None:
    assert dns_name("federation.hub.mesh.example") == "federation.hub.mesh.example"
