"""The clusters of a federation, in a store: who they are, what they may do, and by what they are recognised.

Rows are `member/<cluster>`; `epoch/<owner>`, the highest epoch that an owner was ever in; and `authority/<cluster>`,
the newest authority that was ever registered under a name. The last two outlive a removal, so that a cluster that
joins anew under an old name is newer than what others remember of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import msgspec

from federation.errors import FederationError
from federation.member_row import MemberRow
from federation.store import Change, Committed, Conflict, Fenced, Store
from federation.store.contract import MOST_KEYS
from federation.tokens import join_tokens, row_key, settle
from pki.token import TokenRecord

MEMBER = "member/"
EPOCH = "epoch/"
AUTHORITY = "authority/"


class AuthorityRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest authority of a name that counts, as the hash of its public key, and the highest epoch that any of this
    name was ever seen with.
    """

    key: str
    epoch: int


class Registry:
    """The rows as they were last read or written. This process is their only writer, one change after the other:
    whoever changes something lets the change before it end first.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, tuple[MemberRow, int]] = {}
        self._epochs: dict[str, int] = {}
        self._authorities: dict[str, AuthorityRow] = {}

    @property
    def store(self) -> Store:
        return self._store

    async def load(self) -> None:
        """Read everything. Raises StoreError, or FederationError for a row that makes no sense."""
        image = await self._store.load("")
        try:
            for key, row in image.rows.items():
                if key.startswith(MEMBER):
                    member = msgspec.json.decode(row.value, type=MemberRow)
                    self._rows[member.name] = (member, row.revision)
                elif key.startswith(EPOCH):
                    self._epochs[key.removeprefix(EPOCH)] = int(row.value)
                elif key.startswith(AUTHORITY):
                    name = key.removeprefix(AUTHORITY)
                    self._authorities[name] = msgspec.json.decode(row.value, type=AuthorityRow)
        except (ValueError, msgspec.MsgspecError) as error:
            raise FederationError(
                f"the registry cannot be read: {error}", "put a backup back; nothing was changed"
            ) from error

    @property
    def rows(self) -> Mapping[str, MemberRow]:
        return {name: row for name, (row, _) in sorted(self._rows.items())}

    def find(self, name: str) -> MemberRow | None:
        return self._rows[name][0] if name in self._rows else None

    def epoch(self, owner: str) -> int:
        """The highest epoch that `owner` was ever in, 0 if none."""
        return self._epochs.get(owner, 0)

    async def raise_epoch(self, owner: str, epoch: int) -> None:
        """Make it durable that `owner` was in `epoch`; it never falls. Raises StoreError."""
        if epoch > self.epoch(owner):
            change = Change(uuid4().hex, put={EPOCH + owner: str(epoch).encode()})
            await settle(self._store, change)
            self._epochs[owner] = epoch

    def authority(self, name: str) -> AuthorityRow | None:
        """The newest authority that was ever registered under a name."""
        return self._authorities.get(name)

    async def add(self, row: MemberRow, token: TokenRecord) -> bool:
        """Store a new member, or the one that takes the place of an old one; False if its join token was taken away
        meanwhile. Raises as `put` does.
        """
        ticket = row_key(token)
        held = (await self._store.load(ticket)).rows.get(ticket)
        if held is None:
            return False
        known = self._authorities.get(row.name)
        authority = AuthorityRow(row.key, row.epoch if known is None else max(row.epoch, known.epoch))
        key = MEMBER + row.name
        before = self._rows[row.name][1] if row.name in self._rows else 0
        expect = {key: before, ticket: held.revision}
        put = {key: msgspec.json.encode(row), AUTHORITY + row.name: msgspec.json.encode(authority)}
        outcome = await settle(self._store, Change(uuid4().hex, put=put, expect=expect))
        if isinstance(outcome, Conflict) and ticket in outcome.actual:
            return False
        self._rows[row.name] = (row, _revision(row.name, outcome))
        self._authorities[row.name] = authority
        return True

    async def put(self, row: MemberRow, newest: AuthorityRow | None = None) -> None:
        """Store a changed member, and the newest authority of its name if that is news: an older one is none.

        Raises StoreError, or FederationError if another process wrote to this store.
        """
        key, (_, revision) = MEMBER + row.name, self._rows[row.name]
        put = {key: msgspec.json.encode(row)}
        known = self._authorities.get(row.name)
        if newest is not None and known is not None and newest.epoch < known.epoch:
            newest = None
        if newest is not None:
            put[AUTHORITY + row.name] = msgspec.json.encode(newest)
        change = Change(uuid4().hex, put=put, expect={key: revision})
        self._rows[row.name] = (row, _revision(row.name, await settle(self._store, change)))
        if newest is not None:
            self._authorities[row.name] = newest

    async def remove(self, name: str) -> None:
        """Delete a member, and with it every token that would bring it back. Raises as `put` does."""
        key, (_, revision) = MEMBER + name, self._rows[name]
        tokens = await join_tokens(self._store, name)
        while len(tokens) >= MOST_KEYS:
            await settle(self._store, Change(uuid4().hex, delete=frozenset(tokens[:MOST_KEYS])))
            tokens = tokens[MOST_KEYS:]
        gone = frozenset({key, *tokens})
        _revision(name, await settle(self._store, Change(uuid4().hex, delete=gone, expect={key: revision})))
        del self._rows[name]


def _revision(name: str, outcome: Committed | Conflict | Fenced) -> int:
    """The revision that a change of `name` got. Raises FederationError if it was not taken."""
    if isinstance(outcome, Committed):
        return outcome.revision
    raise FederationError(
        f"the record of {name} in the store is not the one that this hub wrote",
        "see that nothing else writes to the store, and restart the hub: it reads everything anew",
    )
