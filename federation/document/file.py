"""Documents from a file, or from a pipe such as `<(command)` of a shell.

Waits for nobody who may never come: a pipe without a writer is refused, and so are devices and sockets.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from federation.document.reader import LARGEST, Document, parse, too_large
from federation.errors import InputError


def read(path: Path) -> tuple[Document, ...]:
    """All documents of a file that are not empty. Raises InputError if it cannot be read or is not as it
    should.
    """
    try:
        content = _content(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=str(path)) from error
    if len(content) > LARGEST:
        raise too_large(str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError("not UTF-8", file=str(path), line=line, allowed="text in UTF-8") from error
    return parse(text, str(path))


def _content(path: Path) -> bytes:
    """As much as may be read, and one byte more if there is one. Raises OSError and InputError.

    Opened without waiting, a pipe that has no writer ends at once; one that has, but nothing in it yet, gives None
    (fifo(7)).
    """
    with open(path, "rb", opener=_without_waiting) as file:
        kind = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
            raise _refused(path, "neither a file nor a pipe")
        content = file.read(LARGEST + 1)
        if stat.S_ISREG(kind):
            return content
        if content == b"":
            raise _refused(path, "a pipe into which nobody writes")
        os.set_blocking(file.fileno(), True)
        begun = content or b""
        return begun + file.read(LARGEST + 1 - len(begun))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _refused(path: Path, problem: str) -> InputError:
    return InputError(problem, file=str(path), allowed="a file, or a pipe with a writer")
