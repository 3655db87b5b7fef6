"""The store without a disk: the reference for the others, and the double in tests of everybody who needs a
store.

It forgets when the process ends. Nothing in it awaits, so no two commits can meet.
"""

from __future__ import annotations

from federation.store.contract import (
    REMEMBERED,
    Change,
    Committed,
    Conflict,
    Fenced,
    Image,
    Outcome,
    Row,
    Term,
    reused,
)


class MemoryStore:
    def __init__(self) -> None:
        self._revision = 0
        self._rows: dict[str, Row] = {}
        self._requests: dict[str, tuple[bytes, int]] = {}
        self._terms: dict[str, int] = {}

    async def acquire(self, job: str, holder: str) -> Term:
        self._terms[job] = self._terms.get(job, 0) + 1
        return Term(job, self._terms[job])

    async def load(self, prefix: str) -> Image:
        rows = {key: row for key, row in sorted(self._rows.items()) if key.startswith(prefix)}
        return Image(self._revision, 1, rows)

    async def commit(self, change: Change) -> Outcome:
        if (earlier := self._requests.get(change.request_id)) is not None:
            digest, revision = earlier
            if digest != change.digest():
                raise reused(change)
            return Committed(revision)
        if change.term is not None and (newest := self._terms.get(change.term.job, 0)) != change.term.number:
            return Fenced(change.term.job, newest)
        actual = {key: self._rows[key].revision if key in self._rows else 0 for key in change.expect}
        if wrong := {key: revision for key, revision in actual.items() if revision != change.expect[key]}:
            return Conflict(wrong)
        self._revision += 1
        for key in change.delete:
            self._rows.pop(key, None)
        for key, value in change.put.items():
            self._rows[key] = Row(value, self._revision, change.request_id)
        self._requests[change.request_id] = (change.digest(), self._revision)
        if len(self._requests) > REMEMBERED:
            del self._requests[next(iter(self._requests))]
        return Committed(self._revision)
