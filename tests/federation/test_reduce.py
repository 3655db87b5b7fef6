from __future__ import annotations

import gc
import sys
from dataclasses import replace
from datetime import timedelta
from types import FrameType

import pytest

from federation.events import (
    BeatHeard,
    BundleChanged,
    ClusterChanged,
    ClusterGone,
    Event,
    ExportChanged,
    ExportGone,
    GatewayGone,
    GatewayLost,
    GatewayReported,
    HubChanged,
    LoadChanged,
    LoadGone,
    LocalChanged,
    LocalGone,
    MemberChanged,
    MemberGone,
    Tick,
)
from federation.model import HUB, Cluster, Freshness, MemberState, Path, Position, Service, View
from federation.reduce import reduce
from federation.touched import EVERYTHING, NOTHING, Touched
from pki.bundle import Bundle
from pki.spiffe import TrustDomain
from tests.federation.world import (
    BASE,
    ECHO,
    JOINED,
    ME,
    NOW,
    backend,
    bundle,
    cluster,
    gateway,
    joined,
    load,
    local,
    member,
    spec,
    view_after,
)

OURS = Service("default", "ours")
VIEW = view_after(
    *joined("east", "west", "central"),
    LocalChanged(local(backend(1), service=OURS)),
    ExportChanged(spec("west")),
    LoadChanged(load("west")),
)
WEST, BOTH = frozenset({ECHO}), frozenset({ECHO, OURS})


def seen(**healthy: int) -> GatewayReported:
    return GatewayReported(gateway(), {name: Path(count, 2) for name, count in healthy.items()}, {})


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (LocalChanged(local(backend(2), service=OURS)), {OURS}),
        (LocalChanged(local(backend(1), service=OURS)), NOTHING),
        (LocalChanged(local(known=False, service=OURS)), NOTHING),
        (LocalGone(OURS), {OURS}),
        (LocalGone(ECHO), NOTHING),
        (ExportChanged(spec("west", age=5)), WEST),
        (ExportChanged(spec("west", seq=7)), NOTHING),
        (ExportGone("west", ECHO), WEST),
        (ExportGone("central", ECHO), NOTHING),
        (LoadChanged(load("west", 1, 2)), WEST),
        (LoadChanged(load("west", seq=7)), NOTHING),
        (LoadGone("west", ECHO, 80, ""), WEST),
        (LoadGone("west", ECHO, 81, ""), NOTHING),
        (ClusterChanged(cluster("west", gateways=2)), NOTHING),
        (ClusterChanged(cluster("west", region="us")), WEST),
        (ClusterGone("west"), WEST),
        (MemberChanged(member("west", seq=7)), NOTHING),
        (MemberChanged(member("west", state=MemberState.DRAINING)), BOTH),
        (MemberChanged(member("south")), {OURS}),
        (MemberChanged(member("east", may_export=("a/b",))), EVERYTHING),
        (MemberGone("west"), BOTH),
        (MemberGone("south"), NOTHING),
        (MemberGone("east"), EVERYTHING),
        (BundleChanged("west", bundle("west", 2)), NOTHING),
        (BundleChanged("west", Bundle(TrustDomain.of_cluster("central", BASE), 2, ())), BOTH),
        (BeatHeard("west", 1), NOTHING),
        (HubChanged(True), NOTHING),
        (Tick(NOW, 100.0), NOTHING),
        (seen(west=2, central=2), WEST),
        (seen(central=2), NOTHING),
        (GatewayReported(gateway(), {}, {(OURS, 80): frozenset({"10.1.9.1:8080"})}), {OURS}),
        (GatewayReported(gateway(), {}, {(OURS, 80): frozenset({"10.1.9.9:8080"})}), NOTHING),
        (GatewayLost("gw-0"), NOTHING),
        (GatewayGone("gw-0"), NOTHING),
    ],
)
def test_what_an_event_touches(event: Event, expected: Touched | set[Service]) -> None:
    assert reduce(VIEW, event)[1] == expected


@pytest.mark.parametrize(
    "event",
    [
        ExportChanged(spec("east", service=OURS, age=99)),
        ExportChanged(spec(HUB)),
        ExportGone("east", OURS),
        LoadChanged(load("east", 0, 0, service=OURS)),
        LoadChanged(load(HUB)),
        LoadGone("east", OURS, 80, ""),
        ClusterChanged(cluster("east", region="us")),
        ClusterChanged(Cluster(HUB, "eu", "", (), Position())),
        ClusterGone("east"),
        MemberChanged(replace(member("west"), name=HUB)),
        BeatHeard("nobody", 5),
        BeatHeard("east", 5),
    ],
)
def test_who_does_not_own_a_fact_cannot_change_it(event: Event) -> None:
    assert reduce(VIEW, event) == (VIEW, NOTHING)


def test_a_member_that_claims_another_trust_domain_is_ignored() -> None:
    stolen = MemberChanged(replace(member("west", seq=9), trust_domain=TrustDomain.of_cluster("east", BASE)))
    assert reduce(VIEW, stolen) == (VIEW, NOTHING)


