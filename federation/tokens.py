"""One-time tokens in a store: made, listed, revoked, and used exactly once however many try at the same moment.

Rows are `token/<hash of the secret>`; the secret itself is never stored. A token is used up by a compare-and-set that
replaces its row, so the store decides who was first, and an answer that was lost can be recovered by reading again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import uuid4

import msgspec

from federation.errors import FederationError
from federation.store import Change, Committed, Conflict, Fenced, Row, Store, Unknown
from pki.token import Redeemed, Refused, Resumed, TokenRecord, redeem

PREFIX = "token/"

KEPT = timedelta(days=7)
"""How long after its end a token stays listed."""

ATTEMPTS = 5
"""How often an Unknown outcome is resolved before the caller is told."""


class TokenStore:
    """The tokens of one issuer."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def add(self, record: TokenRecord) -> None:
        """Store a new token; forgets old ones on the way. Raises StoreError; then the token was not made."""
        key = row_key(record)
        old = [
            row_key
            for row_key, (known, _) in (await self._all()).items()
            if self._now() > known.not_after + KEPT
        ]
        change = Change(
            uuid4().hex, put={key: msgspec.json.encode(record)}, delete=frozenset(old[:50]), expect={key: 0}
        )
        if not isinstance(await settle(self._store, change), Committed):
            raise FederationError("the token exists already", "make another one")

    async def listed(self) -> tuple[TokenRecord, ...]:
        """All tokens, the newest last."""
        return tuple(
            sorted((record for record, _ in (await self._all()).values()), key=lambda one: one.not_after)
        )

    async def find(self, secret_hash: bytes) -> TokenRecord | None:
        """The token with this hash, if it could still be used or resumed."""
        row = (await self._store.load(PREFIX + secret_hash.hex())).rows.get(PREFIX + secret_hash.hex())
        record = _record(row) if row else None
        return record if record is not None and self._now() < record.not_after else None

    async def revoke(self, token_id: str) -> TokenRecord | None:
        """Delete the token with this id, as it was then; None if there is none."""
        while True:
            found = next(
                ((key, one) for key, one in (await self._all()).items() if one[0].id == token_id), None
            )
            if found is None:
                return None
            key, (record, row) = found
            change = Change(uuid4().hex, delete=frozenset({key}), expect={key: row.revision})
            if isinstance(await settle(self._store, change), Committed):
                return record

    async def redeem(self, secret: bytes, subject: str, spki_hash: str) -> Redeemed | Resumed | Refused:
        """Use a token up, durably, before anything follows from it."""
        key = PREFIX + sha256(secret).hexdigest()
        while True:
            row = (await self._store.load(key)).rows.get(key)
            outcome = redeem(_record(row) if row else None, secret, subject, spki_hash, self._now())
            if not isinstance(outcome, Redeemed) or row is None:
                return outcome
            value = msgspec.json.encode(outcome.record)
            written = await settle(
                self._store, Change(uuid4().hex, put={key: value}, expect={key: row.revision})
            )
            if not isinstance(written, Conflict):
                return outcome

    async def _all(self) -> dict[str, tuple[TokenRecord, Row]]:
        image = await self._store.load(PREFIX)
        return {key: (_record(row), row) for key, row in image.rows.items()}


def _record(row: Row) -> TokenRecord:
    try:
        return msgspec.json.decode(row.value, type=TokenRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FederationError(
            f"a stored token cannot be read: {error}", "it was written by another version"
        ) from error


def row_key(record: TokenRecord) -> str:
    return PREFIX + record.hash.hex()


async def join_tokens(store: Store, cluster: str) -> list[str]:
    """The keys of all tokens, used or not, by which `cluster` may join. Raises StoreError."""
    records = [_record(row) for row in (await store.load(PREFIX)).rows.values()]
    return [row_key(one) for one in records if one.kind == "join" and one.subject == cluster]


async def settle(store: Store, change: Change) -> Committed | Conflict | Fenced:
    """Commit `change`, resolving Unknown by committing the very same change again.

    Raises FederationError if the store cannot say even then.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        outcome = await store.commit(change)
        if not isinstance(outcome, Unknown):
            return outcome
        reason = outcome.reason
    raise FederationError(f"the store cannot say whether it stored the change: {reason}", "try again")
