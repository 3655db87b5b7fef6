from pathlib import Path

import pytest

from tests.federation.cli.command import Cli


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """The command line of a user who has set nothing."""
    monkeypatch.delenv("FEDERATION_HUB", raising=False)
    monkeypatch.delenv("FEDERATION_CONTEXTS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    return Cli(monkeypatch, capsys)
