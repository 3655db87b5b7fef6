"""The hub's half without a network: who may speak on which stream, and what goes first."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from federation.admit import Refused
from federation.model import HUB, Cluster, Member, MemberState, Position
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.exchange import Exchange, Session
from federation.sync.relay import Refusal
from pki.spiffe import TrustDomain


def member(name: str, state: MemberState = MemberState.ACTIVE) -> Member:
    domain = TrustDomain.of_cluster(name, "mesh.example")
    joined = datetime(2026, 1, 1, tzinfo=UTC)
    return Member(name, domain, ("default/*",), (ip_network("10.0.0.0/8"),), joined, state, Position())


class Wakes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def exchange() -> Exchange:
    refusals: list[Refusal] = []
    exchange = Exchange(
        "hub.mesh.example",
        "mesh.example",
        1,
        lambda cluster, bundle: Refused("bundle", "no bundles here"),
        lambda cluster, refusal: refusals.append(refusal),
    )
    for name in ("east", "west"):
        exchange.set_member(member(name))
    return exchange


def opened(exchange: Exchange, cluster: str) -> Session:
    session = exchange.open(cluster, {}, 0, Wakes())
    assert said(session).WhichOneof("message") == "welcome"
    return session


def said(session: Session) -> pb.FromHub:
    message = session.take()
    assert message is not None
    return pb.FromHub.FromString(message)


def acknowledge(session: Session, owner: str, epoch: int, seq: int) -> None:
    session.receive(pb.FromAgent(ack=wire.have(owner, Position(epoch, seq))))


def publish(session: Session, owner: str, epoch: int = 1) -> None:
    cluster = Cluster(owner, "eu", "", (), Position())
    entry = pb.Entry.FromString(codec.encode("cluster", 1, cluster))
    batch = pb.Batch(owner=owner, epoch=epoch, to_seq=1, full=True, last=True, entries=[entry])
    session.receive(pb.FromAgent(publish=batch))


def test_the_registry_is_settled_before_anybody_is_heard(exchange: Exchange) -> None:
    east, west = opened(exchange, "east"), opened(exchange, "west")
    publish(east, "east")
    first = said(west).relay
    assert (first.owner, [entry.key for entry in first.entries]) == (HUB, ["member/east", "member/west"])
    assert west.take() is None, "the registry is not acknowledged yet"
    acknowledge(west, HUB, 1, 2)
    assert said(west).relay.owner == "east"
    assert west.take() is None


def test_an_owner_is_answered_and_not_told_what_it_said(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    publish(east, "east")
    answer = said(east).ack
    assert (answer.owner, wire.read_position(answer.at, "hub")) == ("east", Position(1, 1))
    assert said(east).relay.owner == HUB
    acknowledge(east, HUB, 1, 2)
    assert east.take() is None


def test_nobody_speaks_for_another(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    with pytest.raises(ProtocolViolation, match="speaks for 'west'"):
        publish(east, "west")
    with pytest.raises(ProtocolViolation, match="speaks for 'hub'"):
        publish(east, HUB)
    with pytest.raises(ProtocolViolation, match="a beat of somebody else"):
        east.receive(pb.FromAgent(beat=pb.Beat(owner="west", count=1)))
    assert exchange.feed("west") is None


def test_the_newest_stream_of_a_cluster_wins(exchange: Exchange) -> None:
    older = opened(exchange, "east")
    newer = opened(exchange, "east")
    assert older.closed == "a newer stream of this cluster took over"
    publish(older, "east")
    assert exchange.feed("east") is None
    assert older.take() is None
    exchange.close(older)
    assert exchange.sessions == {"east": newer}


def test_only_the_newest_beat_waits_and_an_echo_is_not_passed_on(exchange: Exchange) -> None:
    east, west = opened(exchange, "east"), opened(exchange, "west")
    for count in (5, 6, 6, 4):
        east.receive(pb.FromAgent(beat=pb.Beat(owner="east", count=count)))
    assert said(west).beat.count == 6
    assert said(west).WhichOneof("message") == "relay"
    west.receive(pb.FromAgent(beat=pb.Beat(owner="west", count=1)))
    assert said(east).beat.owner == "west"


def test_a_second_hello_is_a_violation(exchange: Exchange) -> None:
    with pytest.raises(ProtocolViolation, match="second hello"):
        opened(exchange, "east").receive(pb.FromAgent(hello=pb.Hello(version=1)))


def test_a_removed_member_is_cut_and_the_others_are_told(exchange: Exchange) -> None:
    east, west = opened(exchange, "east"), opened(exchange, "west")
    said(west)
    acknowledge(west, HUB, 1, 2)
    exchange.remove_member("east")
    assert east.closed == "the cluster was removed from the federation"
    (entry,) = said(west).relay.entries
    assert (entry.key, entry.WhichOneof("value")) == ("member/east", "gone")
    assert exchange.owners == (HUB, "west")


def test_an_answer_for_an_owner_that_was_never_sent_is_ignored(exchange: Exchange) -> None:
    west = opened(exchange, "west")
    acknowledge(west, "nobody", 9, 9)
    assert west.acknowledged("nobody") == Position()


def test_a_lag_is_what_the_slowest_has_not_acknowledged(exchange: Exchange) -> None:
    east, west = opened(exchange, "east"), opened(exchange, "west")
    said(west)
    acknowledge(west, HUB, 1, 2)
    publish(east, "east")
    assert exchange.lag("east") == 1
    said(west)
    acknowledge(west, "east", 1, 1)
    assert exchange.lag("east") == 0
