"""What the hub keeps of the clusters' journals: on disk, whatever they say later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from federation.banned import BanKind
from federation.clock import ManualClock
from federation.errors import FederationError
from federation.heads import MOST_KEPT, Heads, JournalHead, Kept
from federation.hub import Hub
from federation.member_row import MemberRow
from federation.model import HUB, Position
from federation.registry import Registry
from federation.store import Change, MemoryStore, SqliteStore
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.feed import Item
from federation.sync.protocol import Batch
from federation.telemetry import HubMetrics
from federation.witness import Witness
from pki.algorithms import spki_hash
from pki.certificate import der, public_key
from tests.pki.world import BASE, NOW, make_world

WORLD = make_world()
WEST = spki_hash(public_key(WORLD.west.self_signed))
OTHER = "cd" * 32


def head(lines: int, authority: str = WEST, hash_: str = "11") -> JournalHead:
    return JournalHead(authority, lines, hash_ * 32)


def told(*heads: JournalHead) -> Heads:
    return Heads("west", heads)


async def test_the_furthest_head_survives_a_restart_and_a_contradiction_stays_until_it_is_accepted(
    tmp_path: Path,
) -> None:
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        witness = Witness(store)
        await witness.load()
        await witness.take(told(head(3)), frozenset({WEST}))
        await witness.take(told(head(9)), frozenset({WEST}))
        assert witness.doubt(told(head(9)), frozenset({WEST})) is None
        await witness.take(told(head(4)), frozenset({WEST}))
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        witness = Witness(store)
        await witness.load()
        assert witness.kept == {("west", WEST): Kept(head(9), head(4))}
        refused = witness.doubt(told(head(4)), frozenset({WEST}))
        assert refused is not None
        assert refused.rule == "journal"
        (problem,) = witness.problems()
        assert refused.detail == problem
        assert "had line 9" in problem
        assert await witness.accept("east") == 0
        assert await witness.accept("west") == 1
        assert (witness.problems(), witness.kept["west", WEST]) == ((), Kept(head(4)))


async def test_a_journal_of_somebody_elses_authority_is_neither_kept_nor_passed_on() -> None:
    witness = Witness(MemoryStore())
    await witness.take(told(head(3), head(5, OTHER)), frozenset({WEST}))
    assert set(witness.kept) == {("west", WEST)}
    refused = witness.doubt(told(head(3), head(5, OTHER)), frozenset({WEST}))
    assert refused is not None
    assert "has no authority" in refused.detail


async def test_what_is_stored_is_bounded_and_what_cannot_be_read_is_told() -> None:
    store = MemoryStore()
    witness = Witness(store)
    many = [f"{number:064x}" for number in range(MOST_KEPT + 3)]
    for authority in many:
        await witness.take(told(head(1, authority)), frozenset({authority}))
    assert [authority for _, authority in witness.kept] == many[:MOST_KEPT]
    await store.commit(Change("1", put={f"journal/west/{WEST}": b"{"}))
    with pytest.raises(FederationError, match="cannot be read"):
        await Witness(store).load()


class Listening:
    """A hub with the members west and east, and the stream of west's agent."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.seq = 0

    @classmethod
    async def begin(cls, store: MemoryStore) -> Listening:
        registry = Registry(store)
        for ca in (WORLD.east, WORLD.west):
            name = ca.trust_domain.name.partition(".")[0]
            row = MemberRow(
                name=name,
                may_export=(),
                ranges=(),
                joined_at=NOW,
                key=spki_hash(public_key(ca.self_signed)),
                rooted=der(ca.rooted),
            )
            await store.commit(Change(name, put={f"member/{name}": msgspec.json.encode(row)}))
        hub = Hub(registry, lambda: (WORLD.root,), BASE, ManualClock(NOW), HubMetrics())
        await hub.start()
        return cls(hub)

    async def hear(self, *facts: codec.Fact, have: Mapping[str, Position] | None = None) -> None:
        session = await self.hub.open("west", have or {}, lambda: None)
        items = []
        for fact in facts:
            self.seq += 1
            key = codec.key_of(fact)
            items.append(Item(key, self.seq, codec.encode(key, self.seq, fact), gone=False))
        batch = Batch("west", 1, self.seq, full=True, last=True, items=tuple(items))
        message = pb.FromAgent.FromString(wire.publish(batch))
        await self.hub.receive(session, message)
        self.hub.close(session)


async def test_the_hub_keeps_what_an_agent_says_and_relays_no_contradiction() -> None:
    store = MemoryStore()
    west = await Listening.begin(store)
    await west.hear(told(head(3)))
    assert told(head(3)) in west.hub.said("west")
    await west.hear(told(head(2)))
    known = west.hub.member("west")
    assert known is not None
    assert [one.why.rule for one in known.refused] == ["journal"]
    assert west.hub.witness.kept["west", WEST] == Kept(head(3), head(2))
    again = Hub(Registry(store), lambda: (WORLD.root,), BASE, ManualClock(NOW), HubMetrics())
    await again.start()
    assert again.witness.kept == west.hub.witness.kept


async def test_agents_hear_of_the_hubs_own_heads_and_bans() -> None:
    west = await Listening.begin(MemoryStore())
    session = await west.hub.open("west", {}, lambda: None)
    west.hub.tell_heads((head(5, OTHER),))
    west.hub.tell_heads((head(5, OTHER),))
    ban = await west.hub.bans.ban(BanKind.CLUSTER, "central", "test")
    heard: dict[str, object] = {}
    while (data := session.take()) is not None:
        message = pb.FromHub.FromString(data)
        if message.WhichOneof("message") == "relay":
            for entry in message.relay.entries:
                heard[entry.key] = codec.decode(HUB, 1, entry.SerializeToString(), BASE)
    assert heard["journal"] == Heads(HUB, (head(5, OTHER),))
    assert heard[ban.key] == ban
    restarted = Hub(
        Registry(west.hub.registry.store), lambda: (WORLD.root,), BASE, ManualClock(NOW), HubMetrics()
    )
    await restarted.start()
    assert restarted.bans.bans == west.hub.bans.bans
