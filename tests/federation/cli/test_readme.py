"""What README says of the command line, as far as that can be told without a process."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from federation.cli.program import cli
from federation.cli.target import Contexts
from federation.document import parse
from tests.federation.cli.command import Cli

README = Path(__file__).parents[3] / "README.md"
GUIDE = README.parent / "docs" / "three-machines.md"
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


@pytest.mark.live
def test_the_guide_for_three_machines_makes_settings_that_are_fine(cli: Cli, tmp_path: Path) -> None:
    """Its lines of `sed`, run as they are but for the folder that they write to."""
    made = {}
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
        for command in re.findall(r"^sed .*?> /etc/federation/\w+\.yaml$", block, re.MULTILINE | re.DOTALL):
            here = command.replace("> /etc/federation", f"> {tmp_path}")
            subprocess.run(
                ["bash", "-euc", f"name=west address=10.2.0.2\n{here}"], cwd=README.parent, check=True
            )
            target = tmp_path / Path(command.split("> ")[1]).name
            made[target.name] = target.read_text()
            assert cli("config", "check", target).code == 0, target.read_text()
    assert "api: 10.0.0.2:8443" in made["hub.yaml"]
    assert "cluster: west\n" in made["agent.yaml"]
    assert "\njoin_token: " in made["agent.yaml"]
    assert "\ntoken: " in made["gateway.yaml"]
    assert "advertise: 10.2.0.2:15443" in made["gateway.yaml"]
    assert not any(place in text for text in made.values() for place in ("hub.example.com", "10.1.0.2"))
