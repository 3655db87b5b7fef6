"""Files that are whole or not there: after a crash a reader finds the old bytes or the new ones.

`write` replaces, `create` refuses to replace. Both follow the only order that survives `kill -9` and a loss
of power: write a temporary file in the same folder, fsync it, rename it, fsync the folder. When they return,
the bytes are on disk. When they raise, the file is as it was; only a failing fsync of the folder, after the
rename, leaves open which it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from pki.errors import KeyFileError, WriteError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.partial")


def write(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` by `data`, atomically and durably; raises `WriteError` (a full disk, no permission)."""
    _publish(path, data, mode, replace=True)


def create(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Like `write`, but raises `WriteError` if `path` exists, even if another process makes it just now."""
    _publish(path, data, mode, replace=False)


def sweep(directory: Path) -> tuple[Path, ...]:
    """Remove what a crash of `write` or `create` left in `directory`. For its only writer, at start.

    Raises `WriteError` for the folder that cannot be read, or from which something cannot be removed.
    """
    try:
        left = tuple(entry for entry in sorted(directory.iterdir()) if _TEMPORARY.fullmatch(entry.name))
    except OSError as error:
        raise WriteError(directory, _because(error)) from error
    for entry in left:
        try:
            entry.unlink(missing_ok=True)
        except OSError as error:
            reason = f"{entry.name}, which a crash left, cannot be removed: {_because(error)}"
            raise WriteError(directory, reason) from error
    return left


def private_folder(path: Path) -> Path:
    """Make `path` if it is missing, as a folder for its owner alone (0700).

    Raises `KeyFileError` when it exists and others may enter it, belongs to somebody else, or is no folder;
    `WriteError` when it cannot be made.
    """
    try:
        path.mkdir(mode=PRIVATE_FOLDER, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise WriteError(path, _because(error)) from error
    else:
        os.chmod(path, PRIVATE_FOLDER)
        _sync_folder(path.parent)
    _refuse_loose(path, os.lstat(path), stat.S_ISDIR, PRIVATE_FOLDER, "folder")
    return path


def read_private(path: Path, longest: int) -> bytes:
    """The bytes of a private file (0600, ours, no link), at most `longest`.

    Raises `KeyFileError` when others may read it, when it is not a plain file or when the disk fails,
    `FileNotFoundError` when it is not there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else _because(error)
        raise KeyFileError(path, reason) from error
    try:
        _refuse_loose(path, os.fstat(descriptor), stat.S_ISREG, PRIVATE_FILE, "plain file")
        data = bytearray()
        while chunk := os.read(descriptor, longest + 1 - len(data)):
            data += chunk
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {_because(error)}") from error
    finally:
        os.close(descriptor)
    if len(data) > longest:
        raise KeyFileError(path, f"is longer than {longest} bytes")
    return bytes(data)


def _publish(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        _write_new(temporary, data, mode)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path, follow_symlinks=False)
            os.unlink(temporary)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise WriteError(path, _because(error)) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    try:
        os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_loose(
    path: Path, found: os.stat_result, is_kind: Callable[[int], bool], mode: int, kind: str
) -> None:
    if not is_kind(found.st_mode):
        raise KeyFileError(path, f"is not a {kind}")
    if found.st_uid != os.geteuid():
        raise KeyFileError(path, f"belongs to user {found.st_uid}, not to us ({os.geteuid()})")
    if (loose := stat.S_IMODE(found.st_mode)) & ~mode:
        raise KeyFileError(path, f"has mode {loose:04o}, which lets others in; run: chmod {mode:04o} {path}")


def _because(error: OSError) -> str:
    return error.strerror or type(error).__name__
