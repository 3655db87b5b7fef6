"""What a user reads when something is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.errors import FederationError, InputError, StoreCorrupt, StoreFull, StoreHeld, Unreachable


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("is empty", file="hub.yaml"), "hub.yaml: is empty"),
        (
            InputError("got a string", file="hub.yaml", line=3, field="api.port", allowed="a whole number"),
            "hub.yaml:3: api.port: got a string; allowed: a whole number",
        ),
        (
            Unreachable("127.0.0.1:15010", "connection refused"),
            "cannot reach 127.0.0.1:15010: connection refused",
        ),
        (StoreHeld(Path("hub.db"), 42), "hub.db: the store is held by process 42"),
        (StoreHeld(Path("hub.db"), None), "hub.db: the store is held by another process"),
    ],
)
def test_an_error_is_one_line(error: FederationError, text: str) -> None:
    assert str(error) == text


def test_errors_tell_what_to_do() -> None:
    assert "free some space" in StoreFull(Path("hub.db"), "quota").hint
    assert "backup" in StoreCorrupt(Path("hub.db"), "page 3").hint
    assert "process 42" in StoreHeld(Path("hub.db"), 42).hint


def test_exit_codes_tell_wrong_input_from_unreachable() -> None:
    assert FederationError.exit_code == 1
    assert InputError.exit_code == 2
    assert Unreachable.exit_code == 3
