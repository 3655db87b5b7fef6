"""The walks through the code in ARCHITECTURE.md: each step names a file, and what is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
STEPS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in TEXT.splitlines()
    if line.startswith("| ") and line.count(" | ") == 2 and "](" in line
]


def linked(cell: str) -> list[Path]:
    return [ROOT / place for place in re.findall(r"\]\(([^)#]+)\)", cell)]


def holds(source: str, name: str) -> bool:
    """Whether `Class.method` or `module.function` is defined there, or `name` is known there at all."""
    owner, dot, member = name.rpartition(".")
    if not dot:
        return re.search(rf"\b{name}\b", source) is not None
    if owner.islower():
        return re.search(rf"^def {member}\b", source, re.MULTILINE) is not None
    body = re.search(rf"^class {owner}\b.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    return body is not None and re.search(rf"\bdef {member}\b", body[0]) is not None


def test_the_steps_are_found() -> None:
    assert len(STEPS) > 40


@pytest.mark.parametrize(("what", "files", "names"), STEPS, ids=[step[0] for step in STEPS])
def test_a_step_names_what_is_there(what: str, files: str, names: str) -> None:
    sources = [path.read_text() for path in linked(files)]
    for name in re.findall(r"`([A-Za-z_.]+)`", names):
        assert any(holds(source, name) for source in sources), f"{name} is not in {files}"


def test_every_link_leads_to_a_file() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for place in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / place).exists(), f"{document.name}: {place}"


def test_every_test_that_is_named_is_there() -> None:
    for line in TEXT.splitlines():
        last = ROOT / "tests"
        for name in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", line):
            last = ROOT / name if name.startswith("tests/") else last.parent / name
            assert last.exists(), f"{name} in: {line}"
