"""What a process has in memory, keys and tokens among it, is its own: after it died, and before its neighbours.

No core dump is written, and no process of the same user may read our memory or attach to us. Whoever is root may.

Children inherit what concerns core dumps, so Envoy leaves none either. They do not inherit that others of their user
cannot read their memory: execve(2) makes it readable again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

_PR_SET_DUMPABLE = 4

COREDUMP_FILTER = Path("/proc/self/coredump_filter")


def harden() -> None:
    """For the start of a process. Raises OSError if the kernel refuses.

    - `RLIMIT_CORE` 0, hard and soft: no file (core(5)).
    - An empty `coredump_filter`: a program that takes core dumps by a pipe is not held by that limit, and gets nothing
      of our memory. Without `/proc` there is no such setting.
    - `PR_SET_DUMPABLE` 0 (prctl(2)): `/proc/<pid>/mem`, `environ` and ptrace(2) are for root alone.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        COREDUMP_FILTER.write_text("0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl(PR_SET_DUMPABLE): {os.strerror(ctypes.get_errno())}")
