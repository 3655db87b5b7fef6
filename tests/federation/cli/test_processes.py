"""What a process says when one of its tasks fails."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from federation.cli.main import main
from federation.errors import FederationError

AGENT = Path(__file__).parents[3] / "deploy" / "examples" / "agent.yaml"
CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It has the passphrase that the example names; the process of the tests itself stays as it is."""
    (tmp_path / "passphrase").write_text(CANARY)
    (tmp_path / "passphrase").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("federation.hardening.harden", lambda: None)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    mask = os.umask(0o077)
    yield
    os.umask(mask)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def run_agent(monkeypatch: pytest.MonkeyPatch, error: Exception) -> object:
    """The exit code of an agent one of whose tasks fails like this."""

    async def fail() -> None:
        raise error

    async def run(*_: object) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    monkeypatch.setattr("federation.app.agent.run", run)
    monkeypatch.setattr(sys, "argv", ["federation", "agent", "--config", str(AGENT)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_what_can_be_foreseen_is_told_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_agent(monkeypatch, FederationError("the disk is full", "make room")) == 1
    assert capsys.readouterr().err == "error: the disk is full\n  hint: make room\n"


def test_what_nobody_foresaw_is_in_the_log_in_one_line_besides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_agent(monkeypatch, RuntimeError("inside")) == 1
    log, error, hint = capsys.readouterr().err.splitlines()
    assert "level='critical'" in log
    assert "RuntimeError: inside" in log
    assert error == "error: nobody foresaw this: RuntimeError: inside"
    assert hint.startswith("  hint: please report it")
