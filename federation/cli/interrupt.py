"""Ctrl-C while modules are imported: nothing has begun, so the process leaves at once.

The usual exception is not enough there: code that is being imported may catch it, or lose it inside a C extension.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Until the block ends, an interrupt ends the process with the exit code that is due.

    Signals come to the main thread; in any other one there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_: Any) -> None:
    os._exit(INTERRUPTED)
