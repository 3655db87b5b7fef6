"""The journals of one process: how far they have come, whether they can be written, what is in them, and whether that
can be believed. Reading takes a thread, as a journal may be long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from federation.heads import MOST_HEADS, JournalHead
from pki.audit import Signed, Told, history, told
from pki.chain import Head
from pki.errors import PkiError
from pki.folder import JOURNAL
from pki.journal import Journal, Journaled, examine, records
from pki.ledger import Banned, Unbanned

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in one journal. `problem` is None if it can be believed as far as the head `kept` by others."""

    path: Path
    head: JournalHead | None
    since: int
    kept: tuple[JournalHead, ...]
    problem: str | None


def of(*signers: object) -> tuple[Journal, ...]:
    """The journals of those who sign here; a root whose key is elsewhere has none."""
    return tuple(journal for one in signers if isinstance(one, Journaled) for journal in one.journals)


class Journals:
    """Those in the folders below `directory`. `open_now` gives the ones that can be written now."""

    def __init__(self, directory: Path, open_now: Callable[[], Iterable[Journal]]) -> None:
        self._directory = directory
        self._open_now = open_now

    def heads(self) -> tuple[JournalHead, ...]:
        """For others to keep: of each journal that can be written now."""
        found = (
            JournalHead(journal.authority, journal.head.lines, journal.head.hash)
            for journal in self._open_now()
        )
        return tuple(sorted(head for head in found if head.lines))[:MOST_HEADS]

    def problems(self) -> tuple[str, ...]:
        """Why nothing can be signed, for each journal that could not be written when it was last tried."""
        found = (journal.problem for journal in self._open_now())
        return tuple(problem for problem in found if problem is not None)

    async def note(self, record: Banned | Unbanned) -> None:
        """Write a record to the journal of the authority that came last. Raises `JournalError`."""
        *_, journal = self._open_now()
        await asyncio.to_thread(journal.append, record)

    async def bans(self) -> tuple[Banned | Unbanned, ...]:
        """The last word on everybody who was ever banned, from the journals of all authorities there were."""
        return await asyncio.to_thread(self._bans)

    def _bans(self) -> tuple[Banned | Unbanned, ...]:
        last: dict[tuple[str, str], Banned | Unbanned] = {}
        open_now = {journal.path: journal for journal in self._open_now()}
        for path in self._paths():
            for one in open_now[path].bans() if path in open_now else _bans_in(path):
                known = last.get((one.kind, one.subject))
                if known is None or known.at <= one.at:
                    last[one.kind, one.subject] = one
        return tuple(last.values())

    async def history(
        self, since: datetime | None, identity: str | None, most: int
    ) -> tuple[tuple[Path, Signed], ...]:
        """What was signed since then, for exactly this identity, in all journals, by time: the newest `most`.

        Raises `JournalError`.
        """
        return await asyncio.to_thread(self._history, since, identity, most)

    def _history(
        self, since: datetime | None, identity: str | None, most: int
    ) -> tuple[tuple[Path, Signed], ...]:
        found = [
            (path, one) for path in self._paths() for one in history(records(path), since, identity, most)
        ]
        return tuple(sorted(found, key=lambda one: one[1].intent.at)[-most:])

    async def lines(self, since: datetime | None, most: int) -> tuple[tuple[Path, Told], ...]:
        """The last `most` records since then, of all journals, by time. Raises `JournalError`."""
        return await asyncio.to_thread(self._lines, since, most)

    def _lines(self, since: datetime | None, most: int) -> tuple[tuple[Path, Told], ...]:
        found = [(path, one) for path in self._paths() for one in _last(path, since, most)]
        return tuple(sorted(found, key=lambda one: one[1].record.at)[-most:])

    async def verify(self, kept: Sequence[JournalHead]) -> tuple[Verdict, ...]:
        """Look at each journal from its beginning, and whether it holds what others have `kept` of it."""
        return await asyncio.to_thread(self._verify, kept)

    def _verify(self, kept: Sequence[JournalHead]) -> tuple[Verdict, ...]:
        """A head of an authority whose journal is not here is a journal that is gone."""
        open_now = {journal.path: journal.authority for journal in self._open_now()}
        found = tuple(verdict(path, open_now.get(path), kept) for path in self._paths())
        here = {one.head.authority for one in found if one.head is not None}
        lost = sorted({head for head in kept if head.authority not in here})
        broken = any(one.head is None for one in found)
        gone = (
            Verdict(
                self._directory, None, 0, (head,), f"there is no journal of the authority {head.authority}"
            )
            for head in lost
        )
        return found if broken else (*found, *gone)

    def _paths(self) -> tuple[Path, ...]:
        return tuple(sorted(path for path in self._directory.rglob(JOURNAL) if path.is_file()))


def _last(path: Path, since: datetime | None, most: int) -> deque[Told]:
    lines = told(records(path))
    return deque((one for one in lines if since is None or one.record.at >= since), most)


def _bans_in(path: Path) -> tuple[Banned | Unbanned, ...]:
    """Those noted in the journal of an authority that has ended. One that is damaged keeps nobody from starting."""
    try:
        return tuple(examine(path).ledger.bans.values())
    except PkiError as error:
        log.error(
            "a journal cannot be believed, and bans that are noted in it count for nothing",
            problem=str(error),
        )
        return ()


def verdict(path: Path, authority: str | None, kept: Sequence[JournalHead]) -> Verdict:
    """What is found in one journal; `authority` is whose it must be, None for whoever it says it is of."""
    try:
        found = examine(path, authority)
        held = tuple(head for head in kept if head.authority == found.authority)
        if held:
            found = examine(path, found.authority, [Head(head.lines, head.hash) for head in held])
    except PkiError as error:
        return Verdict(path, None, 0, (), str(error))
    head = JournalHead(found.authority, found.head.lines, found.head.hash)
    return Verdict(path, head, found.since.lines, held, None)
