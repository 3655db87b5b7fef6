"""The tour on a terminal, with a live line for what is going on, or as plain lines for a log.

Colour and the live line only where a terminal reads along, and never with NO_COLOR set (no-color.org).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from federation.demo.claims import Claim

BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"
CLEAR_LINE = "\r\x1b[K"


class Terminal:
    """Writes to standard output."""

    def __init__(self) -> None:
        self._fancy = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._live = False
        self._began = time.monotonic()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show progress in one line, for the life of the context."""
        self._live = self._fancy
        try:
            yield
        finally:
            self._clear()
            self._live = False

    def step(self, title: str) -> None:
        self.line(f"\n{self._styled(title, BOLD)}")

    def progress(self, text: str) -> None:
        moment = f"{time.monotonic() - self._began:5.1f}s"
        if self._live:
            width = os.get_terminal_size().columns - 1
            sys.stdout.write(CLEAR_LINE + f"  {moment} {text}"[:width])
            sys.stdout.flush()
        else:
            self.line(f"  {self._styled(moment, DIM)} {text}")

    def claim(self, claim: Claim) -> None:
        mark = self._styled("✓", GREEN) if claim.holds else self._styled("✗", RED)
        figure = f"  {self._styled(claim.figure, CYAN)}" if claim.figure else ""
        goal = f" {self._styled(f'(goal: {claim.goal})', DIM)}" if claim.goal else ""
        self.line(f"  {mark} {claim.text}{figure}{goal}")

    def line(self, text: str = "") -> None:
        self._clear()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write(CLEAR_LINE)

    def _styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._fancy else text
