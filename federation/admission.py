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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from cryptography import x509

from federation.clock import Clock
from federation.errors import Banned, FederationError, InvalidValue
from federation.hub import Hub
from federation.listen import HostPort
from federation.member_row import MemberRow
from federation.membership import check_grants
from federation.model import MemberState
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import token
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import der
from pki.errors import InvalidName, InvalidToken, Refused
from pki.spiffe import SpiffeId, TrustDomain
from pki.subordinate import Subordinate, read_anchor, read_request
from pki.token import FIRST_EPOCH, TokenRecord, mint, pin_of
from pki.upstream import Root


@dataclass(frozen=True, slots=True)
class Joined:
    """A new member, or one whose answer was lost: its `rooted`, if it is signed yet, is what the cluster asked for."""

    row: MemberRow


class Admission:
    """Tokens and joins of one hub. `api` is where agents reach its REST API."""

    def __init__(
        self,
        hub: Hub,
        tokens: TokenStore,
        root: Root,
        bundle: Callable[[], Bundle],
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
        self,
        cluster: str,
        may_export: tuple[str, ...],
        ranges: tuple[str, ...],
        lifetime: timedelta,
        replace_authority: bool = False,
    ) -> tuple[str, TokenRecord]:
        """A join token: its text, shown once, and what is kept of it. Raises FederationError with what is wrong.

        With `replace_authority` it is for a member that has lost its key: it keeps the rights that are not given anew.
        """
        try:
            TrustDomain.of_cluster(cluster, self._hub.base)
        except InvalidName as error:
            raise InvalidValue(str(error), "choose another name for the cluster") from error
        self._check_not_banned(cluster, "")
        member = self._hub.registry.find(cluster)
        if member is not None and not replace_authority:
            raise FederationError(
                f"{cluster} is a member already",
                f"if its agent has lost its folder: federation token create {cluster} --replace-authority; "
                f"else remove it first: federation cluster remove {cluster}",
            )
        if member is None and replace_authority:
            raise FederationError(
                f"{cluster} is no member: there is no authority to replace",
                f"make a usual token: federation token create {cluster} --may-export … --range …",
            )
        if member is not None:
            may_export, ranges = may_export or member.may_export, ranges or member.ranges
        check_grants(may_export, ranges)
        before = self._hub.registry.authority(cluster)
        try:
            made, record = mint(
                os.urandom(token.SECRET_BYTES),
                self._clock.now(),
                kind="join",
                url=f"https://{self._api}",
                subject=cluster,
                pin=pin_of(self._root.certificate, self._bundle()),
                may_export=may_export,
                ranges=ranges,
                lifetime=lifetime,
                epoch=FIRST_EPOCH if before is None else before.epoch + 1,
                replaces=replace_authority,
            )
        except InvalidToken as error:
            raise FederationError(error.reason, "a join token lives for 1 second to 10 minutes") from error
        await self._tokens.add(record)
        return made.encode(), record

    async def redeem_join(
        self, secret: bytes, cluster: str, request: bytes, anchor: bytes = b""
    ) -> Joined | token.Refused:
        """Make `cluster`, if the token is for it, a member with the key of `request` (a CSR).

        `anchor` is the self-signed form (PEM) of the authority that asks. Raises `pki.errors.InvalidName` and
        `pki.errors.Refused` for a name or a request that is no good, whatever the token, which is not used up by it;
        Banned, if the token is good; StoreError, and what the root raises.
        """
        outcome = await self._redeem_join(secret, cluster, request, anchor)
        self._metrics.joins.labels("joined" if isinstance(outcome, Joined) else "refused").inc()
        return outcome

    async def _redeem_join(
        self, secret: bytes, cluster: str, request: bytes, anchor: bytes
    ) -> Joined | token.Refused:
        domain = TrustDomain.of_cluster(cluster, self._hub.base)
        asked = read_request(request, domain, self._hub.base)
        await self._root.check_cluster_ca(request, domain)
        shown = read_anchor(anchor, asked, self._clock.now()) if anchor else None
        record = await self._tokens.find(sha256(secret).digest())
        if record is None or record.kind != "join":
            return token.Refused()
        key = spki_hash(asked.key)
        if record.subject == cluster:
            self._check_not_banned(cluster, key)
        if not self._may_have(record, key):
            return token.Refused()
        self._check_epoch(cluster, record, key, asked.epoch)
        if not self._is_member(cluster, key):
            await self._root.ready()
        outcome = await self._tokens.redeem(secret, cluster, key)
        if isinstance(outcome, token.Refused):
            return outcome
        async with self._joining:
            return await self._join(outcome.record, asked, request, shown)

    def _is_member(self, cluster: str, key: str) -> bool:
        """Whether nothing is left to sign: its answer was lost on the way."""
        member = self._hub.registry.find(cluster)
        return member is not None and member.key == key

    def _check_not_banned(self, cluster: str, key: str) -> None:
        agent = SpiffeId.agent(TrustDomain.of_cluster(cluster, self._hub.base))
        if (reason := self._hub.why_banned(agent, key)) is not None:
            raise Banned(reason)

    def _may_have(self, record: TokenRecord, key: str) -> bool:
        """Whether the name of the token may go to this key: nobody has it, this key has it, or an operator says so."""
        member = self._hub.registry.find(record.subject)
        return member is None or member.key == key or record.replaces

    def _check_epoch(self, cluster: str, record: TokenRecord, key: str, epoch: int) -> None:
        """Raise `Refused` for a new key that is not newer than any that had this name; only to who has its token."""
        before = self._hub.registry.authority(cluster)
        if record.subject != cluster or record.used_by not in (None, key):
            return
        if before is not None and before.key != key and epoch <= before.epoch:
            raise Refused(
                "csr",
                f"an authority of epoch {epoch}, and {cluster} has had one of epoch {before.epoch} with another key; "
                "begin with an empty folder, so that the token makes a newer one",
            )

    async def _join(
        self, record: TokenRecord, asked: Subordinate, request: bytes, anchor: x509.Certificate | None
    ) -> Joined | token.Refused:
        name, key = record.subject, spki_hash(asked.key)
        member = self._hub.registry.find(name)
        if member is not None and member.key == key:
            return Joined(member)
        if not self._may_have(record, key):
            return token.Refused()
        self._check_epoch(name, record, key, asked.epoch)
        rooted = await self._root.sign_cluster_ca(
            request, asked.trust_domain, who=name, why=f"join with token {record.id}"
        )
        if rooted is None and anchor is None:
            raise Refused(
                "anchor", "the root is offline, and the agent does not show its own anchor; upgrade it"
            )
        row = MemberRow(
            name=name,
            may_export=record.may_export,
            ranges=record.ranges,
            joined_at=self._clock.now(),
            state=MemberState.ACTIVE if member is None else member.state,
            key=key,
            epoch=asked.epoch,
            rooted=b"" if rooted is None else der(rooted),
            anchor=b"" if anchor is None else der(anchor),
            request=request if rooted is None else b"",
        )
        return Joined(row) if await self._hub.membership.add(row, record) else token.Refused()
