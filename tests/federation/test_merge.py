from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from federation.inputs import ServiceInputs, inputs
from federation.merge import Conflict, Imported, merge
from federation.model import Affinity, ExportSpec, Kind, Port
from tests.federation.world import ECHO, ME, spec, view_after

NOBODY = inputs(view_after(me=ME), ECHO)


def exporting(*specs: ExportSpec) -> ServiceInputs:
    return replace(NOBODY, exports=specs)


def merged(*specs: ExportSpec) -> Imported:
    return merge(exporting(*specs))


def test_ports_are_united() -> None:
    found = merged(
        spec("east", ports=(Port("http", 80),)), spec("west", ports=(Port("http", 80), Port("admin", 90)))
    )
    assert found.ports == (Port("http", 80), Port("admin", 90))
    assert found.conflicts == ()


def test_the_oldest_wins_and_the_rule_is_recorded() -> None:
    found = merged(
        spec("east", ports=(Port("web", 80),), age=1),
        spec("west", ports=(Port("http", 80, "TCP", "kubernetes.io/h2c"),), age=2),
    )
    assert found.ports == (Port("http", 80, "TCP", "kubernetes.io/h2c"),)
    assert found.conflicts == (
        Conflict("ports[80/TCP].appProtocol", "west", "kubernetes.io/h2c", "east", "", "oldest"),
        Conflict("ports[80/TCP].name", "west", "http", "east", "web", "oldest"),
    )


def test_of_the_same_age_the_name_decides() -> None:
    found = merged(spec("west", affinity=Affinity(60)), spec("east"))
    assert found.affinity is None
    assert found.conflicts == (
        Conflict("sessionAffinity", "east", "None", "west", "ClientIP for 60 s", "name"),
    )


def test_the_type_is_that_of_the_oldest() -> None:
    found = merged(spec("east", kind=Kind.HEADLESS), spec("west", age=9))
    assert found.kind is Kind.CLUSTER_SET_IP
    assert found.conflicts == (Conflict("type", "west", "ClusterSetIP", "east", "Headless", "oldest"),)


def test_two_ports_never_share_a_name() -> None:
    found = merged(spec("east", ports=(Port("http", 80),), age=1), spec("west", ports=(Port("http", 8080),)))
    assert found.ports == (Port("http", 80), Port("tcp-8080", 8080))
    assert found.conflicts == (Conflict("ports[http]", "east", "80/TCP", "west", "8080/TCP", "oldest"),)


def test_the_order_of_ports_within_an_export_does_not_matter() -> None:
    both = (Port("dns", 53, "UDP"), Port("dns", 53))
    found = merged(spec("east", ports=both))
    assert found == merged(spec("east", ports=both[::-1]))
    assert found.ports == (Port("dns", 53), Port("udp-53", 53, "UDP"))


def test_an_unnamed_port_is_named_once_there_are_more() -> None:
    found = merged(spec("east", ports=(Port("", 80),)), spec("west", ports=(Port("", 90),)))
    assert found.ports == (Port("tcp-80", 80), Port("tcp-90", 90))
    assert found.conflicts == ()
    assert merged(spec("east", ports=(Port("", 80),))).ports == (Port("", 80),)


def test_only_tcp_is_routed_and_the_others_say_why() -> None:
    dns = (Port("dns", 53, "UDP"), Port("dns-tcp", 53), Port("s", 9, "SCTP"))
    found = merged(spec("east", ports=dns))
    assert found.routed == (Port("dns-tcp", 53),)
    assert [(one.port.protocol, one.reason) for one in found.unrouted] == [
        ("SCTP", "SCTP is not routed: tunnels carry TCP only"),
        ("UDP", "UDP is not routed: tunnels carry TCP only"),
    ]


def test_nobody_exports_nothing() -> None:
    assert merged() == Imported(ECHO, (), Kind.CLUSTER_SET_IP, None, ())


PORTS = st.builds(
    Port,
    st.sampled_from(["", "http", "grpc"]),
    st.sampled_from([80, 443, 8080]),
    st.sampled_from(["TCP", "UDP"]),
    st.sampled_from(["", "h2c"]),
)
PORT_LISTS = st.lists(PORTS, max_size=4, unique_by=lambda port: (port.number, port.protocol)).map(tuple)
SPECS = st.lists(
    st.builds(
        spec,
        st.sampled_from(["east", "west", "central", "south"]),
        ports=PORT_LISTS,
        kind=st.sampled_from(Kind),
        age=st.integers(0, 2),
        affinity=st.sampled_from([None, Affinity(10), Affinity(20)]),
    ),
    unique_by=lambda one: one.cluster,
)


@given(SPECS.flatmap(lambda specs: st.tuples(st.just(specs), st.permutations(specs))))
def test_merge_is_independent_of_order(both: tuple[list[ExportSpec], list[ExportSpec]]) -> None:
    one, other = both
    assert merged(*one) == merged(*other)


@given(SPECS)
def test_nothing_is_lost_and_nothing_invented(specs: list[ExportSpec]) -> None:
    found = merged(*specs)
    assert {(port.number, port.protocol) for port in found.ports} == {
        (port.number, port.protocol) for one in specs for port in one.ports
    }
    names = [port.name for port in found.ports]
    assert len(set(names)) == len(names)


@given(SPECS)
def test_the_oldest_loses_no_conflict(specs: list[ExportSpec]) -> None:
    if specs:
        oldest = min(specs, key=lambda one: (one.exported_at, one.cluster))
        assert all(
            conflict.loser != oldest.cluster or conflict.winner == oldest.cluster
            for conflict in merged(*specs).conflicts
        )
