"""`federation config check`: what a file is, and everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from federation.demo.files import objects
from tests.federation.cli.command import Cli

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"


@pytest.mark.parametrize("kind", ["hub", "agent", "gateway"])
def test_an_example_is_fine_in_every_format(kind: str, cli: Cli) -> None:
    example = EXAMPLES / f"{kind}.yaml"
    assert cli("config", "check", example).out == f"✓ {example} ({kind}) is fine\n"
    wanted = {"path": str(example), "kind": kind, "problems": []}
    as_json, as_yaml = (cli("config", "check", example, "-o", form) for form in ("json", "yaml"))
    assert as_json.json == wanted == yaml.safe_load(as_yaml.out)
    assert as_json.code == as_yaml.code == 0


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("base: mesh.example\nlisten: 3\n", "hub", "bad.yaml:2: listen: got 3"),
        ("cluster: east\n", "agent", "is missing"),
        ("name: gw-0\nadvertise: there\n", "gateway", "bad.yaml:2: advertise: not an address"),
        ("base: mesh.example\nbase: mesh.example\n", "unknown", "bad.yaml:2"),
        (
            "color: red\n",
            "unknown",
            "cannot tell what this file is for; a settings file has one of: base (hub)",
        ),
        ("a: [\n", "unknown", "bad.yaml"),
        ("- a\n", "services", "bad.yaml"),
        ("kind: Service\napiVersion: v1\n", "services", "bad.yaml"),
        ("a: &a [x]\nb: *a\n", "unknown", "bad.yaml:"),
        ("x: " + "y" * 1024 * 1024, "unknown", "at most 1024 KiB in one file"),
    ],
)
def test_what_is_wrong_is_told_and_leaves_with_1(
    text: str, kind: str, says: str, cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    found = cli("config", "check", file, "-o", "json")
    assert found.code == 1
    assert found.json["kind"] == kind
    assert says in "\n".join(found.json["problems"])
    shown = cli("config", "check", file)
    assert shown.code == 1
    assert shown.out.startswith("✗ ")
    assert shown.out.endswith(f"\nIt was taken for: {kind}\n") == (kind != "unknown")


def test_endpoints_are_checked_against_the_ranges_that_are_given(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "echo.yaml").write_text(objects("echo", ["10.1.0.7", "10.2.0.7"]))
    assert cli("config", "check", tmp_path).code == 0
    assert cli("config", "check", tmp_path, "--range", "10.0.0.0/8").code == 0
    found = cli("config", "check", tmp_path, "--range", "10.1.0.0/16", "-o", "json")
    assert found.code == 1
    assert ["10.2.0.7" in problem for problem in found.json["problems"]] == [True]
    refused = cli("config", "check", tmp_path, "--range", "10.1.0.0/33")
    assert refused.code == 2
    assert "allowed: a network such as 10.1.0.0/16" in refused.err


def test_a_service_that_is_described_twice_is_found_across_files(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(objects("echo", ["10.1.0.7"]))
    found = cli("config", "check", tmp_path, "-o", "json")
    assert found.code == 1
    assert any("b.yaml" in problem and "a.yaml" in problem for problem in found.json["problems"])


def test_what_comes_from_a_file_does_not_steer_the_terminal(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text('base: "\\e]0;title\\a"\n')
    shown = cli("config", "check", file)
    assert shown.code == 1
    assert not any(character in shown.out for character in "\x1b\x07")
