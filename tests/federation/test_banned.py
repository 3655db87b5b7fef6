"""Who is turned away, and what becomes of a banned cluster at the others."""

from __future__ import annotations

import pytest

from federation import admit
from federation.admit import Refused
from federation.banned import Ban, BanKind, ban_key, banned, is_ban_key, objection
from federation.events import BanChanged, BanGone, ExportChanged, LoadChanged, LocalChanged, MemberGone
from federation.inputs import fabric, inputs, is_peer
from federation.model import HUB, View
from federation.reason import LONGEST_REASON
from federation.reduce import reduce
from federation.sync import codec
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.world import BASE, ECHO, NOW, backend, joined, load, local, spec, view_after

WEST, HUB_DOMAIN = TrustDomain.of_cluster("west", BASE), TrustDomain.of_hub(BASE)
GATEWAYS = SpiffeId.gateway(WEST, "eastwest")
KEY = "ab" * 32


def ban(kind: BanKind, subject: str, reason: str = "its node was stolen") -> Ban:
    return Ban(kind, subject, reason, NOW)


CLUSTER = ban(BanKind.CLUSTER, "west")
IDENTITY = ban(BanKind.IDENTITY, str(GATEWAYS))


@pytest.mark.parametrize(
    ("one", "turned_away"),
    [
        (CLUSTER, {"agent", "gateways", "other key"}),
        (IDENTITY, {"gateways", "other key"}),
        (ban(BanKind.KEY, KEY), {"agent", "gateways"}),
        (ban(BanKind.CLUSTER, "wes"), set()),
        (ban(BanKind.IDENTITY, f"spiffe://{WEST}/gateway/eastwes"), set()),
    ],
)
def test_exactly_who_is_named_is_turned_away(one: Ban, turned_away: set[str]) -> None:
    asked = {
        "agent": (SpiffeId.agent(WEST), KEY),
        "gateways": (GATEWAYS, KEY),
        "other key": (GATEWAYS, "cd" * 32),
        "other cluster": (SpiffeId.agent(TrustDomain.of_cluster("north", BASE)), "cd" * 32),
        "operator": (SpiffeId.operator(HUB_DOMAIN, "west"), "cd" * 32),
    }
    bans = {one.key: one}
    found = {name for name, (identity, key) in asked.items() if banned(bans, identity, key, BASE) is one}
    assert found == turned_away
    assert all(banned({}, identity, key, BASE) is None for identity, key in asked.values())


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (ban(BanKind.CLUSTER, "hub"), "hub is no cluster: it is the hub itself"),
        (ban(BanKind.CLUSTER, "We st"), "name"),
        (ban(BanKind.IDENTITY, "spiffe://west.elsewhere.example/x"), "no trust domain under"),
        (ban(BanKind.IDENTITY, f"spiffe://{WEST}"), "SPIFFE"),
        (ban(BanKind.IDENTITY, str(SpiffeId.federation(HUB_DOMAIN))), "the hub itself"),
        (ban(BanKind.KEY, "AB" * 32), "64 characters"),
        (ban(BanKind.CLUSTER, "west", ""), "reason"),
        (ban(BanKind.CLUSTER, "west", "x" * (LONGEST_REASON + 1)), "reason"),
        (ban(BanKind.CLUSTER, "west", "a\x1b[2J"), "reason"),
    ],
)
def test_what_cannot_be_banned_is_refused_with_the_reason(one: Ban, why: str) -> None:
    assert why in (objection(one, BASE) or "")


def test_a_ban_travels_as_a_fact_of_the_hub_alone() -> None:
    for one in (CLUSTER, IDENTITY, ban(BanKind.KEY, KEY)):
        assert objection(one, BASE) is None
        assert is_ban_key(one.key)
        body = codec.encode(one.key, 7, one)
        assert codec.decode(HUB, 1, body, BASE) == one
        refused = codec.decode("west", 1, body, BASE)
        assert isinstance(refused, Refused)
        assert refused.rule == "owner"
        assert codec.withdrawn(HUB, one.key) == BanGone(one.key)
    assert admit.key(HUB, "ban/cluster/We st") is not None
    assert admit.key(HUB, "ban/other/west") is not None
    moved = codec.encode(ban_key(BanKind.CLUSTER, "east"), 7, CLUSTER)
    assert isinstance(codec.decode(HUB, 1, moved, BASE), Refused)


def seen() -> View:
    events = [*joined("east", "west", "central"), LocalChanged(local(backend(1)))]
    for name in ("west", "central"):
        events += [ExportChanged(spec(name)), LoadChanged(load(name))]
    return view_after(*events)


@pytest.mark.parametrize("one", [CLUSTER, IDENTITY], ids=["cluster", "identity of its gateways"])
def test_a_banned_cluster_is_neither_dialled_nor_let_in_nor_used_until_it_is_taken_back(one: Ban) -> None:
    before = seen()
    after, touched = reduce(before, BanChanged(one))
    assert touched == frozenset({ECHO})
    assert not is_peer(after, "west")
    assert [peer.name for peer in fabric(after).peers] == ["central"]
    cut = inputs(after, ECHO)
    assert [spec.cluster for spec in cut.exports] == ["central", "east"]
    assert [(one.cluster, one.refused.rule) for one in cut.withheld] == [("west", "banned")]
    assert "its node was stolen" in cut.withheld[0].refused.detail
    assert cut.exported_to == ("central",)
    back, touched = reduce(after, BanGone(one.key))
    assert touched == frozenset({ECHO})
    assert inputs(back, ECHO) == inputs(before, ECHO)
    assert fabric(back) == fabric(before)
    assert reduce(back, BanGone(one.key)) == (back, frozenset())


@pytest.mark.parametrize(
    "one",
    [
        ban(BanKind.KEY, KEY),
        ban(BanKind.IDENTITY, f"spiffe://{WEST}/ns/default/sa/x"),
        ban(BanKind.CLUSTER, "east"),
        ban(BanKind.IDENTITY, str(SpiffeId.operator(HUB_DOMAIN, "ada"))),
    ],
    ids=["key", "workload", "ourselves", "operator"],
)
def test_a_ban_of_anything_else_changes_no_configuration(one: Ban) -> None:
    before = seen()
    after, _ = reduce(before, BanChanged(one))
    assert fabric(after) == fabric(before)
    assert inputs(after, ECHO) == inputs(before, ECHO)


def test_a_ban_outlives_a_membership_and_meets_whoever_joins_anew() -> None:
    view = view_after(BanChanged(CLUSTER), *joined("east", "west"), ExportChanged(spec("west")))
    assert not is_peer(view, "west")
    view = view_after(MemberGone("west"), *joined("west"), start=view)
    assert not is_peer(view, "west")
    assert is_peer(view_after(BanGone(CLUSTER.key), start=view), "west")
