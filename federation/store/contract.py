"""The contract that every store keeps, as values.

    a change is applied as a whole or not at all, and only if every key still has the revision it expects
    revisions rise by commits alone; a row carries the revision and the request of its last writer
    what is answered with Committed survives the death of the process and of the machine
    a request that was committed is committed once: repeating it gives the same answer

`Unknown` is the answer that is easily forgotten: the change may or may not be there. Commit the same change
again, or load and compare the rows' `request_id`; never make a new request of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from federation.errors import FederationError

MOST_KEYS = 100
"""Keys in one change; etcd allows 128 operations in a transaction."""
LARGEST = 1024 * 1024
"""Bytes of keys and values in one change."""
REMEMBERED = 10_000
"""Commits for which a repeated request is recognised."""

_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_SPLIT = "split it into several changes"
_REQUEST = re.compile(r"[\x21-\x7e]{1,128}")


class ChangeRefused(FederationError):
    """A change that no store would take, whatever it holds; `request_id` names it."""

    def __init__(self, request_id: str, problem: str, hint: str = "") -> None:
        super().__init__(f"the change {request_id!r} is refused: {problem}", hint)
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Term:
    """A job that only one may do, and the number under which somebody holds it. Numbers strictly rise."""

    job: str
    number: int


@dataclass(frozen=True, slots=True)
class Change:
    """What to write, and under which conditions. Raises ChangeRefused for one that is too large or malformed.

    `expect` maps keys to the revision of their row, 0 for a key that must not exist; keys that are not in it
    may have any. With a `term` the change only counts while that term is the newest of its job. `request_id`
    is the writer's name for this change, never used for another one. Keys are printable ASCII.
    """

    request_id: str
    put: Mapping[str, bytes] = field(default_factory=dict)
    delete: frozenset[str] = frozenset()
    expect: Mapping[str, int] = field(default_factory=dict)
    term: Term | None = None

    def __post_init__(self) -> None:
        keys = {*self.put, *self.delete, *self.expect}
        size = sum(map(len, keys)) + sum(map(len, self.put.values()))
        if problem := self._malformed(keys):
            raise ChangeRefused(self.request_id, problem)
        if len(keys) > MOST_KEYS:
            raise ChangeRefused(self.request_id, f"{len(keys)} keys, {MOST_KEYS} are allowed", _SPLIT)
        if size > LARGEST:
            raise ChangeRefused(self.request_id, f"{size} bytes, {LARGEST} are allowed", _SPLIT)

    def _malformed(self, keys: Set[str]) -> str:
        if not _REQUEST.fullmatch(self.request_id):
            return "its id is not 1 to 128 printable ASCII characters"
        if odd := sorted(key for key in keys if not _KEY.fullmatch(key)):
            return f"the key {odd[0]!r} is not 1 to 512 printable ASCII characters"
        if both := sorted(self.delete & self.put.keys()):
            return f"it both puts and deletes {both[0]}"
        return "" if self.put or self.delete else "it neither puts nor deletes anything"

    def digest(self) -> bytes:
        """SHA-256 over all fields: two changes with one request id are the same if it is the same."""
        term = (self.term.job, self.term.number) if self.term else None
        content = (sorted(self.put.items()), sorted(self.delete), sorted(self.expect.items()), term)
        return sha256(repr(content).encode()).digest()


@dataclass(frozen=True, slots=True)
class Row:
    """A value, the revision of the commit that wrote it, and the request that asked for it."""

    value: bytes
    revision: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """All rows under a prefix, in the order of their keys, as they were at one revision.

    `incarnation` rises when a backup is restored: revisions of an earlier one say nothing any more.
    """

    revision: int
    incarnation: int
    rows: Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Committed:
    """The change is stored, at this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was stored: these keys are at other revisions (0: absent) than the change expects."""

    actual: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was stored: the newest term of the job is `newest` (0: nobody ever held it)."""

    job: str
    newest: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store cannot say whether the change was stored. Commit the very same change again to learn it."""

    request_id: str
    reason: str


Outcome = Committed | Conflict | Fenced | Unknown


class Store(Protocol):
    async def acquire(self, job: str, holder: str) -> Term:
        """Take a job over, from whoever has it: changes under its earlier terms are Fenced from now on.

        `holder` is a name for people. Raises StoreError.
        """
        ...

    async def load(self, prefix: str) -> Image:
        """The rows whose key begins with `prefix`, "" for all. Raises StoreError."""
        ...

    async def commit(self, change: Change) -> Outcome:
        """Apply the change as a whole, or say why not. Raises StoreError (StoreFull: nothing of it was
        stored), and ChangeRefused for the request id of an earlier, different change.
        """
        ...


def reused(change: Change) -> ChangeRefused:
    """What to raise for a request id that an earlier, different change had."""
    return ChangeRefused(
        change.request_id, "an earlier change had its id", "give every change an id of its own"
    )
