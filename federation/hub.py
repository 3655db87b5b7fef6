"""The single writer of the hub: who is a member, what each may say, who is connected.

It relays facts and takes no decision about traffic. What must survive is in the store before anybody hears of it: a
member, an epoch, a newer bundle. What is relayed is memory only; its owners repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

import structlog
from cryptography import x509

from federation.admit import Refused
from federation.banned import Ban, banned_cluster
from federation.bans import BanStore
from federation.clock import Clock
from federation.errors import Unreachable
from federation.evidence import Evidence, Weighed
from federation.heads import Heads, JournalHead
from federation.held import Held
from federation.inputs import EAST_WEST
from federation.member_row import MemberRow
from federation.membership import Membership
from federation.model import HUB, Member, MemberState, Position
from federation.questions import Answer, Question, Questions
from federation.registry import Registry
from federation.root_request import RootRequest
from federation.roots import Roots
from federation.sync import channel, codec, forms, wire
from federation.sync import sync_pb2 as pb
from federation.sync.codec import BUNDLE, HELD, JOURNAL, REQUEST, Fact
from federation.sync.errors import ProtocolViolation
from federation.sync.exchange import Exchange
from federation.sync.protocol import NOTHING, REMOVED, beat_count
from federation.sync.refusals import Refusal, Refusals
from federation.sync.session import Session
from federation.telemetry import HubMetrics
from federation.witness import Witness
from pki import bundle as bundles
from pki.bundle import Bundle, Rejected, accept, content
from pki.spiffe import SpiffeId, TrustDomain

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """A member as the hub sees it now.

    `silence` is seconds since its agent was last heard, None if not since the hub started; `said` what is relayed of
    it; `refused` what is not; `lag` how many changes the slowest connected agent has not acknowledged;
    `waits_for_root` that a ceremony has yet to sign its authority; `banned` is as `Hub.why_out`.
    """

    member: Member
    connected: bool
    silence: float | None
    said: tuple[Fact, ...]
    refused: tuple[Refusal, ...]
    lag: int
    waits_for_root: bool = False
    banned: str = ""


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
        self._roots = roots
        self._clock = clock
        self._metrics = metrics
        self._exchange = Exchange(str(TrustDomain.of_hub(base)), base, 0, self._vouch, self._refused)
        self.registry = registry
        self.membership = Membership(registry, roots, base, self._exchange, clock)
        self._told_heads: tuple[JournalHead, ...] = ()
        self._told_trust: dict[TrustDomain, Bundle | Roots] = {}
        self.on_request: Callable[[RootRequest], None] = lambda _: None
        self.on_withdrawn: Callable[[str], None] = lambda _: None
        self._heard: dict[str, float] = {}
        self._evidence = Evidence()
        self._questions = Questions()
        self.bans = BanStore(registry.store, base, clock.now)
        self.bans.on_change(self._ban_changed)
        self.witness = Witness(registry.store)
        metrics.members.set_function(lambda: len(registry.rows))
        metrics.streams.set_function(lambda: len(self._exchange.sessions))

    async def start(self) -> None:
        """Take up the registry, in a new epoch of its facts. Raises StoreError or FederationError."""
        await self.membership.start()
        await self.bans.load()
        await self.witness.load()
        for ban in self.bans.bans.values():
            self._exchange.say(ban)

    async def run(self) -> None:
        """Tell connected agents that the hub lives, for ever."""
        for beats in count(1):
            self._exchange.beat_own(beat_count(self._exchange.own.epoch, beats))
            if self.membership.is_early:
                self.membership.tell_held()
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

    def disbelieved(self) -> tuple[str, ...]:
        """The other members, each with the reason why nobody goes by what they say."""
        found = ((row, banned_cluster(self.bans.bans, row.name)) for row in self.registry.rows.values())
        return tuple(
            f"{row.name}: {'it is quarantined' if ban is None else 'it is banned'}"
            for row, ban in found
            if ban is not None or row.state is MemberState.QUARANTINED
        )

    def held(self) -> dict[str, Held]:
        """Which versions of bundles each member says that it goes by, and whose word it presents."""
        found = ((name, self.held_by(name)) for name in self.registry.rows)
        return {name: held for name, held in found if held is not None}

    def held_by(self, name: str) -> Held | None:
        """The same of one member; None if it does not say."""
        feed = self._exchange.feed(name)
        item = None if feed is None else feed.items.get(HELD)
        if feed is None or item is None or item.gone:
            return None
        fact = codec.decode(name, feed.epoch, item.body, self.base)
        return fact if isinstance(fact, Held) else None

    def heard(self, ours: Bundle) -> Weighed:
        """The same as far as it counts for who holds `ours`, and why the rest does not."""
        bundles_of = self.membership.bundles()
        return self._evidence.weigh(
            self.held(), lambda name: bundles_of.get(TrustDomain.of_cluster(name, self.base)), ours
        )

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

    async def remove_member(self, name: str) -> bool:
        """End a membership: its stream is cut, its tokens are void, everybody is told. False if there is none. Raises
        StoreError.
        """
        removed = await self.membership.remove(name)
        if removed:
            self._heard.pop(name, None)
            self._metrics.entries.clear()
        return removed

    def _known(self, row: MemberRow) -> Known:
        return Known(
            member=row.member(self.base),
            connected=self.is_connected(row.name),
            silence=self.silence(row.name),
            said=self.said(row.name),
            refused=self._exchange.refused(row.name),
            lag=self._exchange.lag(row.name),
            waits_for_root=row.waits,
            banned=self.why_out(TrustDomain.of_cluster(row.name, self.base)),
        )

    def is_connected(self, name: str) -> bool:
        """Whether the agent of a member has a stream to us."""
        return name in self._exchange.sessions

    def silence(self, name: str) -> float | None:
        """Seconds since it was last heard; None: not since this hub started."""
        heard = self._heard.get(name)
        return None if heard is None else self._clock.monotonic() - heard

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

    def why_banned(self, identity: SpiffeId, key: str) -> str | None:
        """As `BanStore.why_banned`."""
        return self.bans.why_banned(identity, key)

    def why_out(self, domain: TrustDomain) -> str:
        """Why a cluster, its agent or its gateways are banned; empty if none of them is."""
        identities = SpiffeId.agent(domain), SpiffeId.gateway(domain, EAST_WEST)
        return next((why for one in identities if (why := self.why_banned(one, ""))), "")

    async def open(self, cluster: str, have: Mapping[str, Position], wake: Callable[[], None]) -> Session:
        """A stream of an agent that was verified. Raises ProtocolViolation, StoreError."""
        await self.membership.outrun(cluster, have.get(HUB, NOTHING))
        if self.registry.find(cluster) is None:
            raise ProtocolViolation(cluster, REMOVED)
        session = self._exchange.open(cluster, have, forms.milliseconds(self._clock.now()), wake)
        self._heard[cluster] = self._clock.monotonic()
        return session

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
            asks = (item := feed.items.get(REQUEST)) is not None and not item.gone
            if batch.full and batch.last and feed.whole and not asks:
                await self._asks_no_more(session.cluster)

    async def _keep(self, session: Session, batch: pb.Batch) -> None:
        """Make durable what must be, before anybody hears of it: a new epoch, a newer bundle."""
        cluster = session.cluster
        await self.membership.reached(session, batch.epoch)
        for entry in batch.entries:
            if entry.key in (BUNDLE, JOURNAL, REQUEST):
                fact = codec.decode(cluster, max(batch.epoch, 1), entry.SerializeToString(), self.base)
                if isinstance(fact, Bundle):
                    await self.membership.offered(cluster, fact)
                elif isinstance(fact, RootRequest):
                    self.on_request(fact)
                elif entry.key == REQUEST and entry.HasField("gone"):
                    await self._asks_no_more(cluster)
                elif isinstance(fact, Heads):
                    await self.membership.alone(
                        partial(self.witness.take, fact, self.membership.authorities(cluster))
                    )

    async def _asks_no_more(self, cluster: str) -> None:
        """It said so, maybe while this hub was down: then its next listing comes without the request."""
        self.on_withdrawn(cluster)
        await self.membership.request_withdrawn(cluster)

    def _vouch(self, cluster: str, offered: Bundle | Heads) -> Refused | None:
        """Only the bundle that the registry holds is relayed, and only heads that contradict nothing."""
        if isinstance(offered, Heads):
            return self.witness.doubt(offered, self.membership.authorities(cluster))
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
