"""The trail in the log: who changed what, and who was refused.

A change names its actor, `unix:<uid>` at the unix socket and an operator's name elsewhere. Of what it said and what
came of it only the fields are written that its route names, so that no secret is written by oversight. A refusal of
somebody known is always written. Strangers may be refused as often as they like: `MOST` lines every `WINDOW` seconds
are written of them, and the next line says how many were not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

MOST = 10
WINDOW = 60.0

log = structlog.get_logger()


class Trail:
    """What the doors of one process write about their callers. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ends = 0.0
        self._left = 0
        self._unwritten = 0

    def changed(self, actor: str, method: str, path: str, told: Iterable[str], *said: Any) -> None:
        """`actor` did this; of the structs in `said` the fields in `told` are written, the last that has a value."""
        fields = {name: value for one in said for name in told if (value := getattr(one, name, None))}
        log.info("changed", actor=actor, method=method, path=path, **fields)

    def refused(
        self, actor: str | None, caller: str, method: str, path: str, status: int, reason: str
    ) -> None:
        """A call from `caller`, an address, was refused; `actor` is None for somebody unknown."""
        who = {"caller": caller} if actor is None else {"actor": actor, "caller": caller}
        if actor is None:
            if self._now() >= self._ends:
                self._ends, self._left = self._now() + WINDOW, MOST
            if self._left == 0:
                self._unwritten += 1
                return
            self._left -= 1
            if self._unwritten:
                who["unwritten"] = str(self._unwritten)
                self._unwritten = 0
        log.warning("call refused", **who, method=method, path=path, status=status, reason=reason)
