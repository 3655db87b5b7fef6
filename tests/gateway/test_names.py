from hypothesis import given
from hypothesis import strategies as st

from federation.model import Service
from gateway import names
from pki.spiffe import TrustDomain

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
SERVICES = st.builds(Service, LABELS, LABELS)
PORTS = st.integers(1, 65535)


def test_the_names_that_people_meet() -> None:
    echo = Service("default", "echo")
    west = TrustDomain.of_cluster("west", "mesh.example")
    assert names.imported(echo, 80) == "default/echo:80"
    assert names.local_cluster(echo, 80) == "local/default/echo:80"
    assert (names.to("west"), names.gateway("west"), names.inbound("west")) == (
        "to/west",
        "gateway/west",
        "from/west",
    )
    assert names.bundle(west) == "bundle/west.mesh.example"
    assert names.sni("east", west) == "from-east.west.mesh.example"
    assert names.authority(echo, 80) == "echo.default.svc.clusterset.local:80"
    assert str(names.gateway_id(west)) == "spiffe://west.mesh.example/gateway/eastwest"


@given(SERVICES, PORTS, LABELS)
def test_what_reports_health_reads_names_back(service: Service, port: int, cluster: str) -> None:
    assert names.parse_local_cluster(names.local_cluster(service, port)) == (service, port)
    assert names.parse_gateway(names.gateway(cluster)) == cluster
    assert names.parse_inbound(names.inbound(cluster)) == cluster
    others = [
        names.imported(service, port),
        names.gateway(cluster),
        "local",
        "local/",
        "local/a/b:c",
        "local/b:1",
    ]
    assert [names.parse_local_cluster(other) for other in others] == [None] * len(others)
    assert names.parse_gateway(names.local_cluster(service, port)) is None
    assert names.parse_inbound(names.LOCAL) is None
    assert names.parse_bundle(names.IDENTITY) is None


@given(SERVICES, SERVICES, PORTS, PORTS, LABELS)
def test_no_two_things_share_a_name(
    one: Service, other: Service, port: int, second: int, cluster: str
) -> None:
    envoy_clusters = [names.imported(one, port), names.local_cluster(one, port), names.gateway(cluster)]
    listeners = [names.imported(one, port), names.LOCAL, names.EAST_WEST, names.to(cluster)]
    tables = [names.LOCAL, names.inbound(cluster)]
    for kind in (envoy_clusters, listeners, tables):
        assert len(set(kind)) == len(kind)
    same = (one, port) == (other, second)
    assert (names.local_cluster(one, port) == names.local_cluster(other, second)) is same
    assert (names.authority(one, port) == names.authority(other, second)) is same
