"""What a rotation waits for: values in, reports and survivors out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.held import Held, Version, common
from federation.turning import LONGEST_LEFT, Own, deadline, due, few, lives, named, reports, survivors
from pki.ledger import Entry
from pki.rotation import Phase, Report, Rotation, Side, Token, advance, blockers
from tests.federation.world import NOW

DOMAIN = "east.mesh.example"
AGENT = f"spiffe://{DOMAIN}/agent"
GATEWAY = f"spiffe://{DOMAIN}/gateway/eastwest"
WORKLOAD = f"spiffe://{DOMAIN}/ns/default/sa/echo"
BOTH, OLD, NEW = frozenset(Side), frozenset({Side.OLD}), frozenset({Side.NEW})
PUBLISHED = Rotation(Token(3, 2), Phase.PUBLISHED)
ACTIVE = Rotation(Token(3, 3), Phase.ACTIVE)


def own(held: Version | None = (1, 5), issues: Side = Side.OLD, living: frozenset[Side] = OLD) -> Own:
    return Own(published=(1, 5), anchors=BOTH, held=held, issues=issues, living=living)


def holding(**versions: Version) -> dict[str, Held]:
    return {name: Held(name, ((DOMAIN, *version),)) for name, version in versions.items()}


def found(rotation: Rotation, mine: Own, held: dict[str, Held]) -> dict[str, Report]:
    return reports(rotation, "east", mine, DOMAIN, held)


def test_who_holds_the_newest_version_has_obeyed() -> None:
    seen = found(PUBLISHED, own(), holding(west=(1, 5), hub=(1, 5), central=(1, 4), north=(2, 1)))
    assert {name: each.anchors for name, each in seen.items()} == {
        "east": BOTH,
        "west": BOTH,
        "hub": BOTH,
        "central": frozenset(),
        "north": frozenset(),
    }
    assert all(each.token == PUBLISHED.token for each in seen.values())
    everybody = frozenset({"east", "west", "hub", "central", "north", "south"})
    holding_up = {each.member: each.reason for each in blockers(PUBLISHED, everybody, seen)}
    assert set(holding_up) == {"central", "north", "south"}
    assert "not reported" in holding_up["south"]
    ready = everybody - {"central", "north", "south"}
    assert advance(PUBLISHED, ready, seen).phase is Phase.ACTIVE


def test_a_version_that_we_never_published_is_no_evidence() -> None:
    """Ours is an old copy of a folder: they hold what it published before it was put back."""
    seen = found(PUBLISHED, own(), holding(west=(1, 6)))
    assert [each.member for each in blockers(PUBLISHED, frozenset({"east", "west"}), seen)] == ["west"]


def test_who_says_nothing_of_this_trust_domain_has_not_reported() -> None:
    seen = found(PUBLISHED, own(), {"west": Held("west", (("central.mesh.example", 1, 9),))})
    assert set(seen) == {"east"}


def test_nobody_else_speaks_for_the_driver() -> None:
    seen = found(PUBLISHED, own(held=None), holding(east=(1, 9), west=(1, 5)))
    assert seen["east"].anchors == frozenset()


@pytest.mark.parametrize("held", [None, (1, 4)])
def test_own_gateways_count_as_anybody_elses(held: Version | None) -> None:
    seen = found(PUBLISHED, own(held=held), holding(west=(1, 5)))
    assert [each.member for each in blockers(PUBLISHED, frozenset({"east", "west"}), seen)] == ["east"]


def test_old_leaves_hold_up_the_driver_alone() -> None:
    seen = found(ACTIVE, own(issues=Side.NEW, living=BOTH), holding(west=(1, 5)))
    members = frozenset({"east", "west"})
    assert [each.member for each in blockers(ACTIVE, members, seen)] == ["east"]
    replaced = found(ACTIVE, own(issues=Side.NEW, living=NEW), holding(west=(1, 5)))
    assert advance(ACTIVE, members, replaced).phase is Phase.RETIRING


def entry(
    identity: str, spki: str = "k", *, hours: float = 1.0, profile: str = "gateway", renewed: bool = False
) -> Entry:
    successors = frozenset({"other"}) if renewed else frozenset[str]()
    return Entry(int(hours * 10), profile, identity, spki, NOW + timedelta(hours=hours), successors)


def left(*entries: Entry, still_ours: bool = False, **gateways: bool) -> tuple[Entry, ...]:
    return tuple(survivors(entries, AGENT, still_ours, gateways, NOW))


def test_a_gateways_certificate_lives_until_its_envoy_presents_another() -> None:
    one, two = entry(GATEWAY, "a", hours=2), entry(GATEWAY, "b", hours=1, renewed=True)
    assert left(one, two, a=True, b=True) == (one, two), "a renewal that Envoy has not taken does not count"
    assert left(one, two, a=True, b=False) == (one,)
    assert left(one, two, a=True) == (one,), "a key that no gateway has any more"


def test_our_own_and_a_workloads_certificate() -> None:
    ours = entry(AGENT, profile="agent")
    assert left(ours, still_ours=True) == (ours,)
    assert left(ours) == ()
    workload = entry(WORKLOAD, profile="svid")
    assert left(workload) == (workload,)
    assert left(entry(WORKLOAD, profile="svid", renewed=True)) == ()


def test_a_workload_of_a_namespace_called_gateway_is_a_workload() -> None:
    workload = entry(f"spiffe://{DOMAIN}/ns/gateway/sa/echo", profile="svid")
    assert left(workload) == (workload,)


def test_what_has_ended_and_the_anchor_itself_do_not_live() -> None:
    assert left(entry(WORKLOAD, hours=0)) == ()
    assert left(entry(f"spiffe://{DOMAIN}", profile="cluster-ca")) == ()


def test_of_many_those_are_named_that_end_first_and_the_others_counted() -> None:
    late, soon = (entry(WORKLOAD, hours=hours, profile="svid") for hours in (9, 1))
    assert named([late, soon]) == (lives(soon), lives(late))
    many = [entry(WORKLOAD, hours=hours, profile="svid") for hours in range(20, 0, -1)]
    told = named(iter(many))
    assert told[:-1] == tuple(map(lives, many[:-6:-1]))
    assert told[-1] == "and 15 more"
    assert few(("gateway gw-0",), 1) == ("gateway gw-0",)


def test_the_next_rotation_begins_at_two_thirds_of_a_life_and_waits_no_longer_than_leaves_allow() -> None:
    ends = NOW + timedelta(days=300)
    assert due(NOW, ends) == NOW + timedelta(days=200)
    assert ends - deadline(ends) == LONGEST_LEFT


versions = st.tuples(st.integers(1, 3), st.integers(1, 5))
names = st.sampled_from(["a", "b", "c"])


@given(
    st.dictionaries(names, versions),
    st.sets(names),
    st.lists(st.dictionaries(names, st.none() | versions), max_size=3),
)
def test_a_cluster_holds_what_the_last_of_its_gateways_holds(
    current: dict[str, Version], trusted: set[str], acked: list[dict[str, Version | None]]
) -> None:
    held = common(current, trusted, acked)
    assert held.keys() <= current.keys()
    for name in current:
        if any(name not in one for one in acked):
            assert name not in held, "nobody knows what that gateway holds"
            continue
        versions = [version for one in acked if (version := one[name]) is not None]
        if name in trusted and len(versions) < len(acked):
            assert name not in held, "a gateway has not got it yet"
        elif versions:
            assert held[name] == min(versions)
        else:
            assert held[name] == current[name], "none of them believes it, or there are none"


def test_a_gateway_that_still_listens_with_anchors_of_a_cluster_in_quarantine_counts() -> None:
    """It may be cut off from its agent, and then hears neither of the quarantine nor of its end: a rotation meanwhile
    would leave it with the old anchor alone.
    """
    current, nobody = {DOMAIN: (1, 2)}, frozenset[str]()
    assert common(current, nobody, [{DOMAIN: None}, {DOMAIN: (1, 1)}]) == {DOMAIN: (1, 1)}
    assert common(current, nobody, [{DOMAIN: None}, {}]) == {}, (
        "since this agent started nothing was heard of it"
    )
    assert common(current, nobody, [{DOMAIN: None}, {DOMAIN: None}]) == current
