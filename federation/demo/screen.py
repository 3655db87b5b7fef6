"""The tour on a terminal, with a live line for what is going on, or as plain lines for a log.

The live line only where a terminal reads along; colour besides only without NO_COLOR (no-color.org). On a
terminal nothing is wider than it; in a log each claim is one line, to be searched.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from federation.demo.claims import Claim
from federation.demo.load import Answer
from federation.demo.timeline import Stretch, timeline

BOLD, DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = "1", "2", "31", "32", "33", "35", "36"
COLOURS = {"east": CYAN, "west": MAGENTA, "central": YELLOW, None: RED}
CLEAR_LINE = "\r\x1b[K"
INDENT = "    "
WIDEST = 48
"""Cells of a timeline."""
CELLS = 10
"""Cells a second while it grows."""
LEAST = 24
"""Columns beside a text that are worth a timeline."""

_STYLE = re.compile(r"\x1b\[\d*m")

Styled = Callable[[str, str], str]
"""A text and the code of its style, to the text as it is written."""


class Terminal:
    """Writes to standard output."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._coloured = self._is_terminal and not os.environ.get("NO_COLOR")
        self._live = False
        self._began = time.monotonic()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="replace")

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show progress in one line, for the life of the context."""
        self._live = self._is_terminal
        try:
            yield
        finally:
            self._clear()
            self._live = False

    def step(self, title: str) -> None:
        self.line()
        for line in _wrapped(title, self._width()):
            self.line(self._styled(line, BOLD))

    def progress(self, text: str) -> None:
        if self._live:
            self._draw(f"  {self._moment()} {text}")
        else:
            self.line(f"  {self._styled(self._moment(), DIM)} {text}")

    def watch(self, text: str, answers: Sequence[Answer]) -> None:
        """What is under way, and who answers meanwhile; only a live line shows it."""
        if self._live:
            self._draw(live_line(f"  {self._moment()} ", text, answers, self._width(), self._styled))

    def claim(self, claim: Claim) -> None:
        for line in claim_lines(claim, self._width(), self._styled):
            self.line(line)

    def line(self, text: str = "") -> None:
        self._clear()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _draw(self, text: str) -> None:
        sys.stdout.write(CLEAR_LINE + cut(text, self._width()))
        sys.stdout.flush()

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write(CLEAR_LINE)

    def _moment(self) -> str:
        return f"{time.monotonic() - self._began:5.1f}s"

    def _width(self) -> int:
        """One less than the columns: a terminal may break a line that fills its last one."""
        return max(20, shutil.get_terminal_size().columns - 1) if self._is_terminal else sys.maxsize

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text


def claim_lines(claim: Claim, width: int, styled: Styled) -> list[str]:
    """The claim in one line if it fits, else its figure below it; then who answered.

    `‼`: it holds, and missed its goal.
    """
    colour, shade = (YELLOW, YELLOW) if claim.missed else (CYAN, DIM)
    held = styled("‼", YELLOW) if claim.missed else styled("✓", GREEN)
    mark = held if claim.holds else styled("✗", RED)
    goal = f"(goal{' missed' if claim.missed else ''}: {claim.goal})" if claim.goal else ""
    beside = " ".join(part for part in (claim.figure, goal) if part)
    if beside and len(f"  ✓ {claim.text}  {beside}") <= width:
        parts = (styled(claim.figure, colour) if claim.figure else "", styled(goal, shade) if goal else "")
        lines = [f"  {mark} {claim.text}  {' '.join(part for part in parts if part)}"]
    else:
        room = width - len(INDENT)
        first, *more = _wrapped(claim.text, room) or [""]
        lines = [f"  {mark} {first}", *(INDENT + line for line in more)]
        if claim.figure and goal and len(beside) <= room:
            lines.append(f"{INDENT}{styled(claim.figure, colour)} {styled(goal, shade)}")
        else:
            lines += [INDENT + styled(line, colour) for line in _wrapped(claim.figure, room)]
            lines += [INDENT + styled(line, shade) for line in _wrapped(goal, room)]
    if claim.answers:
        shown = timeline(claim.answers, min(WIDEST, width))
        lines.append(INDENT + stretches(shown, width - len(INDENT), styled))
    return lines


def live_line(moment: str, text: str, answers: Sequence[Answer], width: int, styled: Styled) -> str:
    """What is under way and a timeline that grows beside it; where there is no room for both, the timeline."""
    asked = max(answer.began for answer in answers) - answers[0].began if answers else 0.0
    cells = timeline(answers, min(WIDEST, 1 + int(asked * CELLS)))
    room = width - len(moment)
    if not cells or room - len(text) >= LEAST:
        return f"{moment}{text} {stretches(cells, room - len(text) - 1, styled)}"
    return moment + stretches(cells, room, styled)


def stretches(shown: Sequence[Stretch], width: int, styled: Styled) -> str:
    """`east ━━━━━ west ━━━━━`, as much of its end as has room in `width`."""
    words = [f"{stretch.who or 'failed'} {'━' * stretch.cells}" for stretch in shown]
    while words and len(" ".join(words)) > width:
        if len(words) == 1:
            return words[0][:width]
        longest = max(words, key=len)
        if longest.endswith("━━"):
            words[words.index(longest)] = longest[:-1]
        else:
            words, shown = words[1:], shown[1:]
    return " ".join(
        styled(word, COLOURS.get(stretch.who, BOLD)) for word, stretch in zip(words, shown, strict=True)
    )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def cut(text: str, width: int) -> str:
    """As much of a text as fills `width`; its styles take no room, and end with it."""
    room, kept = width, ""
    for part in re.split(f"({_STYLE.pattern})", text):
        if _STYLE.fullmatch(part):
            kept += part
        else:
            kept += part[:room]
            room -= len(part[:room])
    return kept
