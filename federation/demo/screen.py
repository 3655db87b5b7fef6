"""The tour on a terminal, with a live line for what is going on, or as plain lines for a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from federation.demo.claims import Claim


class Terminal:
    """Writes to standard output; a spinner only where a terminal reads along."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, no_color="NO_COLOR" in os.environ or None)
        self._live = self._console.is_terminal and "NO_COLOR" not in os.environ
        self._status: Status | None = None
        self._began = time.monotonic()

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show progress for the life of the context."""
        if not self._live:
            yield
            return
        with self._console.status("starting") as self._status:
            try:
                yield
            finally:
                self._status = None

    def step(self, title: str) -> None:
        self._console.print(f"\n[bold]{title}[/bold]")
        self.progress(title)

    def progress(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
        else:
            self._console.print(f"  [dim]{time.monotonic() - self._began:5.1f}s[/dim] {text}")

    def claim(self, claim: Claim) -> None:
        mark = "[green]✓[/green]" if claim.holds else "[red]✗[/red]"
        figure = f"  [cyan]{claim.figure}[/cyan]" if claim.figure else ""
        goal = f" [dim](goal: {claim.goal})[/dim]" if claim.goal else ""
        self._console.print(f"  {mark} {claim.text}{figure}{goal}")

    def line(self, text: str = "") -> None:
        self._console.print(text)

    def flush(self) -> None:
        sys.stdout.flush()
