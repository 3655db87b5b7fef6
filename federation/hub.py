"""The single writer of the hub: who is a member, what each may say, who is connected.

It relays facts and takes no decision about traffic. What must survive is in the store before anybody hears of it: a
member, an epoch, a newer bundle. What is relayed is memory only; its owners repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

import msgspec
import structlog
from cryptography import x509

from federation import admit
from federation.admit import Refused
from federation.banned import Ban, banned_cluster
from federation.bans import BanStore
from federation.clock import Clock
from federation.errors import InvalidValue, Unreachable
from federation.heads import Heads, JournalHead
from federation.held import Held
from federation.model import HUB, Member, MemberState, Position
from federation.questions import Answer, Question, Questions
from federation.registry import AuthorityRow, MemberRow, Registry, networks
from federation.root_request import RootRequest
from federation.roots import Roots
from federation.sync import channel, codec, forms, wire
from federation.sync import sync_pb2 as pb
from federation.sync.codec import BUNDLE, HELD, JOURNAL, REQUEST, Fact
from federation.sync.errors import ProtocolViolation
from federation.sync.exchange import Exchange
from federation.sync.protocol import MOST_EPOCHS_AHEAD, NOTHING, REMOVED, beat_count, next_epoch
from federation.sync.refusals import Refusal, Refusals
from federation.sync.session import Session
from federation.telemetry import HubMetrics
from federation.witness import Witness
from pki import bundle as bundles
from pki.algorithms import spki_hash
from pki.bundle import Bundle, Rejected, accept, content, is_rooted
from pki.certificate import der, load_der, public_key
from pki.profiles import epoch_of
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import TokenRecord

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """A member as the hub sees it now.

    `silence` is seconds since its agent was last heard, None if not since the hub started; `said` what is relayed of
    it; `refused` what is not; `lag` how many changes the slowest connected agent has not acknowledged;
    `waits_for_root` that a ceremony has yet to sign its authority.
    """

    member: Member
    connected: bool
    silence: float | None
    said: tuple[Fact, ...]
    refused: tuple[Refusal, ...]
    lag: int
    waits_for_root: bool = False


class Hub:
    """`start` it before anything else. First bundles are proved by any of `roots`."""

    def __init__(
        self,
        registry: Registry,
        roots: Callable[[], Sequence[x509.Certificate]],
        base: str,
        clock: Clock,
        metrics: HubMetrics,
    ) -> None:
        self.base = base
        self.registry = registry
        self._roots = roots
        self._clock = clock
        self._metrics = metrics
        self._exchange = Exchange(str(TrustDomain.of_hub(base)), base, 0, self._vouch, self._refused)
        self._trusted: dict[TrustDomain, Bundle] = {}
        self._anchors = b""
        self._told_heads: tuple[JournalHead, ...] = ()
        self._told_held = Held(HUB)
        self._told_trust: dict[TrustDomain, Bundle | Roots] = {}
        self.on_request: Callable[[RootRequest], None] = lambda _: None
        self._heard: dict[str, float] = {}
        self._questions = Questions()
        self.bans = BanStore(registry.store, base, clock.now)
        self.bans.on_change(self._ban_changed)
        self.witness = Witness(registry.store)
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Take up the registry, in a new epoch of its facts. Raises StoreError or FederationError."""
        await self.registry.load()
        await self.bans.load()
        await self.witness.load()
        epoch = next_epoch(HUB, self.registry.epoch(HUB), NOTHING)
        await self.registry.raise_epoch(HUB, epoch)
        self._exchange.rebase(epoch)
        for row in self.registry.rows.values():
            self._take_up(row)
        for ban in self.bans.bans.values():
            self._exchange.say(ban)
        self._tell_held()

    async def run(self) -> None:
        """Tell connected agents that the hub lives, for ever."""
        for beats in count(1):
            self._exchange.beat_own(beat_count(self._exchange.own.epoch, beats))
            await self._clock.sleep(channel.BEAT)

    def tell_heads(self, heads: tuple[JournalHead, ...]) -> None:
        """How far the hub's own journals have come, for every agent to keep."""
        if heads != self._told_heads:
            self._exchange.say(Heads(HUB, heads))
            self._told_heads = heads

    def tell_trust(self, anchors: Bundle | Roots) -> None:
        """By which anchors this hub is recognised, or which roots there are, for every agent to go by."""
        domain = (anchors.bundle if isinstance(anchors, Roots) else anchors).trust_domain
        if anchors != self._told_trust.get(domain):
            self._exchange.say(anchors)
            self._told_trust[domain] = anchors

    def believers(self) -> frozenset[str]:
        """Everybody who goes by what this hub tells: the members that are trusted."""
        return frozenset(
            row.name
            for row in self.registry.rows.values()
            if row.state is not MemberState.QUARANTINED and banned_cluster(self.bans.bans, row.name) is None
        )

    def held(self) -> dict[str, Held]:
        """Which versions of bundles each member says that it goes by, and whose word it presents."""
        found = {}
        for name in self.registry.rows:
            feed = self._exchange.feed(name)
            item = None if feed is None else feed.items.get(HELD)
            if feed is not None and item is not None and not item.gone:
                fact = codec.decode(name, feed.epoch, item.body, self.base)
                if isinstance(fact, Held):
                    found[name] = fact
        return found

    def _tell_held(self) -> None:
        """Which bundles are in the registry, and so believed by this hub."""
        versions = [bundles.decode(row.bundle) for row in self.registry.rows.values() if row.bundle]
        held = Held(HUB, tuple(sorted((each.trust_domain.name, *each.version) for each in versions)))
        if held != self._told_held:
            self._exchange.say(held)
            self._told_held = held

    def _ban_changed(self, ban: Ban, in_force: bool) -> None:
        if in_force:
            self._exchange.say(ban)
        else:
            self._exchange.take_back(ban.key)

    # ---- members ----------------------------------------------------------------------------------------------------

    def members(self) -> tuple[Known, ...]:
        """Every member, in the order of names."""
        return tuple(self._known(row) for row in self.registry.rows.values())

    def member(self, name: str) -> Known | None:
        row = self.registry.find(name)
        return None if row is None else self._known(row)

    async def add_member(self, row: MemberRow, token: TokenRecord) -> bool:
        """A cluster joined, or came back with another key; False if its token was taken away meanwhile. Raises
        StoreError; then it has not.
        """
        return await self._change(lambda: self._add(row, token))

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

    async def set_member(
        self,
        name: str,
        may_export: tuple[str, ...] | None = None,
        ranges: tuple[str, ...] | None = None,
        state: MemberState | None = None,
    ) -> Member | None:
        """Change what is not None; None if there is no such member. Raises FederationError for what cannot be."""
        wanted = {"may_export": may_export, "ranges": ranges, "state": state}
        given = {setting: value for setting, value in wanted.items() if value is not None}
        return await self._change(lambda: self._set(name, given))

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
        return await self._change(lambda: self._root_signed(name, rooted))

    async def _root_signed(self, name: str, rooted: x509.Certificate) -> bool:
        row = self.registry.find(name)
        if row is None or not row.waits or not self._is_rooted(row, rooted):
            return False
        changed = msgspec.structs.replace(row, rooted=der(rooted), request=b"")
        await self.registry.put(changed)
        self._take_up(changed)
        log.info("the root signed the authority of a cluster", cluster=name)
        return True

    def _is_rooted(self, row: MemberRow, rooted: x509.Certificate) -> bool:
        return any(is_rooted(load_der(row.anchor), rooted, root) for root in self._roots())

    async def remove_member(self, name: str) -> bool:
        """End a membership: its stream is cut, its tokens are void, everybody is told. False if there is none."""
        return await self._change(lambda: self._remove(name))

    async def _remove(self, name: str) -> bool:
        if self.registry.find(name) is None:
            return False
        # Whoever joins under this name begins an epoch beyond all that was said, or counted, under it.
        await self.registry.raise_epoch(name, self._exchange.highest(name).epoch + 1)
        await self.registry.remove(name)
        self._exchange.remove_member(name)
        self._heard.pop(name, None)
        self._trust(TrustDomain.of_cluster(name, self.base), None)
        self._tell_held()
        self._metrics.entries.clear()
        self._count()
        log.info("cluster removed", cluster=name)
        return True

    async def _change(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """One change after the other, each on top of the one before; and to its end, even if who asked for it left:
        what is in the store and what is in memory stay the same.
        """

        async def alone() -> T:
            async with self._changing:
                return await work()

        task = asyncio.create_task(alone(), name="change of the registry")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def _take_up(self, row: MemberRow) -> None:
        self._exchange.set_member(row.member(self.base), self.registry.epoch(row.name))
        trusted = row.trusted(self.base)
        self._trust(trusted.trust_domain, trusted)
        self._count()

    def _trust(self, domain: TrustDomain, bundle: Bundle | None) -> None:
        """Whole values replace whole values: another thread reads them during handshakes."""
        others = {known: each for known, each in self._trusted.items() if known != domain}
        self._trusted = others if bundle is None else {**others, domain: bundle}
        self._anchors = b"".join(each.pem() for each in self._trusted.values())

    def _known(self, row: MemberRow) -> Known:
        heard = self._heard.get(row.name)
        return Known(
            member=row.member(self.base),
            connected=row.name in self._exchange.sessions,
            silence=None if heard is None else self._clock.monotonic() - heard,
            said=self.said(row.name),
            refused=self._exchange.refused(row.name),
            lag=self._exchange.lag(row.name),
            waits_for_root=row.waits,
        )

    def said(self, name: str) -> tuple[Fact, ...]:
        """What is relayed of a member, decoded."""
        feed = self._exchange.feed(name)
        if feed is None:
            return ()
        found = (
            codec.decode(name, feed.epoch, each.body, self.base)
            for each in feed.items.values()
            if not each.gone
        )
        return tuple(fact for fact in found if not isinstance(fact, Refused))

    # ---- streams ----------------------------------------------------------------------------------------------------

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

    def why_banned(self, identity: SpiffeId, key: str) -> str | None:
        """As `BanStore.why_banned`."""
        return self.bans.why_banned(identity, key)

    async def open(self, cluster: str, have: Mapping[str, Position], wake: Callable[[], None]) -> Session:
        """A stream of an agent that was verified. Raises ProtocolViolation, StoreError."""
        ours = have.get(HUB, NOTHING)
        if ours > self._exchange.own.position:
            await self._change(lambda: self._outrun(cluster, ours))
        if self.registry.find(cluster) is None:
            raise ProtocolViolation(cluster, REMOVED)
        session = self._exchange.open(cluster, have, forms.milliseconds(self._clock.now()), wake)
        self._heard[cluster] = self._clock.monotonic()
        self._count()
        return session

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

    async def receive(self, session: Session, message: pb.FromAgent) -> None:
        """What an agent says. Raises ProtocolViolation, StoreError."""
        match message.WhichOneof("message"):
            case "publish":
                await self._published(session, message.publish)
            case "report":
                self._questions.answered(session, message.report)
            case _:
                self._exchange.receive(session, message)
        if session.closed is None:
            self._heard[session.cluster] = self._clock.monotonic()

    def close(self, session: Session) -> None:
        """The stream ended. What its cluster said stays."""
        self._exchange.close(session)
        self._questions.ended(session)
        self._count()

    async def _published(self, session: Session, batch: pb.Batch) -> None:
        """Take a batch in piece by piece, so that nobody has to wait for a long one."""
        pieces = wire.read_batch(batch, session.cluster)
        if batch.owner == session.cluster:
            await self._keep(session, batch)
        with closing(self._exchange.publish(session, pieces)) as steps:
            for _ in steps:
                await asyncio.sleep(0)
        feed = self._exchange.feed(session.cluster)
        if session.closed is None and feed is not None:
            self._metrics.entries.labels(session.cluster).set(len(feed.items))

    async def _keep(self, session: Session, batch: pb.Batch) -> None:
        """Make durable what must be, before anybody hears of it: a new epoch, a newer bundle."""
        cluster = session.cluster
        if batch.epoch > self.registry.epoch(cluster):
            await self._change(lambda: self._reached(session, batch.epoch))
        for entry in batch.entries:
            if entry.key in (BUNDLE, JOURNAL, REQUEST):
                fact = codec.decode(cluster, max(batch.epoch, 1), entry.SerializeToString(), self.base)
                if isinstance(fact, Bundle):
                    await self._change(partial(self._offered, cluster, fact))
                elif isinstance(fact, RootRequest):
                    self.on_request(fact)
                elif isinstance(fact, Heads):
                    await self._change(partial(self.witness.take, fact, self._authorities(cluster)))

    async def keep_successor(
        self, name: str, changed: Callable[[MemberRow], MemberRow | None], newest: AuthorityRow
    ) -> None:
        """What the root signed for the authority that follows, or is to sign. Raises StoreError."""

        async def keep() -> None:
            row = self.registry.find(name)
            if row is not None and (after := changed(row)) is not None:
                await self.registry.put(after, newest)
                self._take_up(after)

        await self._change(keep)

    async def _reached(self, session: Session, epoch: int) -> None:
        cluster, known = session.cluster, self.registry.epoch(session.cluster)
        if epoch > known + MOST_EPOCHS_AHEAD:
            raise ProtocolViolation(cluster, f"epoch {epoch}, and its last one was {known}")
        await self.registry.raise_epoch(cluster, epoch)
        if session.closed is None:
            self._exchange.epoch_reached(cluster, epoch)

    async def _offered(self, cluster: str, offered: Bundle) -> None:
        row = self.registry.find(cluster)
        if row is None:
            return
        previous = None if row.bundle is None else bundles.decode(row.bundle)
        outcome = accept(previous, offered, *self._roots())
        if isinstance(outcome, Rejected) or not outcome.changed:
            return
        changed = msgspec.structs.replace(row, bundle=bundles.encode(offered))
        if row.key not in (kept := [spki_hash(public_key(each)) for each in offered.anchors]):
            # A rotation is over: whoever comes back under this name comes with the key that is there now.
            changed = msgspec.structs.replace(
                changed, key=kept[-1], epoch=epoch_of(offered.anchors[-1].subject) or row.epoch
            )
        await self.registry.put(changed)
        self._trust(offered.trust_domain, offered)
        self._tell_held()
        log.info("trust bundle accepted", cluster=cluster, sequence=offered.sequence)

    def _authorities(self, cluster: str) -> frozenset[str]:
        """The keys (SPKI hashes) of the authorities in the bundle that is held of a cluster."""
        held = self._trusted.get(TrustDomain.of_cluster(cluster, self.base))
        return frozenset(spki_hash(public_key(anchor)) for anchor in held.anchors) if held else frozenset()

    def _vouch(self, cluster: str, offered: Bundle | Heads) -> Refused | None:
        """Only the bundle that the registry holds is relayed, and only heads that contradict nothing."""
        if isinstance(offered, Heads):
            return self.witness.doubt(offered, self._authorities(cluster))
        row = self.registry.find(cluster)
        held = None if row is None or row.bundle is None else bundles.decode(row.bundle)
        if held is not None and content(held) == content(offered):
            return None
        outcome = accept(held, offered, *self._roots())
        why = str(outcome) if isinstance(outcome, Rejected) else "it is not the one that is held"
        return Refused("bundle", f"the bundle {offered.sequence} of {cluster}: {why}")

    def _refused(self, cluster: str, refused: Refusals) -> None:
        for rule, times in refused.rules.items():
            self._metrics.refusals.labels(cluster, rule).inc(times)
        log.warning("entries refused", cluster=cluster, count=len(refused), first=refused.first())

    async def ask(self, cluster: str, question: Question, seconds: float = 5.0) -> Answer:
        """What the agent of `cluster` answers. Raises Unreachable."""
        session = self._exchange.sessions.get(cluster)
        if session is None:
            raise Unreachable(f"the agent of {cluster}", "it is not connected to this hub")
        return await self._questions.ask(session, question, seconds)

    def _count(self) -> None:
        self._metrics.members.set(len(self.registry.rows))
        self._metrics.streams.set(len(self._exchange.sessions))


def check_grants(may_export: tuple[str, ...], ranges: tuple[str, ...]) -> None:
    """Raise InvalidValue for patterns or ranges that the registry cannot hold."""
    refused = admit.patterns(may_export)
    if refused is not None:
        raise InvalidValue(refused.detail, "write <namespace>/<name>; '*' matches within one part")
    if len(networks(ranges)) > admit.MOST_RANGES:
        raise InvalidValue(f"{len(ranges)} ranges, at most {admit.MOST_RANGES} are allowed")
