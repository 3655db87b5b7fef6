"""What `federation config check` makes of a file: which kind it is, and every mistake as one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from federation.check_files import Found, check_path
from federation.config import AgentSettings, GatewaySettings, HubSettings
from federation.errors import InputError
from federation.settings_file import read_settings
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE
from tests.federation.discovery.objects import joined as documents

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"


@pytest.mark.parametrize("kind", ["hub", "agent", "gateway"])
def test_the_examples_are_what_they_are_called_and_fine(kind: str) -> None:
    assert check_path(EXAMPLES / f"{kind}.yaml", ()) == Found(kind, ())


@pytest.mark.parametrize("kind", ["hub", "agent", "gateway"])
def test_a_mistake_in_settings_is_told_with_its_line(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    lines = (EXAMPLES / f"{kind}.yaml").read_text().splitlines()
    file.write_text("\n".join([*lines, "colour: red", ""]))
    found = check_path(file, ())
    (problem,) = found.problems
    assert found.kind == kind
    assert problem.startswith(f"{file}:{len(lines) + 1}: colour: unknown field")


def test_services_are_fine_as_a_file_and_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "echo.yaml").write_text(documents(SERVICE, SLICE, EXPORT))
    assert check_path(tmp_path, ()) == Found("services", ())
    assert check_path(tmp_path / "echo.yaml", ()) == Found("services", ())


def test_a_mistake_in_services_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(documents(SERVICE.replace("kind: Service", "kind: Servce"), SLICE, EXPORT))
    for path in (tmp_path, file):
        found = check_path(path, ())
        assert found.kind == "services"
        assert any("Servce" in problem and str(file.name) in problem for problem in found.problems)


def test_addresses_are_held_against_the_ranges_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "echo.yaml").write_text(documents(SERVICE, SLICE, EXPORT))
    found = check_path(tmp_path, ("192.0.2.0/24",))
    assert found.problems
    assert all("192.0.2.0/24" in problem or "10." in problem for problem in found.problems)
    assert check_path(tmp_path, ("0.0.0.0/0",)).problems == ()


@pytest.mark.parametrize("text", ["10.1.0.5/16", "ten", "10.1.0.0/33", ""])
def test_a_range_that_is_none_is_wrong_usage(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"^--range: ") as refused:
        check_path(tmp_path, (text,))
    assert refused.value.exit_code == 2
    assert refused.value.allowed


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"colour: red\n", "cannot tell what this file is for"),
        (b"- a\n- b\n", ""),
        (b"base: [\n", "settings.yaml:"),
        (b"base: a\nbase: b\n", "duplicate key"),
        (b"a: &a [1]\nb: *a\n", "anchor"),
        (b"\xff", "not UTF-8"),
        (b" " * (1024 * 1024 + 1), "too large"),
    ],
    ids=["nothing telling", "a list", "no YAML", "twice", "an alias", "no text", "too large"],
)
def test_a_file_that_cannot_be_anything_is_a_problem_and_not_an_accident(
    tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    found = check_path(file, ())
    assert found.problems
    assert says in " ".join(found.problems)


def test_an_empty_file_is_a_problem_because_emptying_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    (problem,) = check_path(tmp_path / "empty.yaml", ()).problems
    assert "nothing is written here" in problem


@pytest.mark.parametrize("kind", ["hub", "agent", "gateway"])
def test_settings_are_read_from_a_pipe(kind: str) -> None:
    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as pipe:
            pipe.write((EXAMPLES / f"{kind}.yaml").read_bytes())
        assert check_path(Path(f"/dev/fd/{reading}"), ()) == Found(kind, ())
    finally:
        os.close(reading)


def test_services_are_read_from_a_pipe() -> None:
    reading, writing = os.pipe()
    try:
        with open(writing, "w") as pipe:
            pipe.write(documents(SERVICE, SLICE, EXPORT))
        assert check_path(Path(f"/dev/fd/{reading}"), ()) == Found("services", ())
    finally:
        os.close(reading)


@pytest.mark.parametrize("kind", ["hub", "agent", "gateway"])
def test_a_process_that_is_given_the_settings_of_another_one_says_whose_they_are(kind: str) -> None:
    file = EXAMPLES / f"{kind}.yaml"
    for wanted in (HubSettings, AgentSettings, GatewaySettings):
        if wanted.__name__ == f"{kind.capitalize()}Settings":
            assert isinstance(read_settings(file, wanted), wanted)
        else:
            with pytest.raises(InputError, match=f"these are settings of an? {kind}$") as told:
                read_settings(file, wanted)
            assert told.value.hint.endswith(f" --config {file}")


@pytest.mark.parametrize(
    ("kind", "stray"),
    [
        ("gateway", "cluster: east"),
        ("agent", "name: east"),
        ("hub", "cluster: hub"),
    ],
)
def test_a_stray_field_of_another_kind_does_not_make_it_that_kind(
    kind: str, stray: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text((EXAMPLES / f"{kind}.yaml").read_text() + stray + "\n")
    found = check_path(file, ())
    (problem,) = found.problems
    assert found.kind == kind
    assert f": {stray.split(':')[0]}: unknown field" in problem
