"""What lies in a folder of YAML files: names and states, no content.

Names that begin with a dot and names without .yaml or .yml are not looked at: editors keep their work there, and
Kubernetes the versions of a mounted ConfigMap, whose visible files are links into them. A link that leaves the folder
is refused: error messages quote what they read, and whoever may write here need not be allowed to read the rest of
this machine. A folder that is reached on two ways is entered once.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from federation.discovery.sources import Problem
from federation.errors import InputError

SUFFIXES = (".yaml", ".yml")
MOST_FILES = 50_000
EMPTY = ".empty"
"""The file that says of a folder without services that nothing is missing in it."""

Identity = tuple[int, int]
"""Device and inode."""
Signature = tuple[int, int, int, int]
"""Device, inode, time of the last change of content or rights in ns, size."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds, by name relative to it.

    `files` can be read, `refused` are there and cannot; `folders` were looked into ("" is the folder itself), `unseen`
    could not be. `is_meant_empty`: the folder itself has the file `.empty`.
    """

    identity: Identity
    files: Mapping[str, Signature]
    refused: Mapping[str, Problem]
    folders: frozenset[str]
    unseen: Mapping[str, Problem]
    is_meant_empty: bool

    @property
    def is_empty(self) -> bool:
        return not self.files and not self.refused and not self.unseen

    def may_hold(self, file: str) -> bool:
        """Whether `file` may be there, for all that could be seen."""
        if file in self.files or file in self.refused:
            return True
        return any(PurePath(file).is_relative_to(folder) for folder in self.unseen)


def listing(root: Path) -> Listing:
    """Look through the folder `root` and all below it. Raises InputError if nothing can be said of it."""
    try:
        real = os.path.realpath(root)
        identity = identity_of(root)
        inside = sorted(os.listdir(root))
    except OSError as error:
        raise _unreadable(root, error) from error
    files: dict[str, Signature] = {}
    refused: dict[str, Problem] = {}
    unseen: dict[str, Problem] = {}
    entered = {identity: ""}
    ahead = deque([("", inside)])
    while ahead:
        folder, names = ahead.popleft()
        for name in names:
            file = f"{folder}/{name}" if folder else name
            match None if name.startswith(".") else entry(root / file, real):
                case Problem() as problem if is_meant(file):
                    refused[file] = problem
                case Problem() as problem:
                    unseen[file] = problem
                case os.stat_result() as status if stat.S_ISDIR(status.st_mode):
                    if (status.st_dev, status.st_ino) not in entered:
                        try:
                            ahead.append((file, sorted(os.listdir(root / file))))
                            entered[status.st_dev, status.st_ino] = file
                        except OSError as error:
                            unseen[file] = Problem.of(_unreadable(root / file, error))
                case os.stat_result() as status if is_meant(file):
                    files[file] = signature(status)
                case _:
                    pass
        if len(files) > MOST_FILES:
            raise InputError("too many files", file=str(root), allowed=f"at most {MOST_FILES}")
    return Listing(identity, files, refused, frozenset(entered.values()), unseen, EMPTY in inside)


def entry(path: Path, real: str) -> os.stat_result | Problem | None:
    """What is at `path`, in the folder whose real path is `real`: a file or folder, one that is refused, or nothing."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            target = os.path.realpath(path, strict=True)
            if os.path.commonpath((target, real)) != real:
                return _refused(path, "is a link that leaves the folder", "links within it")
            status = path.stat()
    except FileNotFoundError as error:
        return Problem.of(_unreadable(path, error)) if path.is_symlink() else None
    except OSError as error:
        return Problem.of(_unreadable(path, error))
    is_folder = stat.S_ISDIR(status.st_mode)
    if not path.name.isprintable() and (is_folder or is_meant(path.name)):
        return _refused(path, "has a name that is refused", "printable characters in UTF-8")
    if not is_folder and not stat.S_ISREG(status.st_mode) and is_meant(path.name):
        return _refused(path, "is not a regular file", "a file")
    return status


def is_meant(file: str) -> bool:
    """Whether a file of this name is for us."""
    return file.endswith(SUFFIXES)


def signature(status: os.stat_result) -> Signature:
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def identity_of(root: Path) -> Identity:
    """Which folder is at `root`. Raises OSError."""
    status = root.stat()
    return status.st_dev, status.st_ino


def _refused(path: Path, problem: str, allowed: str) -> Problem:
    return Problem(str(path).encode(errors="backslashreplace").decode(), None, "", problem, allowed)


def _unreadable(path: Path, error: OSError) -> InputError:
    file = str(path).encode(errors="backslashreplace").decode()
    return InputError(f"cannot be read: {error.strerror}", file=file)
