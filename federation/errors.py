"""What goes wrong in `federation`, as few exceptions that carry fields.

A user sees `str(error)` and, under it, `error.hint`: what to do. Whoever starts a process prints both and
leaves with `exit_code`; nobody prints a traceback. Expected outcomes (a conflict, a denial, a NACK) are
values, not exceptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class FederationError(Exception):
    """The base: one line that says what is wrong, and a hint that says what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


class InputError(FederationError):
    """Something that the user wrote is refused.

    `line` counts from 1; it is None where the input as a whole is meant. `field` is a path such as
    `spec.ports[0].port`, empty for the root. `allowed` says what would have been accepted.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str,
        line: int | None = None,
        field: str = "",
        allowed: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(problem, hint)
        self.file = file
        self.line = line
        self.field = field
        self.allowed = allowed

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [place, self.field, self.problem] if self.field else [place, self.problem]
        text = ": ".join(parts)
        return f"{text}; allowed: {self.allowed}" if self.allowed else text


class InvalidValue(FederationError):
    """What was asked for cannot be, whatever the state: a name, a pattern or a range that is none."""


class Unreachable(FederationError):
    """A hub, an agent or a gateway at `target` (an address, a URL or the path of a socket) did not answer."""

    exit_code = 3

    def __init__(self, target: str, problem: str, hint: str = "") -> None:
        super().__init__(f"cannot reach {target}: {problem}", hint)
        self.target = target


class Banned(FederationError):
    """Somebody who is known and turned away, as `reason` says."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "an operator of the hub may take it back: federation ca unban")
        self.reason = reason


class StoreError(FederationError):
    """The store at `path` cannot do what was asked. Its children are what a caller may want to tell apart."""

    def __init__(self, path: Path, problem: str, hint: str = "") -> None:
        super().__init__(f"{path}: {problem}", hint)
        self.path = path


class StoreFull(StoreError):
    """The disk takes no more: nothing of the change was stored, reads go on, writes do once there is room."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            path,
            f"nothing was stored, the disk takes no more: {problem}",
            "free some space, or raise the quota or file size limit, then try again",
        )


class StoreCorrupt(StoreError):
    """The store is damaged. It is left as it is: an empty one in its place would forget the clusters."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            path,
            f"the store is damaged: {problem}",
            "nothing was changed; keep a copy of the folder and put a backup in its place. "
            "Starting empty needs the file to be moved away by hand: a hub then knows no cluster and each has to join "
            "again, an agent hears everything anew",
        )


class BundleUnavailable(FederationError):
    """A bundle of a trust domain outside cannot be had from `url` now."""

    def __init__(self, url: str, why: str, hint: str = "") -> None:
        super().__init__(f"{url}: {why}", hint)
        self.url = url


class StoreHeld(StoreError):
    """Another process, `pid` if it is known, has the store open."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(path, f"the store is held by {holder}", f"stop {holder}, or choose another folder")
        self.pid = pid
