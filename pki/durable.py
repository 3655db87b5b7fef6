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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pki.errors import KeyFileError, WriteError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_CHUNK = 1 << 16
"""Bytes that are asked for at once: room for all that are asked for is taken before there are any."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.partial")


def write(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` by `data`, atomically and durably; raises `WriteError` (a full disk, no permission).

    A device, a pipe or a socket is refused: another file in the place of /dev/null would be everybody's loss.
    """
    with contextlib.suppress(OSError):
        if not any(is_kind(path.lstat().st_mode) for is_kind in (stat.S_ISREG, stat.S_ISLNK, stat.S_ISDIR)):
            raise WriteError(path, "is not a plain file")
    _publish(path, data, mode, replace=True)


def create(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Like `write`, but raises `WriteError` if `path` exists, even if another process makes it just now."""
    _publish(path, data, mode, replace=False)


def write_all(folder: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    """Write `files`, by name, to `folder`, private ones. All are on disk before the first one is in its place.

    Raises `WriteError`, also if one exists and is not to be replaced. Then nothing has changed; only where putting
    one of several in the place of another fails, those before it have been.
    """
    written: dict[Path, Path] = {}
    with ExitStack() as undo:
        for name, data in files.items():
            path = folder / name
            temporary = written[path] = _temporary(path)
            undo.callback(_remove, temporary)
            with _told(path):
                _write_new(temporary, data, PRIVATE_FILE)
        with ExitStack() as made:
            for path, temporary in written.items():
                with _told(path):
                    if replace:
                        os.replace(temporary, path)
                    else:
                        os.link(temporary, path, follow_symlinks=False)
                        made.callback(_remove, path)
            made.pop_all()
    with _told(folder):
        _sync_folder(folder)


@contextmanager
def reserved(path: Path, most: int, mode: int = PRIVATE_FILE) -> Iterator[Callable[[bytes], None]]:
    """For what cannot be taken back once it is done: nothing is at `path`, and there is room for `most` bytes.

    Gives what puts the bytes there, once. Whatever happens before, nothing is left. Raises `WriteError`.
    """
    if os.path.lexists(path):
        raise WriteError(path, "exists already")
    temporary = _temporary(path)
    with _told(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)

    def publish(data: bytes) -> None:
        with _told(path):
            os.ftruncate(descriptor, len(data))
            _write_whole(descriptor, data, mode)
            os.link(temporary, path, follow_symlinks=False)
            _remove(temporary)
            _sync_folder(path.parent)

    try:
        with _told(path):
            os.posix_fallocate(descriptor, 0, most)
        yield publish
    finally:
        os.close(descriptor)
        _remove(temporary)


@contextmanager
def tentative_folder(path: Path) -> Iterator[Path]:
    """`private_folder` for something that may come to nothing: if the block raises and the folder is empty, it is
    taken away again, with those above it that had to be made.
    """
    missing = [one for one in (path, *path.parents) if not os.path.lexists(one)]
    try:
        yield private_folder(path)
    except BaseException:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


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
        while chunk := os.read(descriptor, min(longest + 1 - len(data), _CHUNK)):
            data += chunk
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {_because(error)}") from error
    finally:
        os.close(descriptor)
    if len(data) > longest:
        raise KeyFileError(path, f"is longer than {longest} bytes")
    return bytes(data)


def _publish(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    temporary = _temporary(path)
    try:
        _write_new(temporary, data, mode)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path, follow_symlinks=False)
            os.unlink(temporary)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise WriteError(path, _because(error)) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(path, _because(error)) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    try:
        _write_whole(descriptor, data, mode)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, data: bytes, mode: int) -> None:
    os.fchmod(descriptor, mode)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


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
