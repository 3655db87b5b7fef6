"""SQLite and memory give the same answers to the same changes, also across restarts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from federation.store import Change, ChangeRefused, MemoryStore, Outcome, SqliteStore, Store, Term

KEYS = st.sampled_from(["a", "a/b", "a/c", "b", "b/", "~"])
VALUES = st.binary(max_size=4)
REVISIONS = st.integers(0, 6)
TERMS = st.none() | st.builds(Term, st.sampled_from(["x", "y"]), st.integers(1, 3))


class Agreement(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="federation-store-"))
        self.memory = MemoryStore()
        self.sqlite = self.runner.run(SqliteStore.open(self.folder / "hub.db"))

    def teardown(self) -> None:
        self.runner.run(self.sqlite.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def answer(self, store: Store, change: Change) -> Outcome | str:
        try:
            return self.runner.run(store.commit(change))
        except ChangeRefused as error:
            return str(error)

    @rule(
        request=st.integers(0, 30),
        put=st.dictionaries(KEYS, VALUES, max_size=3),
        delete=st.frozensets(KEYS, max_size=2),
        expect=st.dictionaries(KEYS, REVISIONS, max_size=2),
        term=TERMS,
    )
    def commit(
        self,
        request: int,
        put: dict[str, bytes],
        delete: frozenset[str],
        expect: dict[str, int],
        term: Term | None,
    ) -> None:
        delete = delete - put.keys()
        if put or delete:
            change = Change(f"r{request}", put, delete, expect, term)
            assert self.answer(self.sqlite, change) == self.answer(self.memory, change)

    @rule(put=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), request=st.integers(31, 10**9))
    def commit_as_expected(self, put: dict[str, bytes], request: int) -> None:
        rows = self.runner.run(self.memory.load("")).rows
        expect = {key: rows[key].revision if key in rows else 0 for key in put}
        change = Change(f"r{request}", put, expect=expect)
        assert self.answer(self.sqlite, change) == self.answer(self.memory, change)

    @rule(job=st.sampled_from(["x", "y"]))
    def acquire(self, job: str) -> None:
        assert self.runner.run(self.sqlite.acquire(job, "h")) == self.runner.run(
            self.memory.acquire(job, "h")
        )

    @rule()
    def restart(self) -> None:
        self.runner.run(self.sqlite.close())
        self.sqlite = self.runner.run(SqliteStore.open(self.folder / "hub.db"))

    @rule(prefix=st.sampled_from(["a", "a/", "b", "~", "c"]))
    def load(self, prefix: str) -> None:
        assert self.runner.run(self.sqlite.load(prefix)) == self.runner.run(self.memory.load(prefix))

    @invariant()
    def same_image(self) -> None:
        ours, reference = self.runner.run(self.sqlite.load("")), self.runner.run(self.memory.load(""))
        assert ours == reference
        assert list(ours.rows) == list(reference.rows)


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
