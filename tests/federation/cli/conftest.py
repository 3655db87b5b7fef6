from pathlib import Path

import pytest

from tests.federation.cli.command import Cli


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """The command line of a user who has set nothing."""
    monkeypatch.delenv("FEDERATION_HUB", raising=False)
    monkeypatch.setenv("FEDERATION_CONTEXTS", str(tmp_path / "contexts.yaml"))
    return Cli(monkeypatch, capsys)
