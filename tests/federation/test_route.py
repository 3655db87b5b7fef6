from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.events import (
    BeatHeard,
    BundleChanged,
    ClusterChanged,
    ClusterGone,
    Event,
    ExportChanged,
    GatewayReported,
    HubChanged,
    LoadChanged,
    LocalChanged,
    MemberChanged,
    Tick,
)
from federation.model import MemberState, Path, Port, View
from tests.federation.world import (
    ECHO,
    HTTP,
    NOW,
    backend,
    bundle,
    cluster,
    codes,
    gateway,
    joined,
    lines,
    load,
    local,
    member,
    plan_of,
    shape,
    spec,
    view_after,
)

ALL = ("east", "west", "north", "central", "far", "south")


def exported_by(*names: str) -> tuple[Event, ...]:
    return tuple(event for name in names for event in (ExportChanged(spec(name)), LoadChanged(load(name))))


def world(*events: Event) -> View:
    return view_after(
        *joined(*ALL),
        LocalChanged(local(backend(1), backend(2))),
        *exported_by("west", "north", "central", "far", "south"),
        *events,
    )


def paths(**healthy: int) -> GatewayReported:
    return GatewayReported(gateway(), {name: Path(count, 2) for name, count in healthy.items()}, {})


def silent_west() -> tuple[Event, ...]:
    """Two minutes in which all others beat."""
    events: list[Event] = [HubChanged(True)]
    for count in range(1, 25):
        events += [BeatHeard(name, count) for name in ALL if name not in ("west", "east")]
        events.append(Tick(NOW, 5.0))
    return tuple(events)


def test_local_then_our_region_then_regions_as_configured_then_by_name() -> None:
    plan = plan_of(world())
    assert shape(plan) == [["east"], ["north", "west"], ["central"], ["far"], ["south"]]
    assert [tier.name for tier in plan.tiers] == [
        "local",
        "region eu",
        "region us",
        "region ap",
        "region af",
    ]
    assert codes(lines(plan).values()) == {
        "east": "local",
        "north": "same-region",
        "west": "same-region",
        "central": "other-region",
        "far": "other-region",
        "south": "other-region",
    }


def test_weights_are_the_capacity_of_healthy_endpoints() -> None:
    plan = plan_of(
        world(
            LoadChanged(load("west", 3, 4, seq=2)),
            LoadChanged(load("west", 1, 1, zone="b")),
            LoadChanged(load("west", 0, 2, zone="c", capacity=7)),
            LoadChanged(load("north", 2, 2, capacity=50, seq=2)),
        )
    )
    assert {name: lines(plan)[name].weight for name in ("west", "north")} == {"west": 4, "north": 50}


def test_without_our_own_export_local_backends_are_not_used() -> None:
    plan = plan_of(world(LocalChanged(local(backend(1), exported=False))))
    assert plan.local == ()
    assert plan.exported_to == ()
    assert shape(plan)[0] == ["north", "west"]


def test_a_port_that_we_do_not_export_is_served_by_others_only() -> None:
    admin = spec("west", ports=(HTTP, Port("admin", 90)), seq=2)
    plan = plan_of(world(ExportChanged(admin), LoadChanged(load("west", port=90))), port=90)
    assert shape(plan) == [["west"]]
    assert (plan.local, plan.exported_to) == ((), ())


def test_our_udp_backends_do_not_serve_the_tcp_port_of_another() -> None:
    ours = LocalChanged(local(backend(1), ports=(Port("dns", 53, "UDP"),)))
    theirs = ExportChanged(spec("west", ports=(Port("dns-tcp", 53),), seq=2))
    plan = plan_of(world(ours, theirs, LoadChanged(load("west", port=53))), port=53)
    assert (shape(plan), plan.local, plan.exported_to) == ([["west"]], (), ())


def test_local_holds_every_backend_ready_or_not() -> None:
    plan = plan_of(world(LocalChanged(local(backend(2), backend(1, ready=False)))))
    assert plan.local == (backend(1, ready=False), backend(2))
    assert plan.exported_to == ("central", "far", "north", "south", "west")


