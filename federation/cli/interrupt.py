"""Ctrl-C while modules are imported: nothing has begun, so the process leaves at once.

The usual exception is not enough there: code that is being imported may catch it, or lose it inside a C extension. This
module is the first that is imported, and imports nothing that would take time: `signal` would bring eleven modules, the
part of it that is in C brings none. Before that there is only Python itself, whose traceback nobody can take away.
"""

import _signal  # type: ignore[import-not-found]
import os

INTERRUPTED = 130


class leaving_at_once:  # noqa: N801 - read as a statement: with leaving_at_once()
    """Until the block ends, an interrupt ends the process with the exit code that is due.

    Signals come to the main thread; in any other one there is nothing to do.
    """

    def __enter__(self) -> None:
        try:
            self._before = _signal.signal(_signal.SIGINT, _leave)
        except ValueError:
            self._before = None

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _signal.signal(_signal.SIGINT, self._before)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
