from __future__ import annotations

import pytest

from pki.keys import pkcs8


@pytest.fixture(autouse=True)
def cheap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the work for each key, except where the work itself is looked at."""
    if request.module.__name__.rpartition(".")[2] != "test_pkcs8":
        monkeypatch.setattr(pkcs8, "PARALLEL", 1)
