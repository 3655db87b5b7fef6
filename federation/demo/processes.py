"""Child processes that cannot outlive the demo: each dies with its parent, whatever kills that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from federation.errors import FederationError
from gateway.envoy import tether

STOP_GRACE = 10.0
"""Seconds between asking a process to stop and ending it."""


class Process:
    """One child, started again with the same command after it was killed. Its output goes to a log file."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._environment = environment or {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The pid of the last start. Raises FederationError before the first."""
        if self._process is None:
            raise FederationError(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self._environment},
            )

    def check(self) -> None:
        """Raise FederationError, with the end of its log, if the process is no longer there."""
        if self._process is not None and self._process.returncode is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            raise FederationError(
                f"{self.name} stopped by itself: {' / '.join(tail)}", f"its log is {self.log}"
            )

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> None:
        """Ask it to stop, end it if it does not."""
        if not self.running:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_GRACE):
                await self._gone()
        except TimeoutError:
            await self.kill()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
