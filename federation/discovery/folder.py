"""Look at a folder of YAML files, once, or again where something changed, and say which services that changes.

What vanishes is gone only if that was said: by a file deleted from a folder that is still there. A folder that is
missing or unreadable says nothing, and neither does an empty one in its place (a mount that is not there), unless a
file `.empty` in it says that it is meant. Where another folder is in its place, absent files are gone once it has been
seen twice without a change between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from federation.discovery.listing import (
    EMPTY,
    Identity,
    Listing,
    entry,
    identity_of,
    is_meant,
    listing,
    signature,
)
from federation.discovery.sources import LocalEvent, Placed, Problem, Refusal, Sources, place
from federation.document.file import read
from federation.errors import InputError
from federation.events import LocalGone
from federation.model import Service

Stopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Folder:
    """What is known of the folder at `path`.

    `listing` is the last full look, None if it failed; `identity` is the folder that `sources` come from. `remembered`
    are services known before this process began, of which we have not said yet whether they are still there.
    """

    path: Path
    remembered: frozenset[Service] = frozenset()
    sources: Sources = field(default_factory=Sources)
    listing: Listing | None = None
    identity: Identity | None = None
    problem: Problem | None = None

    @property
    def seen(self) -> Identity | None:
        """Which folder was at `path` at the last full look."""
        return None if self.listing is None else self.listing.identity

    @property
    def is_complete(self) -> bool:
        """Whether all that lies in the folder could be read, if only in an earlier version."""
        return (
            self.problem is None
            and self.listing is not None
            and not self.listing.unseen
            and all(file in self.sources.files for file in self.sources.refused)
        )

    def problems(self) -> tuple[Problem, ...]:
        """All that is wrong, except for addresses out of range."""
        found = [] if self.problem is None else [self.problem]
        if self.listing is not None:
            found += (replace(problem, kept=True) for problem in self.listing.unseen.values())
        found += (*self.sources.unreadable(), *self.sources.duplicates(), *self.sources.unsound())
        return tuple(sorted(found, key=lambda problem: problem.place))


Outcome = tuple[Folder, tuple[LocalEvent, ...]]


def look(before: Folder, stopped: Stopped = lambda: False) -> Outcome:
    """Look through the whole folder, and read what is new or changed. When `stopped`, nothing is taken."""
    try:
        now = listing(before.path)
    except InputError as error:
        problem = replace(Problem.of(error), allowed=error.allowed or "a folder that can be read")
        return replace(before, listing=None, problem=replace(problem, kept=_knows(before))), ()
    moved = before.identity != now.identity
    if moved and now.is_empty and not now.is_meant_empty and _knows(before):
        allowed = f"its files; if there shall be none, an empty file named {EMPTY} in it"
        problem = Problem(
            str(before.path), None, "", "is empty in place of a folder with services", allowed, kept=True
        )
        return replace(before, listing=now, problem=problem), ()
    unchanged = before.listing == now
    sources = before.sources
    gone = [file for file in {*sources.files, *sources.refused} if not now.may_hold(file)]
    if moved and before.identity is not None and gone and not unchanged:
        after, gone = replace(before, listing=now, problem=None), []
    else:
        after = replace(before, listing=now, problem=None, identity=now.identity)
    old = {} if before.listing is None else before.listing.files
    changed = [file for file, state in now.files.items() if old.get(file) != state]
    outcome = _read(after, changed, now.refused, gone, stopped)
    if stopped():
        return before, ()
    return _settled(outcome) if unchanged else outcome


def look_at(before: Folder, paths: Iterable[str], stopped: Stopped = lambda: False) -> Outcome:
    """Read the files at the absolute `paths` again, or look through all if that is not enough to know."""
    files: set[str] = set()
    for path in paths:
        file = os.path.relpath(path, before.path)
        if before.listing is None or _needs_look(path, file, before.listing):
            return look(before, stopped)
        if is_meant(file) and not _is_hidden(file):
            files.add(file)
    real = os.path.realpath(before.path)
    entries = {file: entry(before.path / file, real) for file in files}
    if _is_elsewhere(before):
        return look(before, stopped)
    refused = {file: found for file, found in entries.items() if isinstance(found, Problem)}
    present = [file for file, found in entries.items() if isinstance(found, os.stat_result)]
    gone = [file for file, found in entries.items() if found is None]
    return _read(before, present, refused, gone, stopped)


def _needs_look(path: str, file: str, known: Listing) -> bool:
    """Whether a change at `path` may be about more than one file: a folder, a link, or what links lead through."""
    if _is_hidden(file):
        return any(part.startswith("..") for part in file.split("/"))
    if file in known.folders or file in known.unseen or os.path.isdir(path):
        return True
    return is_meant(file) and os.path.dirname(file) not in known.folders


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") for part in file.split("/"))


def _is_elsewhere(folder: Folder) -> bool:
    """Whether another folder, or none, is where the one was that `sources` come from."""
    try:
        return not folder.identity == folder.seen == identity_of(folder.path)
    except OSError:
        return True


def _knows(folder: Folder) -> bool:
    return bool(folder.sources.files or folder.remembered)


def _read(
    before: Folder,
    present: Iterable[str],
    refused: Mapping[str, Problem],
    gone: Iterable[str],
    stopped: Stopped,
) -> Outcome:
    sources, touched = before.sources, set[Service]()
    for file in gone:
        sources, changed = sources.forget(file)
        touched |= changed
    for file in sorted(present):
        if stopped():
            return before, ()
        content = _content(before.path / file)
        if content is not None:
            sources, changed = sources.take(file, content)
            touched |= changed
    for file, problem in refused.items():
        sources, _ = sources.take(file, Refusal((problem,)))
    sources, events = sources.settle(touched)
    return replace(before, sources=sources), events


def _settled(outcome: Outcome) -> Outcome:
    """With the services of an earlier process that are not described any more named as gone."""
    folder, events = outcome
    if not folder.remembered or not folder.is_complete:
        return outcome
    lost = sorted(service for service in folder.remembered if service not in folder.sources.found)
    return replace(folder, remembered=frozenset()), (*events, *map(LocalGone, lost))


def _content(path: Path) -> tuple[Placed, ...] | Refusal | None:
    """What a file says; None while somebody writes it: then more is to come."""
    try:
        before = path.stat()
        documents = read(path)
        after = path.stat()
    except InputError as error:
        return Refusal((Problem.of(error),))
    except OSError as error:
        problem = InputError(f"cannot be read: {error.strerror}", file=str(path))
        return Refusal((Problem.of(problem),))
    return place(documents, str(path)) if signature(before) == signature(after) else None
