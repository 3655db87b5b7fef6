"""One service from its objects: ports, endpoints, silence, and what only shows when objects are seen together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.discovery import kinds
from federation.discovery.kinds import EndpointSlice, KubeObject, Ref, ServiceExport
from federation.discovery.translate import Objects, translate
from federation.model import Affinity, Backend, Kind, LocalService, Port, Service
from tests.federation.discovery.objects import export, part, service

ECHO = Service("default", "echo")


def local(service: kinds.Service, slices: list[EndpointSlice], export: ServiceExport | None) -> LocalService:
    found = translate(service, slices, export).local
    assert found is not None
    return found


def test_a_service_with_a_slice_and_an_export() -> None:
    found = local(service(), [part()], export())
    assert found == LocalService(
        service=ECHO,
        ports=(Port("http", 80),),
        kind=Kind.CLUSTER_SET_IP,
        exported=True,
        backends={80: (Backend("10.1.0.1", 8080),)},
    )


def test_without_an_export_it_is_local_only() -> None:
    assert not local(service(), [part()], None).exported


def test_no_slice_is_silence_and_an_empty_slice_is_zero() -> None:
    assert local(service(), [], export()).backends is None
    assert local(service(), [part("[]")], export()).backends == {80: ()}
    assert local(service(), [part("null", "null")], export()).backends == {80: ()}


def test_no_service_is_nothing_and_each_orphan_is_named() -> None:
    result = translate(None, [part()], export())
    assert result.local is None
    assert [str(finding.of) for finding in result.findings] == [
        "ServiceExport default/echo",
        "EndpointSlice default/echo-1",
    ]


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ("{}", True),
        ("{ready: null}", True),
        ("{ready: true}", True),
        ("{ready: false}", False),
        ("{ready: true, terminating: true}", True),
        ("{ready: false, serving: true}", False),
    ],
)
def test_ready_as_kubernetes_defines_it(conditions: str, ready: bool) -> None:
    found = local(service(), [part(f"[{{addresses: [10.1.0.1], conditions: {conditions}}}]")], None)
    assert found.backends == {80: (Backend("10.1.0.1", 8080, "", ready),)}


@pytest.mark.parametrize(
    "conditions", ["{terminating: true}", "{ready: false, serving: true, terminating: true}"]
)
def test_what_terminates_is_not_counted_any_more(conditions: str) -> None:
    found = local(service(), [part(f"[{{addresses: [10.1.0.1], conditions: {conditions}}}]")], None)
    assert found.backends == {80: ()}


def test_ports_belong_together_by_name_and_protocol() -> None:
    spec = "{ports: [{name: a, port: 80}, {name: b, port: 81}, {name: d, port: 53, protocol: UDP}]}"
    ports = "[{name: b, port: 1}, {name: a, port: 2}, {name: d, port: 3}]"
    result = translate(service(spec), [part(ports=ports)], None)
    assert result.local is not None
    assert result.local.backends == {
        80: (Backend("10.1.0.1", 2),),
        81: (Backend("10.1.0.1", 1),),
        53: (),
    }
    [finding] = result.findings
    assert finding.path == ("ports", 2)
    assert finding.problem == "Service default/echo has no TCP port named 'd'"
    assert finding.allowed == "a, b"


def test_of_a_number_over_two_protocols_tcp_counts() -> None:
    spec = "{ports: [{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53}]}"
    ports = "[{name: udp, port: 1053, protocol: UDP}, {name: tcp, port: 2053}]"
    assert local(service(spec), [part(ports=ports)], None).backends == {53: (Backend("10.1.0.1", 2053),)}


def test_an_unnamed_port_belongs_to_an_unnamed_one() -> None:
    found = local(service("{ports: [{port: 80}]}"), [part(ports="[{port: 8080}]")], None)
    assert found.backends == {80: (Backend("10.1.0.1", 8080),)}


def test_slices_have_ports_of_their_own_and_an_address_in_two_of_them_counts_once() -> None:
    one = part("[{addresses: [10.1.0.1], conditions: {ready: false}, zone: b}, {addresses: [10.1.0.2]}]")
    two = part("[{addresses: [10.1.0.1], zone: a}, {addresses: [10.1.0.3]}]", name="echo-2")
    other = part("[{addresses: [10.1.0.1]}]", "[{name: http, port: 9090}]", name="echo-3")
    found = local(service(), [one, two, other], None)
    assert found.backends == {
        80: (
            Backend("10.1.0.1", 8080, "a", True),
            Backend("10.1.0.1", 9090),
            Backend("10.1.0.2", 8080),
            Backend("10.1.0.3", 8080),
        )
    }


def test_only_the_first_address_of_an_endpoint_has_a_meaning() -> None:
    found = local(service(), [part("[{addresses: [10.1.0.1, 10.1.0.2]}]")], None)
    assert found.backends == {80: (Backend("10.1.0.1", 8080),)}


def test_headless_affinity_and_families() -> None:
    spec = (
        "{clusterIP: None, ports: [{port: 80, appProtocol: http}], sessionAffinity: ClientIP, "
        "ipFamilies: [IPv6, IPv4], sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}}"
    )
    found = local(service(spec), [], None)
    assert found.kind is Kind.HEADLESS
    assert found.affinity == Affinity(60)
    assert found.families == ("IPv6", "IPv4")
    assert found.ports == (Port("", 80, "TCP", "http"),)
    assert local(service("{sessionAffinity: ClientIP}"), [], None).affinity == Affinity(10800)


def test_what_an_export_adds() -> None:
    metadata = '{name: echo, annotations: {federation/scope: "west, central", federation/capacity: "40"}}'
    found = local(
        service(), [], export(metadata, "{exportedLabels: {b: x, a: y}, exportedAnnotations: {c: z}}")
    )
    assert found.scope == frozenset({"west", "central"})
    assert found.capacity == 40
    assert found.labels == (("a", "y"), ("b", "x"))
    assert found.annotations == (("c", "z"),)


def test_an_external_name_is_never_exported() -> None:
    result = translate(service("{type: ExternalName, externalName: example.com}"), [], export())
    assert result.local is None
    [finding] = result.findings
    assert "ExternalName" in finding.problem
    assert not translate(service("{type: ExternalName}"), [], None).findings


# ---- the objects of all services ------------------------------------------------------------------------------------

SUBJECTS: list[KubeObject] = [
    *(service(name=name) for name in ("a", "b")),
    service("{ports: [{port: 1}]}", name="a"),
    *(export(f"{{name: {name}}}") for name in ("a", "b")),
    *(part(name=name, of=of) for name in ("x", "y") for of in ("a", "b")),
    part("[]", name="x", of="a"),
    part("[{addresses: [10.1.0.9], conditions: {ready: false}}]", name="y", of="a"),
]
NAMES = [Service("default", "a"), Service("default", "b")]


def last_of_each(subjects: Sequence[KubeObject]) -> list[KubeObject]:
    return list({subject.ref: subject for subject in subjects}.values())


@given(st.data())
def test_the_order_of_objects_does_not_matter(data: st.DataObject) -> None:
    subjects = last_of_each(data.draw(st.lists(st.sampled_from(SUBJECTS))))
    results = []
    for order in (subjects, data.draw(st.permutations(subjects))):
        objects = Objects()
        for subject in order:
            objects, _ = objects.put(subject)
        results.append([objects.translate(name) for name in NAMES])
    assert results[0] == results[1]


@given(st.lists(st.one_of(st.sampled_from(SUBJECTS), st.sampled_from([each.ref for each in SUBJECTS]))))
def test_what_is_touched_is_all_that_changes_and_nothing_is_left_behind(
    steps: list[KubeObject | Ref],
) -> None:
    objects, there = Objects(), dict[Ref, KubeObject]()
    for step in steps:
        before = {name: objects.translate(name) for name in NAMES}
        if isinstance(step, Ref):
            objects, touched = objects.remove(step)
            there.pop(step, None)
        else:
            objects, touched = objects.put(step)
            there[step.ref] = step
        assert {name for name in NAMES if objects.translate(name) != before[name]} <= touched
    scratch = Objects()
    for subject in there.values():
        scratch, _ = scratch.put(subject)
    assert scratch == objects


def test_a_slice_that_changes_its_service_touches_both() -> None:
    objects, _ = Objects().put(part(of="a"))
    objects, touched = objects.put(part(of="b"))
    assert touched == set(NAMES)
    assert objects.put(part(of="b")) == (objects, frozenset())
