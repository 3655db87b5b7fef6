"""The rules of the protocol, one transcript each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.federation.sync.transcript import replay

TRANSCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    said = replay(path)
    if request.config.getoption("--rewrite"):
        path.write_text(said)
    assert path.read_text() == said


def test_there_is_a_transcript_for_every_rule_in_force() -> None:
    assert {path.stem[:7] for path in TRANSCRIPTS} == {f"rule-{n:02}" for n in (1, 2, 3, 4, 6, 9, 11)}
