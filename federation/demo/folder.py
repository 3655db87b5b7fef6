"""The folder of a demo: private, in use by one demo at a time, and gone when that ends.

Keys lie in it, and its name below `/tmp` is known to everybody. So nothing is written to a folder that
belongs to somebody else, lets others in, or is a link. A lock on the folder itself says whether its demo is up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from federation.errors import FederationError
from federation.listen import LONGEST_SOCKET_PATH
from pki import durable
from pki.errors import PkiError

STATE = "demo.json"
LONGEST_STATE = 1 << 20
MARK = ".federation-demo"
"""What every demo writes before anything else: a folder without it was never a demo's."""

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""The signals that end a demo and leave nothing of it."""

LONGEST_SOCKET = "central/gateway-1/state/admin.sock"
"""Of those below the folder of a demo."""

OTHER = "choose another --directory, best one that does not exist yet"


def default_folder() -> Path:
    """Where `demo up` goes, and `demo status` looks, without `--directory`."""
    return Path(tempfile.gettempdir()) / f"federation-demo-{os.geteuid()}"


@contextmanager
def private(directory: Path | None) -> Iterator[Path]:
    """A private folder that is gone afterwards, unless the demo failed: then its logs are wanted. None: a new one.

    The signals of `ENDING` are held back from its making to the end of the process; whoever lets them through
    meanwhile ends in good order. Raises FederationError for a folder that cannot be used, and leaves that as it is.
    """
    _check_length(directory.absolute() if directory else default_folder())
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    folder = directory.absolute() if directory else Path(tempfile.mkdtemp(prefix="federation-demo-"))
    with _parents(folder):
        lock = _lock(_ours(folder))
        wanted = False
        try:
            durable.create(folder / MARK, b"")
            yield folder
        except FederationError:
            wanted = True
            raise
        finally:
            if not wanted:
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def write_state(folder: Path, facts: dict[str, Any]) -> None:
    """Tell other programs what runs where."""
    durable.write(folder / STATE, msgspec.json.encode(facts))


def state_of(folder: Path) -> dict[str, Any]:
    """What the demo that is up there wrote last. Raises FederationError if none is up, or it is not ours."""
    if not folder.is_dir():
        raise FederationError(f"no demo is up in {folder}", "start one with `federation demo up`")
    if not _in_use(folder):
        raise _left(folder)
    try:
        found: dict[str, Any] = msgspec.json.decode(durable.read_private(folder / STATE, LONGEST_STATE))
    except FileNotFoundError as error:
        raise FederationError(
            f"the demo in {folder} has not started all of it yet", "ask again in a few seconds"
        ) from error
    except (OSError, PkiError, msgspec.MsgspecError) as error:
        raise FederationError(f"{folder / STATE} cannot be read: {error}") from error
    return found


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Removes afterwards those of its parents that were not there before, unless something lies in them."""
    missing = [parent for parent in folder.parents if not os.path.lexists(parent)]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()


def _ours(folder: Path) -> Path:
    """It, private. Nobody is told to change the mode of a folder that was there before: it may be the system's."""
    try:
        mode = stat.S_IMODE(os.lstat(folder).st_mode) if folder.is_dir() and not folder.is_symlink() else 0
        if mode & ~durable.PRIVATE_FOLDER:
            raise FederationError(f"{folder} lets others in (its mode is {mode:04o})", OTHER)
        return durable.private_folder(folder)
    except PkiError as error:
        raise FederationError(str(error), OTHER) from error


def _lock(folder: Path) -> int:
    """Take an empty folder: the descriptor that holds the lock. Raises FederationError if it is taken or not empty."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.listdir(descriptor):
            raise _left(folder)
    except BlockingIOError as error:
        os.close(descriptor)
        raise FederationError(
            f"another demo is up in {folder}",
            f"see `federation demo status --directory {folder}`, or {OTHER}",
        ) from error
    except FederationError:
        os.close(descriptor)
        raise
    return descriptor


def _in_use(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FederationError(f"{folder} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _left(folder: Path) -> FederationError:
    if os.path.lexists(folder / MARK):
        return FederationError(
            f"{folder} is what a demo left that failed or was killed",
            f"remove it (rm -r {folder}), or {OTHER}",
        )
    return FederationError(f"{folder} is not empty, and no demo is up there", OTHER)


def _check_length(folder: Path) -> None:
    spare = LONGEST_SOCKET_PATH - len(os.fsencode(folder / LONGEST_SOCKET))
    if spare < 0:
        raise FederationError(
            f"the path {folder} is {-spare} bytes too long for the unix sockets below it (unix(7))",
            "choose a shorter --directory",
        )
