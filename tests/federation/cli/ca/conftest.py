from __future__ import annotations

import pytest

from tests.pki.world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(autouse=True)
def hardened(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Commands run inside this process here, which has to stay as it is: what would be hardened is noted instead."""
    calls: list[bool] = []
    monkeypatch.setattr("federation.hardening.harden", lambda: calls.append(True))
    return calls
