"""The registry as it lives: members come, change and go, one change after the other, each in the store before anybody
hears of it.

It says who is a member and by which anchors each is recognised; it relays nothing, and answers nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog
from cryptography import x509

from federation import admit, root_word
from federation.clock import Clock
from federation.errors import InvalidValue
from federation.held import Held, digest
from federation.member_row import MemberRow, networks
from federation.model import HUB, Member, MemberState, Position
from federation.registry import AuthorityRow, Registry
from federation.svid.quota import Level, Quota, spend
from federation.sync.errors import ProtocolViolation
from federation.sync.exchange import Exchange
from federation.sync.protocol import MOST_EPOCHS_AHEAD, NOTHING, next_epoch
from federation.sync.session import Session
from pki import bundle as bundles
from pki.algorithms import spki_hash
from pki.bundle import Bundle, Rejected, accept, accept_from
from pki.certificate import load_der, public_key
from pki.profiles import epoch_of
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import TokenRecord

T = TypeVar("T")

MOST_EPOCHS_LEFT_OUT = 100
"""How far an authority's epoch may lie above the newest that is known of its name: each rotation that was turned back
has used one up."""
RISES = Quota(rate=1 / 600, burst=16)
"""How often a second the newest epoch of a name may rise. With the step above, the holder of a stolen key takes two
months to leave no epoch to replace it with, also where the root signs whatever is asked."""

log = structlog.get_logger()


class Membership:
    """`start` it before anything else. First bundles are proved by any of `roots`. `until` is told by
    `federation.outsiders`; `is_early` while there is something to be told about that later.
    """

    def __init__(
        self,
        registry: Registry,
        roots: Callable[[], Sequence[x509.Certificate]],
        base: str,
        exchange: Exchange,
        clock: Clock,
    ) -> None:
        self.base = base
        self.registry = registry
        self._roots = roots
        self._exchange = exchange
        self._clock = clock
        self._rises: dict[str, Level] = {}
        self._trusted: dict[TrustDomain, Bundle] = {}
        self._anchors = b""
        self._told_held = Held(HUB)
        self.until: Callable[[Bundle], datetime | None] = lambda _: None
        self.is_early = False
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Take up the registry, in a new epoch of its facts. Raises StoreError or FederationError."""
        await self.registry.load()
        epoch = next_epoch(HUB, self.registry.epoch(HUB), NOTHING)
        await self.registry.raise_epoch(HUB, epoch)
        self._exchange.rebase(epoch)
        for row in self.registry.rows.values():
            if (sorted_out := root_word.in_place(row, self._roots())) != row:
                await self.registry.put(sorted_out)
            self._take_up(sorted_out)
        self.tell_held()

    async def add(self, row: MemberRow, token: TokenRecord) -> bool:
        """A cluster joined, or came back with another key; False if its token was taken away meanwhile. Raises
        StoreError; then it has not.
        """
        return await self.alone(lambda: self._add(row, token))

    async def _add(self, row: MemberRow, token: TokenRecord) -> bool:
        before = self.registry.find(row.name)
        if before is not None:
            # What was said or counted with the key before is not continued.
            await self.registry.raise_epoch(row.name, self._exchange.highest(row.name).epoch + 1)
        if not await self.registry.add(row, token):
            return False
        if before is not None:
            self._exchange.cut(row.name, "another authority took over this name, as an operator meant it to")
        self._take_up(row)
        log.info("cluster joined", cluster=row.name, may_export=row.may_export, ranges=row.ranges)
        return True

    async def set(
        self,
        name: str,
        may_export: tuple[str, ...] | None = None,
        ranges: tuple[str, ...] | None = None,
        state: MemberState | None = None,
    ) -> Member | None:
        """Change what is not None; None if there is no such member. Raises FederationError for what cannot be."""
        wanted = {"may_export": may_export, "ranges": ranges, "state": state}
        given = {setting: value for setting, value in wanted.items() if value is not None}
        return await self.alone(lambda: self._set(name, given))

    async def _set(self, name: str, given: Mapping[str, Any]) -> Member | None:
        row = self.registry.find(name)
        if row is None:
            return None
        changed = msgspec.structs.replace(row, **given)
        check_grants(changed.may_export, changed.ranges)
        if (changed.may_export, changed.ranges) != (row.may_export, row.ranges):
            # What others hold up to a position is what the old rights let through. So the owner begins an epoch at its
            # next stream, in which it lists everything to everybody; only the store remembers that over a restart.
            await self.registry.raise_epoch(name, self._exchange.highest(name).epoch + 1)
        if changed != row:
            await self.registry.put(changed)
            self._take_up(changed)
            log.info(
                "cluster changed", cluster=name, state=changed.state.value, may_export=changed.may_export
            )
        return changed.member(self.base)

    async def root_signed(self, name: str, rooted: x509.Certificate) -> bool:
        """A ceremony signed what `name` asked for: keep it, and tell its agent. False if it does not wait for that.

        Raises StoreError.
        """
        return await self.alone(lambda: self._root_signed(name, rooted))

    async def _root_signed(self, name: str, rooted: x509.Certificate) -> bool:
        row = self.registry.find(name)
        changed = None if row is None else root_word.signed(row, rooted, self._roots())
        if changed is None:
            return False
        await self.registry.put(changed)
        self._take_up(changed)
        log.info("the root signed the authority of a cluster", cluster=name)
        return True

    async def request_withdrawn(self, name: str) -> None:
        """The agent of `name` asks the root for nothing any more. Raises StoreError."""
        await self.alone(lambda: self._request_withdrawn(name))

    async def _request_withdrawn(self, name: str) -> None:
        row = self.registry.find(name)
        if row is not None and row.waits:
            await self.registry.put(root_word.withdrawn(row))

    async def remove(self, name: str) -> bool:
        """End a membership: its stream is cut, its tokens are void, everybody is told. False if there is none. Raises
        StoreError.
        """
        return await self.alone(lambda: self._remove(name))

    async def _remove(self, name: str) -> bool:
        if self.registry.find(name) is None:
            return False
        # Whoever joins under this name begins an epoch beyond all that was said, or counted, under it.
        await self.registry.raise_epoch(name, self._exchange.highest(name).epoch + 1)
        await self.registry.remove(name)
        self._exchange.remove_member(name)
        self._trust(TrustDomain.of_cluster(name, self.base), None)
        self.tell_held()
        log.info("cluster removed", cluster=name)
        return True

    def _take_up(self, row: MemberRow) -> None:
        self._exchange.set_member(row.member(self.base), self.registry.epoch(row.name))
        trusted = row.trusted(self.base)
        self._trust(trusted.trust_domain, trusted)

    def _trust(self, domain: TrustDomain, bundle: Bundle | None) -> None:
        """Whole values replace whole values: another thread reads them during handshakes."""
        others = {known: each for known, each in self._trusted.items() if known != domain}
        self._trusted = others if bundle is None else {**others, domain: bundle}
        self._anchors = b"".join(each.pem() for each in self._trusted.values())

    @property
    def anchors(self) -> bytes:
        """The anchors of all members as PEM; may be read from any thread."""
        return self._anchors

    def bundles(self) -> Mapping[TrustDomain, Bundle]:
        return self._trusted

    def member_of(self, identity: SpiffeId) -> str | None:
        name = identity.trust_domain.cluster(self.base)
        if (
            name is None
            or self.registry.find(name) is None
            or identity != SpiffeId.agent(identity.trust_domain)
        ):
            return None
        return name

    async def keep_successor(
        self, name: str, changed: Callable[[MemberRow], MemberRow | None], newest: AuthorityRow
    ) -> None:
        """What the root signed for the authority that follows, or is to sign. Waits while epochs of the name rise too
        fast. Raises StoreError.
        """
        while wait := self._rise(name, newest):
            log.warning("the epochs of a cluster rise too fast", cluster=name, epoch=newest.epoch, wait=wait)
            await self._clock.sleep(wait)

        async def keep() -> None:
            row = self.registry.find(name)
            if row is not None and (after := changed(row)) is not None:
                known = self.registry.authority(name)
                await self.registry.put(after, known if known and known.epoch > newest.epoch else newest)
                self._take_up(after)

        await self.alone(keep)

    async def reached(self, session: Session, epoch: int) -> None:
        """A member speaks in a new epoch: durable before anybody hears of it. Raises ProtocolViolation, StoreError."""
        if epoch > self.registry.epoch(session.cluster):
            await self.alone(lambda: self._reached(session, epoch))

    async def _reached(self, session: Session, epoch: int) -> None:
        cluster, known = session.cluster, self.registry.epoch(session.cluster)
        if epoch > known + MOST_EPOCHS_AHEAD:
            raise ProtocolViolation(cluster, f"epoch {epoch}, and its last one was {known}")
        await self.registry.raise_epoch(cluster, epoch)
        if session.closed is None:
            self._exchange.epoch_reached(cluster, epoch)

    async def offered(self, cluster: str, offered: Bundle) -> None:
        """A member published a bundle of its own: kept if it is proved and newer. Raises StoreError."""
        await self.alone(lambda: self._offered(cluster, offered, by_anybody=False))

    async def brought(self, cluster: str, offered: Bundle) -> None:
        """Somebody brings a bundle of a member: kept if it leads on from the anchors that are known. Raises StoreError.

        Before the first version those are the ones that were shown at the join, and no word of the root takes their
        place: it may be for an authority that has ended since.
        """
        await self.alone(lambda: self._offered(cluster, offered, by_anybody=True))

    async def _offered(self, cluster: str, offered: Bundle, by_anybody: bool) -> None:
        row = self.registry.find(cluster)
        if row is None:
            return
        newest, known = _newest(offered), self.registry.authority(cluster)
        if known is not None and newest.epoch > known.epoch + MOST_EPOCHS_LEFT_OUT:
            log.warning(
                "a trust bundle is not kept, its epoch is too far above the newest that is known",
                cluster=cluster,
                epoch=newest.epoch,
                known=known.epoch,
            )
            return
        previous = None if row.bundle is None else bundles.decode(row.bundle)
        if previous is None and by_anybody:
            outcome = accept_from([load_der(shown) for shown in (row.anchor, row.rooted) if shown], offered)
        else:
            outcome = accept(previous, offered, *self._roots())
        if isinstance(outcome, Rejected):
            return
        changed = root_word.published(row, previous, offered, self._roots())
        if outcome.changed:
            changed = msgspec.structs.replace(changed, bundle=bundles.encode(offered))
        if changed == row:
            return
        if wait := self._rise(cluster, newest):
            log.warning(
                "a trust bundle is not kept, the epochs of its cluster rise too fast",
                cluster=cluster,
                wait=wait,
            )
            return
        if known is not None and newest.epoch < known.epoch:
            newest = AuthorityRow(newest.key, known.epoch)
        await self.registry.put(changed, newest)
        self._take_up(changed)
        self.tell_held()
        if outcome.changed:
            log.info("trust bundle accepted", cluster=cluster, sequence=offered.sequence)

    def _rise(self, cluster: str, newest: AuthorityRow) -> float:
        """Count that `newest` is beyond what is known of the name, if it is; or how long to wait with that (s)."""
        known = self.registry.authority(cluster)
        if known is None or newest.epoch <= known.epoch:
            return 0.0
        spent = spend(self._rises.get(cluster), RISES, self._clock.monotonic())
        self._rises[cluster] = spent.level
        return spent.wait

    def authorities(self, cluster: str) -> frozenset[str]:
        """The keys (SPKI hashes) of the authorities in the bundle that is held of a cluster."""
        held = self._trusted.get(TrustDomain.of_cluster(cluster, self.base))
        return frozenset(spki_hash(public_key(anchor)) for anchor in held.anchors) if held else frozenset()

    def tell_held(self) -> None:
        """Which bundles are in the registry, and so believed by this hub, and by those outside who fetch them here.
        To be called again while `is_early`.
        """
        self.is_early = False
        published = [row.name for row in self.registry.rows.values() if row.bundle]
        versions = [self._held(TrustDomain.of_cluster(name, self.base)) for name in published]
        held = Held(
            HUB,
            tuple(sorted((each.trust_domain.name, *each.version) for each in versions)),
            digests=tuple(sorted((each.trust_domain.name, digest(each)) for each in versions)),
        )
        if held != self._told_held:
            self._exchange.say(held)
            self._told_held = held

    def _held(self, domain: TrustDomain) -> Bundle:
        """Its bundle, or the version before while somebody outside may not have seen the new anchor."""
        bundle = self._trusted[domain]
        early = self.until(bundle) is not None
        self.is_early = self.is_early or early
        return bundle.earlier[-1] if early else bundle

    async def outrun(self, cluster: str, ours: Position) -> None:
        """`cluster` remembers `ours` of this hub. Raises StoreError."""
        if ours > self._exchange.own.position:
            await self.alone(lambda: self._outrun(cluster, ours))

    async def _outrun(self, cluster: str, ours: Position) -> None:
        """Somebody remembers more of this hub than the hub does, as after a backup was put back: begin anew, beyond."""
        before = self._exchange.own.position
        if ours > before:
            epoch = next_epoch(HUB, before.epoch, ours)
            await self.registry.raise_epoch(HUB, epoch)
            self._exchange.rebase(epoch)
            log.warning(
                "an agent remembers more of this hub than the hub itself; a new epoch begins",
                cluster=cluster,
                remembers=str(ours),
                hub=str(before),
                epoch=epoch,
            )

    async def alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """One change after the other, each on top of the one before; and to its end, even if who asked for it left:
        what is in the store and what is in memory stay the same.
        """

        async def one() -> T:
            async with self._changing:
                return await work()

        task = asyncio.create_task(one(), name="change of the registry")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)


def check_grants(may_export: tuple[str, ...], ranges: tuple[str, ...]) -> None:
    """Raise InvalidValue for patterns or ranges that the registry cannot hold."""
    refused = admit.patterns(may_export)
    if refused is not None:
        raise InvalidValue(refused.detail, "write <namespace>/<name>; '*' matches within one part")
    if len(networks(ranges)) > admit.MOST_RANGES:
        raise InvalidValue(f"{len(ranges)} ranges, at most {admit.MOST_RANGES} are allowed")


def _newest(offered: Bundle) -> AuthorityRow:
    """The authority with the highest epoch in it."""
    epoch, key = max((epoch_of(each.subject) or 0, spki_hash(public_key(each))) for each in offered.anchors)
    return AuthorityRow(key, epoch)
