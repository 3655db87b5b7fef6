"""Services from a folder of YAML files that is watched.

The kernel says what changes, and only that is read; a look through the whole folder now and then finds what it did
not say (network file systems, an overflowing queue, names that are not UTF-8, another folder in its place). Files are
read in a thread of our own, one look at a time. Write a file under another name and rename it, and it is seen whole;
written in place, it is read when it has been quiet for 20 ms, and while its content is refused, what it said before
stays.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Never, Protocol

import structlog
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from federation.clock import Clock
from federation.discovery.folder import Folder, Outcome, look, look_at
from federation.discovery.sources import LocalEvent, Problem, Sources, place
from federation.document import Document
from federation.document.file import read
from federation.errors import InputError
from federation.model import Network, Service

QUIET = 20
"""Milliseconds without another change after which a change is looked at."""
LONGEST = 500
"""Milliseconds after which a change is looked at even if there are always more."""
RESCAN = 10.0
"""Seconds between two looks through the whole folder."""

log = structlog.get_logger()


class Emit(Protocol):
    def __call__(self, *events: LocalEvent) -> None: ...


class FileDiscovery:
    """The services that the files below `path` describe. `emit` gets what changes, all of one look together.

    `remembered` are services that an earlier process emitted and the caller still has: those that are not found in a
    folder of which all could be read are emitted as gone.
    """

    def __init__(
        self,
        path: Path,
        emit: Emit,
        clock: Clock,
        *,
        remembered: frozenset[Service] = frozenset(),
        rescan: float = RESCAN,
    ) -> None:
        self.listed = asyncio.Event()
        """Set when all that is in the folder has been emitted, or when it says nothing and what is remembered stays."""
        self._folder = Folder(path.absolute(), remembered)
        self._emit = emit
        self._clock = clock
        self._rescan = rescan
        self._stop = threading.Event()
        self._told: frozenset[Problem] = frozenset()
        self._looked_at = clock.monotonic()

    def problems(self) -> tuple[Problem, ...]:
        """All that is wrong now, by file and line, except for addresses out of range."""
        return self._folder.problems()

    def outside(self, service: Service, ranges: Sequence[Network]) -> tuple[Problem, ...]:
        """Where the files give `service` an address outside `ranges`."""
        found = self._folder.sources.outside(service, ranges)
        return tuple(sorted(found, key=lambda problem: problem.place))

    async def run(self) -> Never:
        """Watch until cancelled; the thread that reads has then ended too."""
        with ThreadPoolExecutor(1, thread_name_prefix="discovery") as thread:
            try:
                while True:
                    with _watching(self._folder.path) as watch:
                        await self._follow(thread, watch)
            finally:
                self._stop.set()

    async def _follow(self, thread: ThreadPoolExecutor, watch: RustNotify | None) -> None:
        """Look, then take in changes until another folder, or none, is in the place of the watched one, or the watch
        fails, as it does at a name that is not UTF-8.
        """
        loop = asyncio.get_running_loop()
        await self._look(thread)
        watched = self._folder.seen
        if watch is None or watched is None:
            await self._clock.sleep(self._rescan)
            return
        while self._folder.seen == watched:
            wait = int(self._rescan * 1000)
            try:
                changes = await loop.run_in_executor(thread, watch.watch, LONGEST, QUIET, wait, self._stop)
            except WatchfilesRustInternalError as error:  # it would say so for ever
                log.warning(
                    "services folder is watched anew after a look", reason=str(error), seconds=wait / 1000
                )
                await self._look(thread)
                await self._clock.sleep(self._rescan)
                return
            if isinstance(changes, str) or self._clock.monotonic() - self._looked_at >= self._rescan:
                await self._look(thread)
            else:
                paths = {path for _, path in changes}
                self._take(
                    await loop.run_in_executor(thread, look_at, self._folder, paths, self._stop.is_set)
                )

    async def _look(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        self._looked_at = self._clock.monotonic()
        self._take(await loop.run_in_executor(thread, look, self._folder, self._stop.is_set))

    def _take(self, outcome: Outcome) -> None:
        self._folder, events = outcome
        if events:
            self._emit(*events)
        if self._folder.problem is None or self._folder.remembered:
            self.listed.set()
        problems = frozenset(self._folder.problems())
        for problem in problems - self._told:
            log.warning("services file refused", problem=str(problem))
        self._told = problems


def check_objects(path: Path, ranges: Sequence[Network] = ()) -> tuple[Problem, ...]:
    """What is wrong in a file or a folder of objects; with `ranges`, also addresses outside them."""
    if path.is_dir():
        folder, _ = look(Folder(path))
        return _checked(folder.problems(), folder.sources, ranges)
    try:
        return check_documents(read(path), str(path), ranges)
    except InputError as error:
        return (Problem.of(error),)


def check_documents(
    documents: Sequence[Document], file: str, ranges: Sequence[Network] = ()
) -> tuple[Problem, ...]:
    """What is wrong in the objects of one file. Nothing is said of those that are not in it: they may lie beside it."""
    sources, _ = Sources().take(file, place(documents, file))
    return _checked(tuple(sources.unreadable()), sources, ranges)


def _checked(found: tuple[Problem, ...], sources: Sources, ranges: Sequence[Network]) -> tuple[Problem, ...]:
    services = sources.objects.slices if ranges else ()
    outside = (problem for service in services for problem in sources.outside(service, ranges))
    return tuple(sorted((*found, *outside), key=lambda problem: problem.place))


@contextmanager
def _watching(path: Path) -> Iterator[RustNotify | None]:
    """The kernel's word on what changes below `path`; None where it cannot be had."""
    try:
        watch = RustNotify([str(path)], False, False, 0, True, True)
    except (OSError, WatchfilesRustInternalError) as error:
        if path.exists():
            log.warning("services folder is not watched, only looked at now and then", reason=str(error))
        yield None
        return
    with watch:
        yield watch
