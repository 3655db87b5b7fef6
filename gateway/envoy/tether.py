"""Becomes another program that the kernel kills when the process that started it dies: `tether.py PARENT PROGRAM ARG…`.

`PR_SET_PDEATHSIG` (prctl(2)) survives execve(2), so it is set here, between fork and exec, in a small interpreter of
its own: code run in the forked child of a process with threads may hang. It is run by path and imports nothing of ours.
The signal comes when the *thread* that forked ends: start it from a thread that lives as long as the process.

Ends with the status `NOT_STARTED + errno` if it cannot become that program (execve(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

NOT_STARTED = 100
"""Above the statuses that Envoy ends with (0 and 1); the largest errno of Linux is 133."""

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent died before it could be watched")
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(NOT_STARTED + (error.errno or 0))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
