"""How clusters become members of a federation: a one-time token made by an operator, used once, remembered by its key.

What is asked for is checked whole before the token is looked at: a refused request uses no token up, and its answer
tells nothing of any. The token is used up in the store before the root signs, and the same key may ask again: an
answer that was lost, or a hub that died in between, costs a second attempt and nothing else. Clusters join one after
the other. Whoever is removed loses its tokens in the same change of the store, and a new member is stored only if its
token is still there, so that no removal is undone by asking again.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from federation.clock import Clock
from federation.errors import FederationError, InvalidValue
from federation.hub import Hub, check_grants
from federation.listen import HostPort
from federation.registry import MemberRow
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import token
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import der
from pki.errors import InvalidName, InvalidToken
from pki.root import RootAuthority
from pki.spiffe import TrustDomain
from pki.token import TokenRecord, mint, pin_of


@dataclass(frozen=True, slots=True)
class Joined:
    """A new member, or one whose answer was lost: its `rooted` is what the cluster asked for."""

    row: MemberRow


class Admission:
    """Tokens and joins of one hub, whose root is online. `api` is where agents reach the hub's REST API."""

    def __init__(
        self,
        hub: Hub,
        tokens: TokenStore,
        root: RootAuthority,
        bundle: Bundle,
        api: HostPort,
        clock: Clock,
        metrics: HubMetrics,
    ) -> None:
        self._hub = hub
        self._tokens = tokens
        self._root = root
        self._bundle = bundle
        self._api = api
        self._clock = clock
        self._metrics = metrics
        self._joining = asyncio.Lock()

    async def create_token(
        self, cluster: str, may_export: tuple[str, ...], ranges: tuple[str, ...], lifetime: timedelta
    ) -> tuple[str, TokenRecord]:
        """A join token: its text, shown once, and what is kept of it. Raises FederationError with what is wrong."""
        try:
            TrustDomain.of_cluster(cluster, self._hub.base)
        except InvalidName as error:
            raise InvalidValue(str(error), "choose another name for the cluster") from error
        check_grants(may_export, ranges)
        if self._hub.registry.find(cluster) is not None:
            raise FederationError(
                f"{cluster} is a member already", f"remove it first: federation cluster remove {cluster}"
            )
        try:
            made, record = mint(
                os.urandom(token.SECRET_BYTES),
                self._clock.now(),
                kind="join",
                url=f"https://{self._api}",
                subject=cluster,
                pin=pin_of(self._root.certificate, self._bundle),
                may_export=may_export,
                ranges=ranges,
                lifetime=lifetime,
            )
        except InvalidToken as error:
            raise FederationError(error.reason, "a join token lives for 1 second to 10 minutes") from error
        await self._tokens.add(record)
        return made.encode(), record

    async def redeem_join(self, secret: bytes, cluster: str, request: bytes) -> Joined | token.Refused:
        """Make `cluster`, if the token is for it, a member with the key of `request` (a CSR).

        Raises `pki.errors.InvalidName` and `pki.errors.Refused` for a name or a request that is no good, whatever the
        token, which is not used up by it; StoreError.
        """
        outcome = await self._redeem_join(secret, cluster, request)
        self._metrics.joins.labels("joined" if isinstance(outcome, Joined) else "refused").inc()
        return outcome

    async def _redeem_join(self, secret: bytes, cluster: str, request: bytes) -> Joined | token.Refused:
        domain = TrustDomain.of_cluster(cluster, self._hub.base)
        key = spki_hash(await self._root.check_cluster_ca(request, domain))
        record = await self._tokens.find(sha256(secret).digest())
        if record is None or record.kind != "join":
            return token.Refused()
        member = self._hub.registry.find(record.subject)
        if member is not None and member.key != key:
            return token.Refused()
        outcome = await self._tokens.redeem(secret, cluster, key)
        if isinstance(outcome, token.Refused):
            return outcome
        async with self._joining:
            return await self._join(outcome.record, key, request)

    async def _join(self, record: TokenRecord, key: str, request: bytes) -> Joined | token.Refused:
        member = self._hub.registry.find(record.subject)
        if member is not None:
            return Joined(member) if member.key == key else token.Refused()
        domain = TrustDomain.of_cluster(record.subject, self._hub.base)
        rooted = await self._root.sign_cluster_ca(
            request, domain, who=record.subject, why=f"join with token {record.id}"
        )
        row = MemberRow(
            name=record.subject,
            may_export=record.may_export,
            ranges=record.ranges,
            joined_at=self._clock.now(),
            key=key,
            rooted=der(rooted),
        )
        return Joined(row) if await self._hub.add_member(row, record) else token.Refused()