@pytest.mark.parametrize(
    ("events", "healthy", "code"),
    [
        ((), True, "same-region"),
        ((paths(west=1),), True, "same-region"),
        ((paths(west=0),), False, "path-down"),
        (silent_west(), True, "stale"),
        ((*silent_west(), paths(west=1)), True, "stale"),
        ((*silent_west(), paths(west=0)), False, "lost"),
        ((LoadChanged(load("west", 0, 2, seq=2)),), False, "no-healthy-endpoint"),
        ((MemberChanged(member("west", state=MemberState.DRAINING)),), False, "draining"),
        ((ClusterGone("west"),), False, "no-gateway"),
        ((ClusterChanged(cluster("west", gateways=0)),), False, "no-gateway"),
    ],
)
def test_what_demotes_and_what_does_not(events: tuple[Event, ...], healthy: bool, code: str) -> None:
    line = lines(plan_of(world(*events)))["west"]
    assert (line.healthy, line.reason.code) == (healthy, code)


def test_a_demoted_line_keeps_its_tier() -> None:
    before = shape(plan_of(world()))
    after = world(paths(west=0, central=0), LoadChanged(load("far", 0, 2, seq=2)))
    assert shape(plan_of(after)) == before


def test_a_port_without_load_is_demoted() -> None:
    view = view_after(*joined("east", "west"), ExportChanged(spec("west")))
    assert codes(lines(plan_of(view)).values()) == {"west": "no-load"}


def test_who_cannot_be_verified_is_left_out_with_a_reason() -> None:
    view = view_after(
        *joined("east"),
        MemberChanged(member("west")),
        ClusterChanged(cluster("west")),
        *exported_by("west"),
    )
    plan = plan_of(view)
    assert plan.tiers == ()
    assert codes(plan.excluded) == {"west": "untrusted"}
    trusted = plan_of(view_after(BundleChanged("west", bundle("west")), start=view))
    assert shape(trusted) == [["west"]]
    assert trusted.excluded == ()


def test_a_drained_cluster_goes_on_while_nobody_else_can_serve() -> None:
    draining = member("west", state=MemberState.DRAINING)
    view = view_after(*joined("east", "west", "central"), *exported_by("west"), MemberChanged(draining))
    line = lines(plan_of(view))["west"]
    assert (line.healthy, line.reason.code) == (True, "draining")
    other = lines(plan_of(view_after(*exported_by("central"), start=view)))
    assert {name: found.healthy for name, found in other.items()} == {"west": False, "central": True}


def test_a_quarantine_of_ourselves_leaves_local_traffic_alone() -> None:
    plan = plan_of(world(MemberChanged(member("east", state=MemberState.QUARANTINED))))
    assert lines(plan)["east"].healthy
    assert plan.exported_to == ()


def test_our_own_backends_all_failing_demotes_the_local_line() -> None:
    failed = {(ECHO, 80): frozenset({"10.1.9.1:8080", "10.1.9.2:8080"})}
    line = lines(plan_of(world(GatewayReported(gateway(), {}, failed))))["east"]
    assert (line.healthy, line.reason.code, line.weight) == (False, "no-healthy-endpoint", 1)


HEALTH = st.one_of(
    st.builds(lambda n: LoadChanged(load(n, 0, 2, seq=2)), st.sampled_from(ALL[1:])),
    st.builds(lambda n: LoadChanged(load(n, 1, 2, seq=3)), st.sampled_from(ALL[1:])),
    st.builds(lambda counts: paths(**counts), st.dictionaries(st.sampled_from(ALL[1:]), st.integers(0, 2))),
    st.builds(Tick, st.just(NOW), st.floats(0, 50)),
    st.builds(BeatHeard, st.sampled_from(ALL[1:]), st.integers(1, 50)),
    st.builds(lambda up: HubChanged(up), st.booleans()),
    st.builds(
        lambda *hosts: LocalChanged(local(*hosts)), st.builds(backend, st.integers(1, 3), ready=st.booleans())
    ),
)


@given(st.lists(HEALTH, max_size=12))
def test_health_never_moves_a_line_to_another_tier_or_removes_it(events: list[Event]) -> None:
    plan = plan_of(world(*events))
    assert shape(plan) == [["east"], ["north", "west"], ["central"], ["far"], ["south"]]
    assert all(line.weight >= 1 and line.reason.text for line in lines(plan).values())


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (0, "it has no endpoint"),
        (1, "its only endpoint is not healthy"),
        (2, "none of its 2 endpoints is healthy"),
    ],
)
def test_a_reason_counts_as_people_do(total: int, text: str) -> None:
    backends = (backend(number, ready=False) for number in range(1, total + 1))
    view = view_after(*joined("east"), LocalChanged(local(*backends)))
    assert lines(plan_of(view))["east"].reason.text == text
