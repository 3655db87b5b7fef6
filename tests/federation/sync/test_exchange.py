"""The hub's half without a network: who may speak on which stream, and what goes first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from federation.admit import Refused
from federation.model import HUB, Cluster, Load, Member, MemberState, Position, Service
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.errors import ProtocolViolation
from federation.sync.exchange import Exchange
from federation.sync.protocol import HIGHEST, beat_count
from federation.sync.refusals import MOST_KEPT, Refusals
from federation.sync.session import Session
from pki.spiffe import TrustDomain

ECHO = Service("default", "echo")


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
    return exchange_of(lambda cluster, refused: None)


def exchange_of(refused: Callable[[str, Refusals], None]) -> Exchange:
    exchange = Exchange(
        "hub.mesh.example",
        "mesh.example",
        1,
        lambda cluster, bundle: Refused("bundle", "no bundles here"),
        refused,
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
    session.acknowledge(wire.have(owner, Position(epoch, seq)))


def publish(exchange: Exchange, session: Session, owner: str, epoch: int = 1) -> None:
    cluster = Cluster(owner, "eu", "", (), Position())
    entry = pb.Entry.FromString(codec.encode("cluster", 1, cluster))
    batch = pb.Batch(owner=owner, epoch=epoch, to_seq=1, full=True, last=True, entries=[entry])
    take_in(exchange, session, batch)


def take_in(exchange: Exchange, session: Session, batch: pb.Batch) -> int:
    """How many steps it took."""
    return sum(1 for _ in exchange.publish(session, wire.read_batch(batch, session.cluster)))


def test_the_registry_is_settled_before_anybody_is_heard(exchange: Exchange) -> None:
    east, west = opened(exchange, "east"), opened(exchange, "west")
    publish(exchange, east, "east")
    first = said(west).relay
    assert (first.owner, [entry.key for entry in first.entries]) == (HUB, ["member/east", "member/west"])
    assert west.take() is None, "the registry is not acknowledged yet"
    acknowledge(west, HUB, 1, 2)
    assert said(west).relay.owner == "east"
    assert west.take() is None


def test_an_owner_is_answered_and_not_told_what_it_said(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    publish(exchange, east, "east")
    answer = said(east).ack
    assert (answer.owner, wire.read_position(answer.at, "hub")) == ("east", Position(1, 1))
    assert said(east).relay.owner == HUB
    acknowledge(east, HUB, 1, 2)
    assert east.take() is None


def test_nobody_speaks_for_another(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    with pytest.raises(ProtocolViolation, match="speaks for 'west'"):
        publish(exchange, east, "west")
    with pytest.raises(ProtocolViolation, match="speaks for 'hub'"):
        publish(exchange, east, HUB)
    with pytest.raises(ProtocolViolation, match="a beat of somebody else"):
        exchange.receive(east, pb.FromAgent(beat=pb.Beat(owner="west", count=1)))
    assert exchange.feed("west") is None


def test_the_newest_stream_of_a_cluster_wins(exchange: Exchange) -> None:
    older = opened(exchange, "east")
    newer = opened(exchange, "east")
    assert older.closed == "a newer stream of this cluster took over"
    publish(exchange, older, "east")
    assert exchange.feed("east") is None
    assert older.take() is None
    exchange.close(older)
    assert exchange.sessions == {"east": newer}


def test_only_the_newest_beat_waits_and_an_echo_is_not_passed_on(exchange: Exchange) -> None:
    east, west = opened(exchange, "east"), opened(exchange, "west")
    for count in (5, 6, 6, 4):
        exchange.receive(east, pb.FromAgent(beat=pb.Beat(owner="east", count=count)))
    assert said(west).beat.count == 6
    assert said(west).WhichOneof("message") == "relay"
    exchange.receive(west, pb.FromAgent(beat=pb.Beat(owner="west", count=1)))
    assert said(east).beat.owner == "west"


def test_a_beat_from_far_ahead_is_not_passed_on(exchange: Exchange) -> None:
    """It would outdo all that come later, and those of another cluster that joins under this name."""
    east, west = opened(exchange, "east"), opened(exchange, "west")
    exchange.epoch_reached("east", 3)
    for hostile in (beat_count(5, 0), HIGHEST * 2 - 1):
        exchange.receive(east, pb.FromAgent(beat=pb.Beat(owner="east", count=hostile)))
    exchange.receive(east, pb.FromAgent(beat=pb.Beat(owner="east", count=beat_count(4, 1))))
    assert said(west).beat.count == beat_count(4, 1), "its word of epoch 4 is on its way"


def test_what_was_taken_in_is_told_though_its_stream_ends_in_the_middle(exchange: Exchange) -> None:
    """The hub remembers it, so its owner will not say it again."""
    east, west = opened(exchange, "east"), opened(exchange, "west")
    publish(exchange, east, "east")
    for owner, seq in ((HUB, 2), ("east", 1)):
        assert said(west).relay.owner == owner
        acknowledge(west, owner, 1, seq)
    changed = pb.Entry.FromString(codec.encode("cluster", 2, Cluster("east", "us", "", (), Position())))
    batch = pb.Batch(owner="east", epoch=1, to_seq=2, last=True, entries=[changed])
    with closing(exchange.publish(east, wire.read_batch(batch, "east"))) as steps:
        next(steps)
    exchange.close(east)
    assert exchange.highest("east") == Position(1, 2)
    assert [entry.seq for entry in said(west).relay.entries] == [2]


def test_what_was_refused_is_told_though_its_stream_ends_in_the_middle() -> None:
    told: list[tuple[str, int]] = []
    exchange = exchange_of(lambda cluster, refused: told.append((cluster, len(refused))))
    east = opened(exchange, "east")
    stranger = codec.encode(
        "load/other/echo/80/", 1, Load("east", Service("other", "echo"), 80, "", 1, 1, 1, Position())
    )
    batch = pb.Batch(
        owner="east", epoch=1, to_seq=1, full=True, last=True, entries=[pb.Entry.FromString(stranger)]
    )
    with closing(exchange.publish(east, wire.read_batch(batch, "east"))) as steps:
        next(steps)
    assert told == [("east", 1)]


def test_a_second_hello_is_a_violation(exchange: Exchange) -> None:
    with pytest.raises(ProtocolViolation, match="second hello"):
        exchange.receive(opened(exchange, "east"), pb.FromAgent(hello=pb.Hello(version=1)))


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
    publish(exchange, east, "east")
    assert exchange.lag("east") == 1
    said(west)
    acknowledge(west, "east", 1, 1)
    assert exchange.lag("east") == 0


def refused_entries(count: int, first: int = 1) -> pb.Batch:
    """What a hostile member sends: keys as long as it likes, of services that it may not export."""
    entries = [
        pb.Entry(key=f"spec/elsewhere/{number:013d}", seq=number, spec=pb.ExportSpec())
        for number in range(first, first + count)
    ]
    return pb.Batch(owner="east", epoch=1, to_seq=first + count, full=True, last=False, entries=entries)


def drained(session: Session) -> list[pb.FromHub]:
    messages = []
    while (message := session.take()) is not None:
        messages.append(pb.FromHub.FromString(message))
    return messages


def test_a_batch_of_refused_entries_costs_bounded_words_and_one_line() -> None:
    told: list[Refusals] = []
    exchange = exchange_of(lambda cluster, refused: told.append(refused))
    east = opened(exchange, "east")
    assert take_in(exchange, east, refused_entries(10_000)) == 20
    assert [len(each) for each in told] == [10_000]
    assert len(told[0].first()) == 3
    messages = drained(east)
    refusals = [each.refusal for each in messages if each.WhichOneof("message") == "refusal"]
    assert len(refusals) == MOST_KEPT + 1
    assert (refusals[-1].key, refusals[-1].detail) == ("others", "9000 more entries are refused")
    assert sum(each.WhichOneof("message") == "ack" for each in messages) == 1


def test_a_member_that_sends_and_does_not_read_lets_nothing_pile_up(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    for _ in range(1000):
        take_in(exchange, east, pb.Batch(owner="east", epoch=1, to_seq=1, full=True, last=True))
    assert [each.ack.owner for each in drained(east) if each.WhichOneof("message") == "ack"] == ["east"]


def test_a_member_that_is_refused_again_and_again_and_does_not_read_is_cut(exchange: Exchange) -> None:
    east, first = opened(exchange, "east"), 1
    while east.closed is None:
        take_in(exchange, east, refused_entries(1000, first))
        first += 1000
        assert first < 100_000
    assert east.closed == "it does not read what is said to it"
    assert east.take() is None


def test_a_stream_that_is_closed_between_two_pieces_is_not_heard_any_further(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    entries = [
        pb.Entry.FromString(codec.encode(f"load/default/{number}/80/", number, load(number)))
        for number in range(1, 1001)
    ]
    batch = pb.Batch(owner="east", epoch=1, to_seq=1000, full=True, last=True, entries=entries)
    steps = exchange.publish(east, wire.read_batch(batch, "east"))
    next(steps)
    newer = opened(exchange, "east")
    assert list(steps) == []
    assert exchange.feed("east") is None
    take_in(exchange, newer, batch)
    feed = exchange.feed("east")
    assert feed is not None
    assert len(feed.items) == 1000


def load(number: int) -> Load:
    return Load("east", Service("default", str(number)), 80, "", 1, 1, 1, Position())


def test_an_owner_that_was_away_while_its_rights_changed_is_asked_for_everything(exchange: Exchange) -> None:
    east = opened(exchange, "east")
    entry = pb.Entry.FromString(codec.encode("load/default/echo/80/", 1, replace(load(1), service=ECHO)))
    batch = pb.Batch(owner="east", epoch=1, to_seq=1, full=True, last=True, entries=[entry])
    take_in(exchange, east, batch)
    exchange.close(east)
    assert exchange.highest("east") == Position(1, 1)
    exchange.set_member(replace(member("east"), may_export=()))
    exchange.set_member(member("east"))
    assert exchange.highest("east") == Position(1, 0)
    west = opened(exchange, "west")
    said(west)
    acknowledge(west, HUB, 1, 4)
    assert not said(west).relay.entries
    acknowledge(west, "east", 1, 1)
    assert west.take() is None
    take_in(exchange, opened(exchange, "east"), batch)
    assert [entry.key for entry in said(west).relay.entries] == ["load/default/echo/80/"]
    assert exchange.highest("east") == Position(1, 1)
