"""The hub's half of the protocol: one relay an owner, one session a connected agent, and who owes what to whom.

It checks who says what, and invents nothing: a cluster changes what it owns within what the registry lets it say,
the registry's own facts are the only ones of the hub itself. Nothing here waits; what may take long is done step by
step, so that whoever asked for it can let others run between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from federation import admit
from federation.admit import Refused
from federation.banned import Ban
from federation.heads import Heads
from federation.held import Held
from federation.model import HUB, Cluster, ExportSpec, Load, Member, Position
from federation.root_request import RootRequest
from federation.roots import Roots
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Feed, Item
from federation.sync.protocol import HIGHEST, REMOVED, Batch, Counts, beat_epoch
from federation.sync.refusals import Refusal, Refusals
from federation.sync.relay import Relay
from federation.sync.session import Session
from pki.bundle import Bundle


@dataclass(slots=True)
class Owner:
    """A member, its relay, and the highest epoch that is on the hub's disk."""

    member: Member
    relay: Relay
    epoch: int = 0


class Exchange:
    """`own` is the hub's own feed. `vouch` says whether a bundle, or heads of journals, of a cluster are those that the
    hub holds; `refused` is told, batch by batch, what is not relayed.
    """

    def __init__(
        self,
        name: str,
        base: str,
        epoch: int,
        vouch: Callable[[str, Bundle | Heads], Refused | None],
        refused: Callable[[str, Refusals], None],
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
        """The furthest that is remembered of a cluster; seq 0 stands for an epoch of which all is to be said."""
        owner = self._owners[cluster]
        return max(Position(owner.epoch, 0), owner.relay.resume)

    def epoch_reached(self, cluster: str, epoch: int) -> None:
        """The hub's disk holds that `cluster` has been in `epoch`."""
        owner = self._owners[cluster]
        owner.epoch = max(owner.epoch, epoch)

    def refused(self, cluster: str) -> tuple[Refusal, ...]:
        """What is not relayed of a cluster; of many only the first, and how many others there are."""
        return tuple(self._owners[cluster].relay.refused)

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
        rights = (owner.member.may_export, owner.member.ranges)
        owner.member = member
        owner.epoch = max(owner.epoch, epoch)
        key = codec.key_of(member)
        self._publish_own(Item(key, self.own.seq + 1, codec.encode(key, self.own.seq + 1, member)))
        if (member.may_export, member.ranges) != rights:
            self._reconsider(owner)

    def remove_member(self, name: str) -> None:
        """Tell everybody that the cluster left; cuts its stream and forgets what it said."""
        if self._owners.pop(name, None) is None:
            return
        seq = self.own.seq + 1
        key = f"member/{name}"
        self._publish_own(Item(key, seq, codec.tombstone(key, seq), gone=True))
        if (session := self.sessions.pop(name, None)) is not None:
            session.close(REMOVED)
        for each in self.sessions.values():
            each.forget(name)

    def say(self, fact: Heads | Held | Ban | Bundle | Roots) -> None:
        """Tell everybody another fact of the hub itself."""
        key, seq = codec.key_of(fact), self.own.seq + 1
        self._publish_own(Item(key, seq, codec.encode(key, seq, fact)))

    def take_back(self, key: str) -> None:
        """Tell everybody that the hub's own fact of this key counts no more."""
        seq = self.own.seq + 1
        self._publish_own(Item(key, seq, codec.tombstone(key, seq), gone=True))

    def cut(self, name: str, why: str) -> None:
        """End the stream of a cluster that may have another one. What it said stays."""
        if (session := self.sessions.get(name)) is not None:
            session.close(why)

    def rebase(self, epoch: int) -> None:
        """Begin a new epoch of the hub's own facts: somebody remembers more of them than this hub does."""
        self.own.epoch = epoch
        self._tell(HUB)

    def _reconsider(self, owner: Owner) -> None:
        refused = Refusals()
        refused.add(owner.relay.reconsider(partial(self._admit, owner)))
        if refused:
            self._refuse(owner, refused)
            self._tell(owner.member.name, afresh=True)

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
        session = Session(cluster, known, self.owners, self.feed, wake)
        self.sessions[cluster] = session
        highest = wire.position(self.highest(cluster))
        welcome = pb.Welcome(hub=self.name, highest_of_you=highest, time_ms=now_ms)
        session.say(("welcome", cluster), pb.FromHub(welcome=welcome))
        return session

    def close(self, session: Session) -> None:
        """The stream ended. What its cluster said stays: silence is not emptiness."""
        if self.sessions.get(session.cluster) is session:
            del self.sessions[session.cluster]
            self._owners[session.cluster].relay.interrupted()

    def receive(self, session: Session, message: pb.FromAgent) -> None:
        """Take in an acknowledgement or a beat. Raises ProtocolViolation."""
        match message.WhichOneof("message"):
            case "ack" if session.closed is None:
                session.acknowledge(message.ack)
            case "beat" if session.closed is None:
                self.beat(session, message.beat)
            case "hello":
                raise ProtocolViolation(session.cluster, "a second hello")

    def publish(self, session: Session, pieces: Iterator[Batch]) -> Generator[None]:
        """A cluster speaks: pass on what it may say, refuse the rest, and say how far it got; piece by piece.

        Raises ProtocolViolation. A stream that is closed meanwhile is not heard any further; to be closed, so that what
        was taken in until then is told.
        """
        cluster = session.cluster
        owner = self._owners.get(cluster)
        refused = Refusals()
        try:
            for piece in pieces:
                if session.closed is not None or owner is None:
                    break
                if piece.owner != cluster:
                    raise ProtocolViolation(cluster, f"it speaks for {piece.owner[:80]!r}")
                received = owner.relay.receive(piece, partial(self._admit, owner))
                refused.add(received.refused)
                self._tell(cluster, afresh=received.afresh)
                yield
        finally:
            if refused and owner is not None and self._owners.get(cluster) is owner:
                self._refuse(owner, refused)
        if owner is not None and self._owners.get(cluster) is owner:
            session.say(("ack", cluster), pb.FromHub(ack=wire.have(cluster, owner.relay.position)))

    def beat(self, session: Session, beat: pb.Beat) -> None:
        """A cluster lives: pass it on if that is news.

        Its word may still be in the epoch before. A count from further ahead is none: it would outdo all that come
        later, and those of another cluster that joins under this name.
        """
        if beat.owner != session.cluster or beat.count >= HIGHEST << 1:
            raise ProtocolViolation(session.cluster, "a beat of somebody else, or beyond all counting")
        if beat_epoch(beat.count) > self._owners[session.cluster].epoch + 1:
            return
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

    def _refuse(self, owner: Owner, refused: Refusals) -> None:
        self._tell_refused(owner.member.name, refused)
        session = self.sessions.get(owner.member.name)
        if session is not None:
            session.refuse(refused)

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
            case Member() | Ban() | Roots():
                return Refused("owner", f"{owner.member.name} does not keep the registry")
            case Held() | RootRequest():
                return None
            case _:
                return self._vouch(owner.member.name, fact)
