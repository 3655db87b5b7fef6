"""The bans of one hub, in its store: rows `ban/<kind>/<name>`. In memory they are as they were last read or written.

The hub is the only writer, and makes one change after the other, each to its end. Whoever follows bans is told of each
change when it is on disk. Each is in a journal, too, so that a database from a backup takes none back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import structlog

from federation.banned import MOST_BANS, PREFIX, Ban, BanKind, ban_key, banned, objection
from federation.errors import FederationError, InvalidValue
from federation.store import Change, Store
from federation.tokens import settle
from pki.ledger import Banned, Unbanned
from pki.spiffe import SpiffeId

log = structlog.get_logger()

Listener = Callable[[Ban, bool], None]
"""Is told of a ban, and whether it is in force."""


class Notes(Protocol):
    """Where bans are noted besides, in a form that only grows."""

    async def note(self, record: Banned | Unbanned) -> None:
        """Raises `JournalError`."""
        ...

    async def bans(self) -> tuple[Banned | Unbanned, ...]:
        """The last word on everybody who was ever banned. Raises `JournalError`."""
        ...


class BanStore:
    """Bans in a federation under `base`. `load` it before anything else, then `compare` it with the notes."""

    def __init__(self, store: Store, base: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._base = base
        self._now = now
        self._bans: dict[str, Ban] = {}
        self._listeners: list[Listener] = []
        self._notes: Notes | None = None
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    async def load(self) -> None:
        """Read everything. Raises StoreError, or FederationError for a row that makes no sense."""
        rows = (await self._store.load(PREFIX)).rows
        try:
            self._bans = {key: msgspec.json.decode(row.value, type=Ban) for key, row in rows.items()}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FederationError(
                f"a stored ban cannot be read: {error}",
                "it was written by another version; put a backup back",
            ) from error

    async def compare(self, notes: Notes) -> None:
        """Take over what is noted and missing in the store, and note each change there from now on.

        A ban that is younger than the last word in the notes stays. Raises StoreError, FederationError, `JournalError`.
        """
        for last in await notes.bans():
            held = self._bans.get(ban_key(BanKind(last.kind), last.subject))
            if isinstance(last, Banned) and held is None:
                log.warning(
                    "a ban was missing in the store, as after a backup was put back", subject=last.subject
                )
                await self._alone(self._put(Ban(BanKind(last.kind), last.subject, last.reason, last.at)))
            elif isinstance(last, Unbanned) and held is not None and held.since <= last.at:
                await self._alone(self._remove(held))
        self._notes = notes

    def on_change(self, listener: Listener) -> None:
        self._listeners.append(listener)

    @property
    def bans(self) -> Mapping[str, Ban]:
        return self._bans

    def why_banned(self, identity: SpiffeId, key: str) -> str | None:
        """Why whoever has, or wants, a certificate for `identity` over `key` (SPKI hash, hex) is turned away."""
        found = banned(self._bans, identity, key, self._base)
        return None if found is None else str(found)

    async def ban(self, kind: BanKind, subject: str, reason: str) -> Ban:
        """Ban somebody, durably, or give another reason. Raises InvalidValue, FederationError if there are too many,
        StoreError.
        """
        made = Ban(kind, subject, reason, self._now())
        if (why := objection(made, self._base)) is not None:
            raise InvalidValue(why, "see `federation ca ban --help`")
        await self._alone(self._put(made))
        return made

    async def unban(self, kind: BanKind, subject: str) -> bool:
        """Take a ban back; False if there is none. Raises StoreError."""
        found = self._bans.get(ban_key(kind, subject))
        if found is not None:
            await self._alone(self._remove(found))
        return found is not None

    async def _alone(self, change: Coroutine[Any, Any, None]) -> None:
        async def one_by_one() -> None:
            async with self._changing:
                await change

        task = asyncio.create_task(one_by_one(), name="change of the bans")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _put(self, ban: Ban) -> None:
        if ban.key not in self._bans and len(self._bans) >= MOST_BANS:
            raise FederationError(
                f"there are {MOST_BANS} bans already", "take back those that are not needed"
            )
        await self._note(Banned(ban.since, ban.kind.value, ban.subject, ban.reason))
        await settle(self._store, Change(uuid4().hex, put={ban.key: msgspec.json.encode(ban)}))
        self._bans = {**self._bans, ban.key: ban}
        log.warning("banned", kind=ban.kind.value, subject=ban.subject, reason=ban.reason)
        self._tell(ban, in_force=True)

    async def _remove(self, ban: Ban) -> None:
        await self._note(Unbanned(self._now(), ban.kind.value, ban.subject))
        await settle(self._store, Change(uuid4().hex, delete=frozenset({ban.key})))
        self._bans = {key: known for key, known in self._bans.items() if key != ban.key}
        log.warning("ban taken back", kind=ban.kind.value, subject=ban.subject)
        self._tell(ban, in_force=False)

    async def _note(self, record: Banned | Unbanned) -> None:
        if self._notes is not None:
            await self._notes.note(record)

    def _tell(self, ban: Ban, *, in_force: bool) -> None:
        for listener in self._listeners:
            listener(ban, in_force)
