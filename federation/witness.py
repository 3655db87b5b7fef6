"""What a hub keeps for others: how far the journals of its clusters have come.

Rows are `journal/<cluster>/<authority>`.

Only the furthest head of each journal is kept, and it is on disk before anybody is told of it. It outlives membership:
an authority that comes back under its old name finds what it had signed before.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import msgspec
import structlog

from federation.admit import Refused
from federation.errors import FederationError
from federation.heads import MOST_KEPT, Heads, JournalHead, Kept, accepted, keep
from federation.store import Change, Store
from federation.tokens import settle

PREFIX = "journal/"

log = structlog.get_logger()


class Witness:
    """`load` it before anything else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[tuple[str, str], Kept] = {}

    async def load(self) -> None:
        """Read everything. Raises StoreError, or FederationError for a row that makes no sense."""
        rows = (await self._store.load(PREFIX)).rows
        try:
            for key, row in rows.items():
                _, owner, authority = key.split("/")
                self._kept[owner, authority] = msgspec.json.decode(row.value, type=Kept)
        except (ValueError, msgspec.MsgspecError) as error:
            raise FederationError(
                f"the heads of journals cannot be read: {error}", "put a backup back; nothing was changed"
            ) from error

    @property
    def kept(self) -> Mapping[tuple[str, str], Kept]:
        """By owner and authority."""
        return self._kept

    def problems(self) -> tuple[str, ...]:
        found = (kept.problem(owner) for (owner, _), kept in sorted(self._kept.items()))
        return tuple(problem for problem in found if problem is not None)

    async def take(self, told: Heads, own: frozenset[str]) -> None:
        """Keep what an owner tells of its journals, those of the authorities in `own` alone. Raises StoreError."""
        for head in told.heads:
            if head.authority in own:
                await self._take(told.owner, head)

    def doubt(self, told: Heads, own: frozenset[str]) -> Refused | None:
        """Why these heads are not passed on: they are of somebody else's authority, or contradict what is kept."""
        for head in told.heads:
            if head.authority not in own:
                return Refused("journal", f"{told.owner} has no authority {head.authority[:12]}…")
            kept = self._kept.get((told.owner, head.authority))
            if kept is not None and (problem := kept.problem(told.owner)) is not None:
                return Refused("journal", problem)
        return None

    async def _take(self, owner: str, told: JournalHead) -> None:
        key = (owner, told.authority)
        known = self._kept.get(key)
        if known is None and sum(one == owner for one, _ in self._kept) >= MOST_KEPT:
            log.error("no more journals of this cluster are kept", cluster=owner, most=MOST_KEPT)
            return
        after = keep(known, told)
        if after == known:
            return
        await self._put(owner, after)
        if after.doubt is not None and (known is None or known.doubt is None):
            log.error("a journal contradicts what was kept of it", problem=after.problem(owner))

    async def accept(self, owner: str) -> int:
        """Take what contradicts for right; how many journals that concerned. Raises StoreError."""
        doubted = [kept for (name, _), kept in self._kept.items() if name == owner and kept.doubt is not None]
        for kept in doubted:
            await self._put(owner, accepted(kept))
        return len(doubted)

    async def _put(self, owner: str, kept: Kept) -> None:
        authority = kept.head.authority
        row = {f"{PREFIX}{owner}/{authority}": msgspec.json.encode(kept)}
        await settle(self._store, Change(uuid4().hex, put=row))
        self._kept = {**self._kept, (owner, authority): kept}
