"""The root's word for authorities that follow: a member's agent asks, over its own stream, and the hub has it signed.

It asks too when another root has taken the place of the one before. The request proves the key, the stream proves whose
it is. Only a newer epoch than any that the name has had is signed, and what everybody goes by already.
Signing may take as long as the root's place needs (a vault that is sealed, a ceremony): nobody else waits for it, and
what failed is tried again until it is done or another request takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from cryptography import x509

from federation import root_word
from federation.clock import Clock
from federation.member_row import MemberRow
from federation.registry import AuthorityRow, Registry
from federation.retry import Backoff
from federation.root_request import RootRequest
from pki.algorithms import spki_hash
from pki.certificate import (
    authority_key_id,
    authority_trust_domain,
    der,
    load_der,
    public_key,
    signed_by,
    subject_key_id,
)
from pki.errors import PkiError
from pki.spiffe import TrustDomain
from pki.subordinate import Subordinate, read_request
from pki.upstream import Root

SHORTEST, LONGEST = 1.0, 60.0
"""Seconds between attempts to have something signed."""

log = structlog.get_logger()

Keep = Callable[[str, Callable[[MemberRow], MemberRow | None], AuthorityRow], Awaitable[None]]
"""Change a member's row, under the lock of the registry, and note the newest authority of its name; None: leave it."""

MOST_AHEAD = 8
"""How far an epoch may lie above the newest that is known: each rotation that was turned back has used one up."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read, and may be signed. `by` is the member that asked, as it was then."""

    request: RootRequest
    subordinate: Subordinate
    key: str
    by: MemberRow


class Successors:
    def __init__(self, base: str, registry: Registry, root: Root, keep: Keep, clock: Clock) -> None:
        self._base = base
        self._registry = registry
        self._root = root
        self._keep = keep
        self._clock = clock
        self._signing: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def hear(self, request: RootRequest) -> None:
        """Begin to have it signed, unless it is, or may not be."""
        asked = self._read(request)
        if asked is None:
            return
        if request.owner in self._signing:
            key, task = self._signing[request.owner]
            if key == asked.key and not task.done():
                return
            task.cancel()
        task = asyncio.create_task(self._sign(asked), name=f"root-signing-{request.owner}")
        self._signing[request.owner] = asked.key, task

    def forget(self, owner: str) -> None:
        """`owner` asks no more: nothing is tried for it any longer."""
        _, task = self._signing.pop(owner, ("", None))
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        for _, task in self._signing.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._signing.values()), return_exceptions=True)

    def _read(self, request: RootRequest) -> Asked | None:
        row = self._registry.find(request.owner)
        if row is None:
            return None
        domain = TrustDomain.of_cluster(request.owner, self._base)
        try:
            found = read_request(request.csr, domain, self._base)
            key = spki_hash(found.key)
            anchor = load_der(request.anchor)
            why = self._objection(row, found, key, anchor)
        except PkiError as error:
            why = str(error)
        if why is not None:
            log.warning("the next authority of a cluster is not signed", cluster=request.owner, reason=why)
            return None
        held = root_word.form_of(row, key)
        if held and authority_key_id(load_der(held)) == subject_key_id(self._root.certificate):
            return None
        return Asked(request, found, key, row)

    def _objection(
        self, row: MemberRow, asked: Subordinate, key: str, anchor: x509.Certificate
    ) -> str | None:
        newest = self._registry.authority(row.name)
        known = newest is not None and key in {newest.key, *self._living(row)}
        if newest is not None and not known and asked.epoch <= newest.epoch:
            return f"its epoch is {asked.epoch}, and one of epoch {newest.epoch} is known"
        if newest is not None and asked.epoch > newest.epoch + MOST_AHEAD:
            return f"its epoch is {asked.epoch}, too far above the newest, {newest.epoch}"
        mine = authority_trust_domain(anchor) == asked.trust_domain and signed_by(anchor, anchor)
        if not mine or spki_hash(public_key(anchor)) != key:
            return "its anchor is not the self-signed form of the same key"
        return None

    def _living(self, row: MemberRow) -> set[str]:
        """The keys of the authorities that everybody goes by."""
        return {spki_hash(public_key(each)) for each in row.trusted(self._base).anchors}

    async def _sign(self, asked: Asked) -> None:
        name, backoff = asked.request.owner, Backoff(self._clock, SHORTEST, LONGEST)
        while True:
            try:
                rooted = await self._root.sign_cluster_ca(
                    asked.request.csr, asked.subordinate.trust_domain, who=name, why="its next authority"
                )
                if rooted is None or authority_key_id(rooted) == subject_key_id(self._root.certificate):
                    break
                await backoff.wait()  # another root signs by now
            except PkiError as error:
                log.error(
                    "the next authority of a cluster cannot be signed now", cluster=name, reason=str(error)
                )
                await backoff.wait()

        def changed(row: MemberRow) -> MemberRow | None:
            """Until a ceremony has signed it, what was asked for waits in the registry.

            Whoever has the name by now with another authority has not asked for it.
            """
            newest = self._registry.authority(name)
            outdone = newest is not None and newest.epoch > asked.subordinate.epoch
            if row.joined_at != asked.by.joined_at or (outdone and asked.key not in self._living(row)):
                log.warning("what was signed for a cluster comes too late", cluster=name)
                return None
            signed = b"" if rooted is None else der(rooted)
            return root_word.asked(row, asked.key, asked.request.anchor, asked.request.csr, signed)

        this, newest = AuthorityRow(asked.key, asked.subordinate.epoch), self._registry.authority(name)
        await self._keep(name, changed, this if newest is None or newest.epoch <= this.epoch else newest)
        log.info("the next authority of a cluster", cluster=name, signed=rooted is not None)
