"""The hub's half of the protocol: one relay an owner, one session a connected agent, and who owes what to whom.

It checks who says what, and invents nothing: a cluster changes what it owns within what the registry lets it say,
the registry's own facts are the only ones of the hub itself. Registry facts go first on every stream, so that nobody
judges a cluster by an outdated record. Nothing here waits: a session is woken when it has something to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from federation import admit
from federation.admit import Refused
from federation.model import HUB, Cluster, ExportSpec, Load, Member, Position
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item
from federation.sync.protocol import HIGHEST, Counts, Outbound
from federation.sync.relay import Refusal, Relay
from pki.bundle import Bundle

MOST_REFUSED = 1000
"""Refused keys of one owner that are remembered for people to see."""


class Session:
    """One agent's stream. `closed` says why nothing more may be said on it, None while it lives."""

    def __init__(
        self, exchange: Exchange, cluster: str, have: Mapping[str, Position], wake: Callable[[], None]
    ):
        self.cluster = cluster
        self.closed: str | None = None
        self._exchange = exchange
        self._wake = wake
        self._outbounds = {owner: Outbound.resume(at) for owner, at in have.items()}
        self._words: deque[bytes] = deque()
        self._beats: dict[str, bytes] = {}
        self._due = set(exchange.owners) - {cluster}

    def acknowledged(self, owner: str) -> Position:
        """How far this agent has applied the word of `owner`."""
        return self._outbounds.get(owner, Outbound()).cursor

    def receive(self, message: pb.FromAgent) -> pb.Report | None:
        """Take in what the agent says; a report is for whoever asked. Raises ProtocolViolation."""
        if self.closed is not None:
            return None
        match message.WhichOneof("message"):
            case "publish":
                self._exchange.publish(self, message.publish)
            case "ack":
                self._acknowledge(message.ack)
            case "beat":
                self._exchange.beat(self, message.beat)
            case "report":
                return message.report
            case "hello":
                raise ProtocolViolation(self.cluster, "a second hello")
        return None

    def take(self) -> bytes | None:
        """The next message to send, None if there is nothing to say now."""
        if self.closed is not None:
            return None
        if self._words:
            return self._words.popleft()
        if self._beats:
            return self._beats.pop(next(iter(self._beats)))
        registry = self._next(HUB)
        if registry is not None or self.acknowledged(HUB) < self._exchange.own.position:
            return registry
        for owner in sorted(self._due):
            if (batch := self._next(owner)) is not None:
                return batch
        return None

    def say(self, message: pb.FromHub) -> None:
        self._words.append(message.SerializeToString())
        self._wake()

    def pass_on(self, beat: pb.Beat) -> None:
        """Only the newest beat of an owner waits: an old one proves less."""
        self._beats[beat.owner] = pb.FromHub(beat=beat).SerializeToString()
        self._wake()

    def owed(self, owner: str, *, afresh: bool = False) -> None:
        """`owner` has something new; `afresh`: what it may say is not what it was."""
        if owner != self.cluster:
            if afresh and owner in self._outbounds:
                self._outbounds[owner] = self._outbounds[owner].afresh()
            self._due.add(owner)
            self._wake()

    def forget(self, owner: str) -> None:
        self._outbounds.pop(owner, None)
        self._due.discard(owner)

    def close(self, why: str) -> None:
        self.closed = why
        self._wake()

    def _acknowledge(self, have: pb.Have) -> None:
        outbound = self._outbounds.get(have.owner)
        if outbound is not None:
            at = wire.read_position(have.at, self.cluster)
            self._outbounds[have.owner] = outbound.acknowledged(self.cluster, at)
            self.owed(have.owner)

    def _next(self, owner: str) -> bytes | None:
        feed = self._exchange.feed(owner)
        batch = None
        if feed is not None and owner in self._due:
            outbound, batch = self._outbounds.get(owner, Outbound()).next(feed)
            self._outbounds[owner] = outbound
        if batch is None:
            self._due.discard(owner)
            return None
        return wire.relay(batch)


@dataclass(slots=True)
class Owner:
    """A member, its relay, the highest epoch that is on the hub's disk, and what was refused of it."""

    member: Member
    relay: Relay
    epoch: int = 0
    refused: dict[str, Refusal] = field(default_factory=dict)


