"""What must hold after any sequence of events."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

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
from federation.inputs import ServiceInputs, inputs
from federation.merge import merge
from federation.model import ImportPolicy, ImportRule, MemberState, Path, Port, Service, View
from federation.own import owned
from federation.reduce import reduce
from federation.route import PortPlan, route
from federation.touched import Everything
from tests.federation.world import (
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

OTHERS = ("west", "central", "far")
NAMES = ("east", *OTHERS)
SERVICES = tuple(Service("default", name) for name in ("echo", "other"))
PORTS = (Port("http", 80), Port("admin", 90), Port("dns", 53, "UDP"))

names = st.sampled_from(NAMES)
services = st.sampled_from(SERVICES)
scopes = st.one_of(st.none(), st.frozensets(st.sampled_from(NAMES)))
port_lists = st.lists(st.sampled_from(PORTS), min_size=1, max_size=3, unique=True).map(tuple)
seqs = st.integers(1, 9)
failures = st.dictionaries(
    st.tuples(services, st.sampled_from([80, 90])),
    st.frozensets(st.sampled_from([str(backend(1)), str(backend(2))])),
)

local_events = st.one_of(
    st.builds(
        lambda hosts, **kw: LocalChanged(local(*hosts, **kw)),
        st.lists(st.builds(backend, st.integers(1, 3), ready=st.booleans()), max_size=2),
        service=services,
        ports=port_lists,
        exported=st.booleans(),
        known=st.booleans(),
        scope=scopes,
    ),
    st.builds(LocalGone, services),
    st.builds(
        GatewayReported,
        st.builds(gateway, st.sampled_from(["gw-0", "gw-1"]), serving=st.booleans()),
        st.dictionaries(names, st.builds(Path, st.integers(0, 1), st.integers(0, 1))),
        failures,
    ),
    st.builds(GatewayLost, st.sampled_from(["gw-0", "gw-1"])),
    st.builds(GatewayGone, st.sampled_from(["gw-0", "gw-1"])),
)


def owner_events(owner: st.SearchStrategy[str]) -> st.SearchStrategy[Event]:
    return st.one_of(
        st.builds(
            lambda name, **kw: ExportChanged(spec(name, **kw)),
            owner,
            service=services,
            ports=port_lists,
            age=st.integers(0, 3),
            scope=scopes,
            seq=seqs,
        ),
        st.builds(ExportGone, owner, services),
        st.builds(
            lambda name, **kw: LoadChanged(load(name, **kw)),
            owner,
            healthy=st.integers(0, 3),
            service=services,
            port=st.sampled_from([80, 90]),
            zone=st.sampled_from(["", "a"]),
            seq=seqs,
        ),
        st.builds(LoadGone, owner, services, st.sampled_from([80, 90]), st.sampled_from(["", "a"])),
        st.builds(
            lambda name, **kw: ClusterChanged(cluster(name, **kw)),
            owner,
            region=st.sampled_from(["eu", "us"]),
            gateways=st.integers(0, 2),
        ),
        st.builds(ClusterGone, owner),
    )


silent_events = st.one_of(
    st.builds(
        Tick,
        st.integers(0, 100).map(lambda hours: NOW + timedelta(hours=hours)),
        st.floats(0, 100),
    ),
    st.builds(HubChanged, st.booleans()),
    st.builds(GatewayLost, st.sampled_from(["gw-0", "gw-1"])),
)
hub_events = st.one_of(
    st.builds(
        lambda name, **kw: MemberChanged(member(name, **kw)),
        names,
        state=st.sampled_from(MemberState),
        may_export=st.sampled_from([("*/*",), ("default/echo",), ()]),
        seq=seqs,
    ),
    st.builds(MemberGone, names),
    st.builds(lambda name, sequence: BundleChanged(name, bundle(name, sequence)), names, st.integers(1, 2)),
    st.builds(BeatHeard, names, st.integers(0, 9)),
)
any_events = st.one_of(local_events, owner_events(names), silent_events, hub_events)

FUSSY = replace(
    ME,
    port_range=(20000, 20002),
    import_policy=ImportPolicy(deny=(ImportRule(clusters=("far",), services=("*/other",)),)),
)
EMPTY = view_after(*joined(*NAMES), HubChanged(True), me=FUSSY)
START = view_after(
    *(LocalChanged(local(backend(1), backend(2), service=service)) for service in SERVICES),
    *(ExportChanged(spec(name, service=service)) for name in OTHERS for service in SERVICES),
    *(LoadChanged(load(name, service=service)) for name in OTHERS for service in SERVICES),
    start=EMPTY,
)


def cut(view: View) -> dict[Service, ServiceInputs]:
    return {service: inputs(view, service) for service in SERVICES}


@given(st.sampled_from([START, EMPTY]), st.lists(any_events, max_size=30))
@settings(max_examples=300)
def test_the_touched_services_are_all_that_can_differ(view: View, events: list[Event]) -> None:
    kept = cut(view)
    for event in events:
        view, touched = reduce(view, event)
        for service in SERVICES if isinstance(touched, Everything) else touched:
            kept[service] = inputs(view, service)
        assert kept == cut(view), f"{event} touched {touched}"


@given(st.lists(any_events, max_size=20))
def test_the_index_by_cluster_is_that_of_the_exports(events: list[Event]) -> None:
    view = view_after(*events, start=START)
    index = {(name, service) for name, found in view.by_cluster.items() for service in found}
    assert index == {(name, service) for service, found in view.exports.items() for name in found}
    assert all(view.exports.values())
    assert all(view.loads.values())
    assert all(view.by_cluster.values())


def facts_of(view: View, owner: str) -> object:
    return (
        view.clusters.get(owner),
        {service: found[owner] for service, found in view.exports.items() if owner in found},
        {key: word for found in view.loads.values() for key, word in found.items() if key[0] == owner},
    )


@given(
    st.lists(any_events, max_size=15),
    st.lists(
        st.one_of(
            local_events, silent_events, hub_events, owner_events(st.sampled_from(["east", "central"]))
        ),
        max_size=15,
    ),
)
def test_only_its_owner_changes_a_fact(before: list[Event], foreign: list[Event]) -> None:
    view = view_after(*before, start=START)
    assert facts_of(view_after(*foreign, start=view), "west") == facts_of(view, "west")


@given(
    st.lists(any_events, max_size=15),
    st.lists(st.one_of(owner_events(names), st.builds(BeatHeard, names, st.integers(0, 9))), max_size=15),
)
def test_nobody_speaks_for_us(before: list[Event], foreign: list[Event]) -> None:
    view = view_after(*before, start=START)
    assert owned(view_after(*foreign, start=view)) == owned(view)


@given(st.lists(any_events, max_size=15), st.lists(silent_events, max_size=15))
def test_silence_never_deletes(before: list[Event], silence: list[Event]) -> None:
    view = view_after(*before, start=START)
    after = view_after(*silence, start=view)
    assert (after.exports, after.clusters, after.members, after.bundles, after.gateways) == (
        view.exports,
        view.clusters,
        view.members,
        view.bundles,
        view.gateways,
    )
    for service in SERVICES:
        lines = {line for plan in plans(view, service) for line in named(plan)}
        assert lines <= {line for plan in plans(after, service) for line in named(plan)}


def plans(view: View, service: Service) -> tuple[PortPlan, ...]:
    found = inputs(view, service)
    return route(found, merge(found))


def named(plan: PortPlan) -> set[tuple[int, int, str]]:
    """Port, tier and cluster of each line."""
    return {(plan.port.number, at, line.cluster) for at, tier in enumerate(plan.tiers) for line in tier.lines}


@given(st.lists(any_events, max_size=25))
def test_a_plan_names_only_clusters_that_may_serve_it(events: list[Event]) -> None:
    view = view_after(*events, start=START)
    for service in SERVICES:
        for plan in plans(view, service):
            for _, _, name in named(plan):
                exported = view.exports[service][name]
                assert plan.port.number in {port.number for port in exported.ports if port.protocol == "TCP"}
                assert exported.visible_to("east")
                assert name == "east" or view.bundles[name].trust_domain == view.members[name].trust_domain
                assert name == "east" or view.members[name].state in (
                    MemberState.ACTIVE,
                    MemberState.DRAINING,
                )
                assert (name, service.name) != ("far", "other")
            for name in plan.exported_to:
                assert view.exports[service]["east"].visible_to(name)
                assert view.members[name].state is not MemberState.QUARANTINED


final_facts = st.tuples(
    st.lists(
        st.builds(
            lambda name, state: MemberChanged(member(name, state=state)), names, st.sampled_from(MemberState)
        ),
        unique_by=lambda event: event.member.name,
    ),
    st.lists(st.builds(lambda n: BundleChanged(n, bundle(n)), names), unique_by=lambda event: event.cluster),
    st.lists(
        st.builds(lambda n, p: ExportChanged(spec(n, ports=p)), st.sampled_from(OTHERS), port_lists),
        unique_by=lambda event: event.spec.cluster,
    ),
    st.lists(
        st.builds(lambda n, h: LoadChanged(load(n, h, 3)), st.sampled_from(OTHERS), st.integers(0, 3)),
        unique_by=lambda event: event.load.cluster,
    ),
    st.lists(
        st.builds(lambda n: ClusterChanged(cluster(n)), st.sampled_from(OTHERS)),
        unique_by=lambda event: event.cluster.name,
    ),
    st.lists(st.builds(lambda n: LocalChanged(local(backend(n))), st.integers(1, 2)), max_size=1),
).map(lambda groups: [event for group in groups for event in group])


@given(final_facts.flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_in_which_facts_arrive_does_not_matter(both: tuple[list[Event], list[Event]]) -> None:
    one, other = (
        {service: replace(inputs(view_after(*events), service), listen_ports=()) for service in SERVICES}
        for events in both
    )
    assert one == other
