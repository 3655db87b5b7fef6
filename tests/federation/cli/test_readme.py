"""What README says of the command line, as far as that can be told without a process."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from federation.cli.main import cli
from federation.cli.target import Contexts
from federation.document import parse

README = Path(__file__).parents[3] / "README.md"
EXAMPLES = sorted(set(re.findall(r"^\|.*`federation ([^`]+)` \|$", README.read_text(), re.MULTILINE)))


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) > 10


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_in_a_table_is_a_command_with_its_options(
    example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every word is understood by the command that it names; what it does is left out."""
    words = shlex.split(example.split(" > ")[0])
    asked: list[str] = []

    def ask(command: click.Command, context: click.Context) -> None:
        asked.append(context.command_path)

    monkeypatch.setattr(click.Command, "invoke", ask)
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    cli.main(words, "federation", standalone_mode=False)
    assert asked[0] == "federation"
    assert len(asked) > 1


def test_the_contexts_file_is_one() -> None:
    shown = re.search(r"^```yaml\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    contexts = parse(shown[1], "README.md")[0].convert(Contexts)
    assert contexts.current in {context.name for context in contexts.contexts}


def test_what_a_mistake_of_ours_needs_is_named_where_users_look() -> None:
    for text in (README.read_text(), cli.epilog or ""):
        assert "FEDERATION_DEBUG=1" in text
