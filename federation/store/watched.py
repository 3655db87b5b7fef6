"""A store that knows whether it works: what failed last, and, tried again from time to time, whether it still does.

Nobody may need to write for hours, least of all while the process says that it is not ready, so a failing store is
written to here until it takes a change. Damage is different: a change that succeeds beside it mends nothing, so it is
told until the process starts again and looks the whole store through.
"""

from __future__ import annotations

from typing import Protocol
from uuid import uuid4

import structlog

from federation.errors import StoreCorrupt, StoreError
from federation.store.contract import Change, Committed, Image, Outcome, Store, Term, Unknown

TRY_AGAIN = 2.0
"""Seconds between two attempts to write to a store that failed."""

TRIAL = "trial/write"
"""The row that an attempt writes."""

log = structlog.get_logger()


class Sleeper(Protocol):
    async def sleep(self, seconds: float) -> None: ...


class WatchedStore:
    """`store`, and `problem`: what is wrong with it in one sentence, None while it works."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._damaged = False
        self.problem: str | None = None

    async def run(self, clock: Sleeper) -> None:
        """Try a store that failed again, for ever."""
        while True:
            await clock.sleep(TRY_AGAIN)
            if self.problem is not None:
                await self.attempt()

    async def attempt(self) -> None:
        """Write something, whose outcome says whether the store works."""
        try:
            await self.commit(Change(uuid4().hex, put={TRIAL: b""}))
        except StoreError:
            return  # `commit` has noted it

    async def acquire(self, job: str, holder: str) -> Term:
        try:
            return await self._store.acquire(job, holder)
        except StoreError as error:
            self._fails(error)
            raise

    async def load(self, prefix: str) -> Image:
        try:
            return await self._store.load(prefix)
        except StoreError as error:
            self._fails(error)
            raise

    async def commit(self, change: Change) -> Outcome:
        try:
            outcome = await self._store.commit(change)
        except StoreError as error:
            self._fails(error)
            raise
        match outcome:
            case Committed():
                self._works()
            case Unknown():
                self._note(outcome.reason)
        return outcome

    def _fails(self, error: StoreError) -> None:
        self._damaged = self._damaged or isinstance(error, StoreCorrupt)
        self._note(str(error))

    def _note(self, problem: str) -> None:
        if self.problem is None:
            log.error("the store fails", problem=problem)
        self.problem = problem

    def _works(self) -> None:
        if self.problem is not None and not self._damaged:
            log.info("the store works again", was=self.problem)
            self.problem = None
