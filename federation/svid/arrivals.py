"""Which certificates their holders have done with, as far as that is known: those before one that somebody came with.

An answer may be lost, so that a certificate was replaced does not say that its holder has the next one, nor the trust
bundle that went with it. Who comes with the next one has both. Nothing of this is on disk: after a restart, and beyond
`MOST`, it is not known, and whoever counts on it waits until the certificate before has ended.
"""

from __future__ import annotations

from collections.abc import Set

MOST = 65_536
"""Certificates of which something is remembered; the oldest is let go first."""
MOST_ANSWERS = 64
"""In place of one certificate, of which something is remembered: who is given more uses up no more of `MOST`."""


class Arrivals:
    """Certificates are named by their serial numbers."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}
        self._after: dict[int, dict[int, None]] = {}
        self._gone: dict[int, None] = {}

    @property
    def gone(self) -> Set[int]:
        """Those that nobody uses any more."""
        return self._gone.keys()

    def given(self, serial: int, replaces: int) -> None:
        """The answer with `serial`, in place of `replaces`, is on its way."""
        self._before[serial] = replaces
        answers = self._after.setdefault(replaces, {})
        answers[serial] = None
        if len(answers) > MOST_ANSWERS:
            self._forget(next(iter(answers)))
        if len(self._before) > MOST:
            self._forget(next(iter(self._before)))

    def came(self, serial: int) -> None:
        """Somebody has come with `serial`: the one before is done with, and so are answers that were lost, which were
        for the same holder and the same key.
        """
        replaced = self._before.get(serial)
        if replaced is None:
            return
        lost = self._after.pop(replaced)
        for each in lost:
            del self._before[each]
        for each in (replaced, *lost):
            self._gone[each] = None
        del self._gone[serial]
        while len(self._gone) > MOST:
            del self._gone[next(iter(self._gone))]

    def _forget(self, serial: int) -> None:
        replaced = self._before.pop(serial)
        answers = self._after[replaced]
        del answers[serial]
        if not answers:
            del self._after[replaced]
