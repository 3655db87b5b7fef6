"""Files of a ceremony, read from wherever the stick is."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from federation.errors import InputError
from pki.ceremony import LONGEST_FILE, Answers, NextRoot, Requests, decode
from pki.errors import CeremonyFile

C = TypeVar("C", Requests, Answers, NextRoot)


def read_bytes(path: Path) -> bytes:
    """What is in `path`, as far as a file of a ceremony could be long. Raises InputError."""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=str(path)) from error


def read(path: Path, kind: type[C]) -> C:
    """The content of a file. Raises InputError, which names it."""
    try:
        return decode(read_bytes(path), kind)
    except CeremonyFile as error:
        raise InputError(error.reason, file=str(path), hint=error.hint) from error
