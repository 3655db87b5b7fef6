"""How answers look: tables as wide as their contents, spans in units, and nothing that steers a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from federation.api.messages import TokenInfo
from federation.cli.output import Row, distance, emit, print_table, printable, span, text
from tests.federation.cli.command import Finished

COLUMNS = [("NAME", text("name")), ("LIST", text("list")), ("LAST", text("last"))]
TOKEN = TokenInfo(
    id="1", kind="join", subject="east", state="used", expires_at=datetime(2026, 1, 2, tzinfo=UTC), ranges=("a",)
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59.9, "59s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")],
)
def test_a_span_is_shown_in_the_largest_unit_that_leaves_two(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_an_instant_is_shown_as_its_distance() -> None:
    now = datetime.now(UTC)
    assert distance(now + timedelta(minutes=10, seconds=30)) == "in 10m"
    assert distance(now - timedelta(days=3)) == "3d ago"


def test_a_table_aligns_and_leaves_no_blanks_behind(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [
        {"name": "a", "list": ["x", 1], "last": ""},
        {"name": "longer", "list": [], "last": "end"},
    ]
    print_table(rows, COLUMNS, empty="nothing")
    assert capsys.readouterr().out.splitlines() == [
        "NAME    LIST  LAST",
        "a       x,1   -",
        "longer  -     end",
    ]
    print_table([], COLUMNS, empty="nothing")
    assert capsys.readouterr().out == "nothing\n"


def test_names_from_elsewhere_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2Jx\ny\x9b\u202e"
    assert printable(hostile) == "�[2Jx�y��"
    print_table([{"name": hostile, "list": [hostile], "last": hostile}], COLUMNS, empty="")
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2
    assert not any(character in shown for character in "\x1b\x9b\u202e")


def test_programs_get_the_same_in_json_and_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    def never(_: object) -> None:
        raise AssertionError("nobody asked for a table")

    shown: dict[str, str] = {}
    for form in ("json", "yaml"):
        emit(form, TOKEN, never)
        shown[form] = capsys.readouterr().out
    found = Finished(0, shown["json"], "").json
    assert found == yaml.safe_load(shown["yaml"])
    assert found["expires_at"] == "2026-01-02T00:00:00Z"
    asked: list[object] = []
    emit("table", TOKEN, asked.append)
    assert asked == [TOKEN]