def test_a_gateway_that_stops_reporting_takes_its_word_along() -> None:
    down = view_after(seen(west=0), start=VIEW)
    lost, touched = reduce(down, GatewayLost("gw-0"))
    assert touched == WEST
    assert "gw-0" in lost.gateways
    gone, _ = reduce(down, GatewayGone("gw-0"))
    assert "gw-0" not in gone.gateways
    assert not gone.paths
    assert not gone.failed


def freshness(view: View) -> Freshness:
    return view.leases["west"].freshness


def test_a_lease_runs_only_while_the_hub_could_be_heard() -> None:
    alone = view_after(Tick(NOW, 500.0), start=VIEW)
    assert freshness(alone) is Freshness.FRESH
    up = view_after(HubChanged(True), Tick(NOW, 59.0), start=alone)
    assert freshness(up) is Freshness.SUSPECT
    expired, touched = reduce(up, Tick(NOW, 1.0))
    assert (freshness(expired), touched) == (Freshness.EXPIRED, WEST)
    back, touched = reduce(expired, BeatHeard("west", 1))
    assert (freshness(back), touched) == (Freshness.FRESH, WEST)


def test_a_beat_that_does_not_rise_proves_nothing() -> None:
    heard = view_after(HubChanged(True), BeatHeard("west", 5), Tick(NOW, 20.0), start=VIEW)
    assert freshness(view_after(BeatHeard("west", 5), BeatHeard("west", 4), start=heard)) is Freshness.SUSPECT
    assert freshness(view_after(BeatHeard("west", 6), start=heard)) is Freshness.FRESH


def test_time_comes_from_ticks() -> None:
    assert view_after(Tick(NOW + timedelta(seconds=5), 5.0), start=VIEW).now == NOW + timedelta(seconds=5)


def big(services: int) -> View:
    view = view_after(*joined("east", "west", "central"), me=replace(ME, port_range=(10_000, 29_999)))
    for number in range(services):
        service = Service("default", f"s{number}")
        view = view_after(
            LocalChanged(local(backend(1), service=service)),
            ExportChanged(spec("west", service=service)),
            LoadChanged(load("west", service=service)),
            start=view,
        )
    return view


def calls(view: View, event: Event) -> tuple[int, Touched]:
    """How many functions, of Python or of the maps, one `reduce` calls; a collection of garbage is kept out of it."""
    count = 0

    def note(_frame: FrameType, what: str, _argument: object) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(note)
    try:
        _, touched = reduce(view, event)
    finally:
        sys.setprofile(before)
        gc.enable()
    return count, touched


S7 = Service("default", "s7")


@pytest.fixture(scope="module")
def worlds() -> tuple[View, View]:
    return big(10), big(10_000)


@pytest.mark.parametrize(
    "event",
    [
        LoadChanged(load("west", 1, 2, service=S7)),
        ExportChanged(spec("west", service=S7, age=3)),
        ExportGone("west", S7),
        LocalChanged(local(backend(2), service=S7)),
        LocalGone(S7),
        GatewayReported(gateway(), {}, {(S7, 80): frozenset({"10.1.9.1:8080"})}),
    ],
)
def test_a_change_costs_the_same_among_ten_and_ten_thousand(worlds: tuple[View, View], event: Event) -> None:
    few, many = worlds
    cost, touched = calls(many, event)
    assert touched == frozenset({S7})
    assert (cost, touched) == calls(few, event)


def test_a_new_service_costs_the_same_among_ten_and_ten_thousand(worlds: tuple[View, View]) -> None:
    few, many = worlds
    event = LocalChanged(local(backend(1), service=Service("default", "new")))
    assert calls(few, event) == calls(many, event)


def test_a_tick_costs_what_the_peers_cost(worlds: tuple[View, View]) -> None:
    few, many = (view_after(HubChanged(True), start=view) for view in worlds)
    assert calls(few, Tick(NOW, 1.0)) == calls(many, Tick(NOW, 1.0))


def test_who_joins_anew_under_a_name_is_not_believed_by_the_word_of_the_one_before() -> None:
    before = view_after(*joined("east", "west"), ExportChanged(spec("west")), LoadChanged(load("west")))
    assert "west" in before.bundles
    anew = MemberChanged(member("west", joined_at=JOINED + timedelta(hours=1), seq=2))
    after = view_after(anew, start=before)
    assert ECHO not in after.exports
    assert ECHO not in after.loads
    for view in (after, view_after(MemberGone("west"), anew, start=before)):
        assert "west" not in view.bundles


def test_a_registry_that_was_put_back_from_a_copy_takes_no_word_back() -> None:
    """It says that west joined earlier than it did last; nobody would say again what has been heard since."""
    later = MemberChanged(member("west", joined_at=JOINED + timedelta(hours=1), seq=2))
    told = (ExportChanged(spec("west")), LoadChanged(load("west")), BundleChanged("west", bundle("west", 2)))
    before = view_after(*joined("east", "west"), later, *told)
    after = view_after(MemberChanged(member("west", seq=3)), start=before)
    assert ECHO in after.exports
    assert after.loads == before.loads
    assert after.bundles == before.bundles