class Exchange:
    """`own` is the hub's own feed. `vouch` says whether a bundle of a cluster is the one that the hub holds; `refused`
    is told of every entry that is not relayed.
    """

    def __init__(
        self,
        name: str,
        base: str,
        epoch: int,
        vouch: Callable[[str, Bundle], Refused | None],
        refused: Callable[[str, Refusal], None],
    ) -> None:
        self.name = name
        self.own = Feed(HUB, epoch)
        self.sessions: dict[str, Session] = {}
        self._base = base
        self._vouch = vouch
        self._tell_refused = refused
        self._owners: dict[str, Owner] = {}
        self._counts = Counts()

    @property
    def owners(self) -> tuple[str, ...]:
        """Everybody whose word is passed on, the hub first."""
        return (HUB, *self._owners)

    def feed(self, owner: str) -> Feed | None:
        """What is passed on of `owner`; None before its first listing is complete."""
        if owner == HUB:
            return self.own
        known = self._owners.get(owner)
        return None if known is None else known.relay.feed

    def highest(self, cluster: str) -> Position:
        """The furthest that is remembered of a cluster; seq 0 stands for an epoch without keys."""
        owner = self._owners[cluster]
        return max(Position(owner.epoch, 0), owner.relay.position)

    def epoch_reached(self, cluster: str, epoch: int) -> None:
        """The hub's disk holds that `cluster` has been in `epoch`."""
        owner = self._owners[cluster]
        owner.epoch = max(owner.epoch, epoch)

    def refused(self, cluster: str) -> tuple[Refusal, ...]:
        return tuple(self._owners[cluster].refused.values())

    def lag(self, cluster: str) -> int:
        """How many changes of `cluster` the slowest connected agent has not acknowledged."""
        feed = self.feed(cluster)
        if feed is None:
            return 0
        done = (each.acknowledged(cluster) for name, each in self.sessions.items() if name != cluster)
        return max((feed.seq - (at.seq if at.epoch == feed.epoch else 0) for at in done), default=0)

    # ---- the registry's facts ---------------------------------------------------------------------------------------

    def set_member(self, member: Member, epoch: int = 0) -> None:
        """Tell everybody what the registry says of a cluster, and judge again what the cluster has said."""
        owner = self._owners.get(member.name)
        if owner is None:
            owner = Owner(member, Relay(member.name, codec.tombstone))
            self._owners[member.name] = owner
        owner.member = member
        owner.epoch = max(owner.epoch, epoch)
        key = codec.key_of(member)
        self._publish_own(Item(key, self.own.seq + 1, codec.encode(key, self.own.seq + 1, member)))
        dropped = owner.relay.reconsider(lambda item: self._admit(owner, item))
        if dropped:
            self._refuse(owner, dropped)
            self._tell(member.name, afresh=True)

    def remove_member(self, name: str) -> None:
        """Tell everybody that the cluster left; cuts its stream and forgets what it said."""
        if self._owners.pop(name, None) is None:
            return
        seq = self.own.seq + 1
        key = f"member/{name}"
        self._publish_own(Item(key, seq, codec.tombstone(key, seq), gone=True))
        if (session := self.sessions.pop(name, None)) is not None:
            session.close("the cluster was removed from the federation")
        for each in self.sessions.values():
            each.forget(name)

    def rebase(self, epoch: int) -> None:
        """Begin a new epoch of the hub's own facts: somebody remembers more of them than this hub does."""
        self.own.epoch = epoch
        self._tell(HUB)

    def _publish_own(self, item: Item) -> None:
        self.own.put(item)
        self.own.advance(item.seq)
        self._tell(HUB)

    # ---- streams ----------------------------------------------------------------------------------------------------

    def open(
        self, cluster: str, have: Mapping[str, Position], now_ms: int, wake: Callable[[], None]
    ) -> Session:
        """A new stream of a member that has what it says in `have`. It takes over from an older one."""
        if (older := self.sessions.get(cluster)) is not None:
            older.close("a newer stream of this cluster took over")
        self._owners[cluster].relay.interrupted()
        known = {owner: at for owner, at in have.items() if owner in self.owners and owner != cluster}
        session = Session(self, cluster, known, wake)
        self.sessions[cluster] = session
        highest = wire.position(self.highest(cluster))
        session.say(pb.FromHub(welcome=pb.Welcome(hub=self.name, highest_of_you=highest, time_ms=now_ms)))
        return session

    def close(self, session: Session) -> None:
        """The stream ended. What its cluster said stays: silence is not emptiness."""
        if self.sessions.get(session.cluster) is session:
            del self.sessions[session.cluster]
            self._owners[session.cluster].relay.interrupted()

    def publish(self, session: Session, message: pb.Batch) -> None:
        """A cluster speaks: pass on what it may say, refuse the rest, and say how far it got."""
        if message.owner != session.cluster:
            raise ProtocolViolation(session.cluster, f"it speaks for {message.owner[:80]!r}")
        owner = self._owners[session.cluster]
        batch = wire.read_batch(message, session.cluster)
        if batch.full and owner.relay.gathering != batch.epoch:
            owner.refused.clear()
        for item in batch.items:
            owner.refused.pop(item.key, None)
        refusals = owner.relay.receive(batch, lambda item: self._admit(owner, item))
        self._refuse(owner, refusals)
        session.say(pb.FromHub(ack=wire.have(session.cluster, owner.relay.position)))
        self._tell(session.cluster)

    def beat(self, session: Session, beat: pb.Beat) -> None:
        """A cluster lives: pass it on if that is news."""
        if beat.owner != session.cluster or beat.count >= HIGHEST << 1:
            raise ProtocolViolation(session.cluster, "a beat of somebody else, or beyond all counting")
        if self._counts.rose(beat.owner, beat.count):
            for each in self.sessions.values():
                if each is not session:
                    each.pass_on(beat)

    def beat_own(self, count: int) -> None:
        """The hub itself lives."""
        beat = pb.Beat(owner=HUB, at=wire.position(self.own.position), count=count)
        for each in self.sessions.values():
            each.pass_on(beat)

    def _tell(self, owner: str, *, afresh: bool = False) -> None:
        for each in self.sessions.values():
            each.owed(owner, afresh=afresh)

    def _refuse(self, owner: Owner, refusals: tuple[Refusal, ...]) -> None:
        session = self.sessions.get(owner.member.name)
        for refusal in refusals:
            self._tell_refused(owner.member.name, refusal)
            if len(owner.refused) < MOST_REFUSED:
                owner.refused[refusal.key] = refusal
            if session is not None:
                said = pb.Refusal(
                    key=refusal.key, seq=refusal.seq, rule=refusal.why.rule, detail=refusal.why.detail
                )
                session.say(pb.FromHub(refusal=said))

    def _admit(self, owner: Owner, item: Item) -> Refused | None:
        fact = codec.decode(owner.member.name, 1, item.body, self._base)
        match fact:
            case Refused():
                return fact
            case ExportSpec():
                return admit.export(fact, owner.member)
            case Load():
                return admit.load(fact, owner.member)
            case Cluster():
                return admit.cluster(fact, owner.member)
            case Member():
                return Refused("owner", f"{owner.member.name} does not keep the registry")
            case _:
                return self._vouch(owner.member.name, fact)
