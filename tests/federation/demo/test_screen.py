"""How the tour looks: never wider than the terminal, and each claim one line in a log."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.demo.claims import Claim
from federation.demo.load import Answer
from federation.demo.screen import Terminal, claim_lines, cut, live_line, stretches
from federation.demo.timeline import Stretch

ANSWERS = tuple(Answer(moment / 10, 0.01, "east" if moment < 20 else "west") for moment in range(30))
CLAIM = Claim(
    "both backends of east are killed: west answers", True, "1 of 608 failed", "2 in flight", ANSWERS
)


def plain(text: str, code: str) -> str:
    return text


def coloured(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def seen(text: str) -> str:
    return re.sub(r"\x1b\[\d*[mK]", "", text)


def test_a_claim_that_fits_is_one_line_and_who_answered_is_below() -> None:
    one, who = claim_lines(CLAIM, 100, plain)
    assert one == "  ✓ both backends of east are killed: west answers  1 of 608 failed (goal: 2 in flight)"
    assert re.fullmatch("    east ━{20} west ━{10}", who)


def test_a_missed_goal_is_marked_though_the_claim_holds() -> None:
    missed = Claim("three clusters are up", True, "7.4 s", "5 s", missed=True)
    assert claim_lines(missed, 100, plain) == ["  ‼ three clusters are up  7.4 s (goal missed: 5 s)"]
    assert "\x1b[33m7.4 s\x1b[0m" in claim_lines(missed, 100, coloured)[0]
    untrue = Claim("three clusters are up", False, "7.4 s", "5 s", missed=True)
    assert claim_lines(untrue, 100, plain)[0].startswith("  ✗")


def test_what_does_not_fit_goes_below() -> None:
    text = "  ✓ both backends of east are killed: west answers"
    assert claim_lines(CLAIM, 60, plain)[:2] == [text, "    1 of 608 failed (goal: 2 in flight)"]
    assert claim_lines(CLAIM, 38, plain)[:4] == [
        "  ✓ both backends of east are killed:",
        "    west answers",
        "    1 of 608 failed",
        "    (goal: 2 in flight)",
    ]


def test_the_live_line_has_the_text_and_a_timeline_where_both_have_room() -> None:
    assert live_line("1.0s ", "both are killed", (), 80, plain) == "1.0s both are killed "
    both = live_line("1.0s ", "both are killed", ANSWERS, 80, plain)
    assert re.fullmatch("1.0s both are killed east ━+ west ━+", both)
    assert re.fullmatch("1.0s east ━+ west ━+", live_line("1.0s ", "both are killed", ANSWERS, 40, plain))
    early = live_line("1.0s ", "", ANSWERS[:5], 80, plain)
    assert early.count("━") < both.count("━")


def test_a_claim_that_does_not_hold_is_marked_without_colour_too() -> None:
    assert claim_lines(Claim("it holds", False), 80, plain) == ["  ✗ it holds"]


@given(st.text("ab ", max_size=200), st.text("cd ", max_size=200), st.integers(20, 200), st.booleans())
def test_nothing_is_wider_than_the_terminal(text: str, figure: str, width: int, holds: bool) -> None:
    lines = claim_lines(Claim(text, holds, figure, "a goal", ANSWERS), width, coloured)
    assert all(len(seen(line)) <= width for line in lines)


whos = st.sampled_from(["east", "west", "central", None])


@given(st.lists(st.builds(Stretch, whos, st.integers(1, 50)), max_size=20), st.integers(0, 120))
def test_the_newest_answers_are_shown_where_there_is_room_for_some(shown: list[Stretch], width: int) -> None:
    line = stretches(shown, width, plain)
    assert len(line) <= width
    if shown and width > 20:
        assert f"{shown[-1].who or 'failed'} ━" in line


@given(st.lists(st.tuples(st.text("ab", max_size=9), st.sampled_from("123")), max_size=9), st.integers(0, 40))
def test_a_cut_leaves_no_style_open(parts: list[tuple[str, str]], width: int) -> None:
    whole = "".join(coloured(text, code) for text, code in parts)
    assert seen(cut(whole, width)) == seen(whole)[:width]
    assert cut(whole, width).endswith("\x1b[0m") or not parts


def test_a_log_has_one_line_for_a_claim_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().claim(Claim("x " * 200, True, "y " * 200))
    assert capsys.readouterr().out.count("\n") == 1


def test_a_locale_without_the_marks_does_not_hide_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", log)
    terminal = Terminal()
    for holds in (True, False):
        terminal.claim(Claim("it holds", holds))
    assert log.buffer.getvalue().decode() == "  ✓ it holds\n  ✗ it holds\n"
