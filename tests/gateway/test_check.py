"""Each bad snapshot is a good one with one change; each change meets the rule that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from gateway import names, secrets
from gateway.check import Checked, Problem, check
from gateway.clusters import PROTOCOL_OPTIONS
from gateway.compile import compile_step, start
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from gateway.pb.envoy.config.core.v3.base_pb2 import DataSource
from gateway.pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from gateway.pb.envoy.config.listener.v3.listener_components_pb2 import FilterChain
from gateway.pb.envoy.config.listener.v3.listener_pb2 import Listener
from gateway.pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from gateway.pb.envoy.extensions.filters.http.router.v3.router_pb2 import Router
from gateway.pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from gateway.pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    SubjectAltNameMatcher,
    TlsCertificate,
    TlsParameters,
)
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2 import (
    SPIFFECertValidatorConfig,
)
from gateway.pb.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from gateway.proto import encode, packed
from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Key, Resource, Snapshot
from gateway.tuning import Tuning
from tests.gateway.certificates import ca
from tests.gateway.plans import ECHO, HERE, SERVICES, echo_plan, three_clusters, worlds

KINDS: dict[str, type[Message]] = {
    CLUSTER: Cluster,
    ENDPOINTS: ClusterLoadAssignment,
    SECRET: Secret,
    LISTENER: Listener,
    ROUTES: RouteConfiguration,
}
ECHO_CLUSTER = (CLUSTER, "default/echo:80")
ECHO_LISTENER = (LISTENER, "default/echo:80")
ECHO_ENDPOINTS = (ENDPOINTS, "default/echo:80")
WEST_GATEWAY = (CLUSTER, "gateway/west")
DOOR = (LISTENER, names.EAST_WEST)
WEST_BUNDLE = (SECRET, "bundle/west.mesh.example")
TABLE = (ROUTES, "from/west")
ONWARD = (ROUTES, "to/west")

Change = Callable[[Any], None]


def good() -> Snapshot:
    around = three_clusters()
    return compile_step(start(around, Tuning()), {ECHO: (echo_plan(),)}, around).snapshots[HERE]


GOOD = good()


def changed(key: Key, change: Change) -> Snapshot:
    found = GOOD.get(*key)
    assert found is not None, key
    message = KINDS[key[0]].FromString(found.body)
    change(message)
    return GOOD.replace([Resource.of(*key, encode(message))], ())


def inside(read: type[Message], change: Change) -> Change:
    """Change the message that an Any holds."""

    def apply(wrapped: Any) -> None:
        message = read()
        assert wrapped.Unpack(message)
        change(message)
        wrapped.CopyFrom(packed(message))

    return apply


def at_door(change: Change) -> Change:
    """Change the TLS context of the first chain for peers, the one of central."""
    context = inside(DownstreamTlsContext, change)
    return lambda door: context(door.filter_chains[0].transport_socket.typed_config)


def dialled(change: Change) -> Change:
    context = inside(UpstreamTlsContext, change)
    return lambda cluster: context(cluster.transport_socket.typed_config)


def spoken(change: Change) -> Change:
    """Change how a cluster's HTTP is spoken."""
    options = inside(HttpProtocolOptions, change)
    return lambda cluster: options(cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS])


def manager(change: Change) -> Change:
    http = inside(hcm.HttpConnectionManager, change)
    return lambda listener: http(listener.filter_chains[0].filters[0].typed_config)


def proxy(change: Change) -> Change:
    tcp = inside(TcpProxy, change)
    return lambda listener: tcp(listener.filter_chains[0].filters[0].typed_config)


def another_trust_domain(secret: Secret) -> None:
    def add(validator: SPIFFECertValidatorConfig) -> None:
        validator.trust_domains.add(
            name="central.mesh.example", trust_bundle=DataSource(inline_bytes=ca("central").bundle.pem())
        )

    inside(SPIFFECertValidatorConfig, add)(secret.validation_context.custom_validator_config.typed_config)


def combined(context: Any) -> Any:
    return context.common_tls_context.combined_validation_context


def identities(context: Any) -> Any:
    return combined(context).default_validation_context.match_typed_subject_alt_names


def another_identity(context: Any) -> None:
    matcher = SubjectAltNameMatcher(san_type=SubjectAltNameMatcher.URI)
    matcher.matcher.exact = "spiffe://west.mesh.example/gateway/eastwest"
    identities(context).append(matcher)


def identity_of_another(context: Any) -> None:
    identities(context)[0].matcher.exact = "spiffe://central.mesh.example/gateway/eastwest"


def any_identity_of_the_domain(context: Any) -> None:
    identities(context)[0].matcher.prefix = "spiffe://central.mesh.example/"


def anchors_beside_the_secret(context: Any) -> None:
    combined(context).default_validation_context.trusted_ca.filename = "/etc/ssl/certs/ca-certificates.crt"


def own_context(context: Any) -> None:
    context.common_tls_context.validation_context.trusted_ca.filename = "west.pem"


def bundle_of(domain: str) -> Change:
    def change(context: Any) -> None:
        combined(context).validation_context_sds_secret_config.name = f"bundle/{domain}"

    return change


def a_key(secret: Any) -> None:
    secret.tls_certificate.CopyFrom(TlsCertificate(private_key=DataSource(inline_string="secret")))


def inline_key(context: Any) -> None:
    context.common_tls_context.tls_certificates.add().private_key.filename = "key.pem"


def older_tls(context: Any) -> None:
    context.common_tls_context.tls_params.tls_minimum_protocol_version = TlsParameters.TLSv1_2


def default_versions(context: Any) -> None:
    context.common_tls_context.ClearField("tls_params")


def no_client_certificate(context: Any) -> None:
    context.require_client_certificate.value = False


def tickets(context: Any) -> None:
    context.disable_stateless_session_resumption = False


def sessions(context: Any) -> None:
    context.ClearField("max_session_keys")


def no_alpn(context: Any) -> None:
    context.common_tls_context.ClearField("alpn_protocols")


def twice_the_domain(table: Any) -> None:
    table.virtual_hosts.add().CopyFrom(table.virtual_hosts[0])


def route(change: Change) -> Change:
    return lambda table: change(table.virtual_hosts[0].routes[0])


def swapped_table(door: Any) -> None:
    first, second = door.filter_chains
    first.filters[0].CopyFrom(second.filters[0])


def swapped_sni(door: Any) -> None:
    first, second = door.filter_chains
    first.filter_chain_match.server_names[0], second.filter_chain_match.server_names[0] = (
        second.filter_chain_match.server_names[0],
        first.filter_chain_match.server_names[0],
    )


BAD: dict[str, tuple[Key, Change, str]] = {
    "bundle of two": (WEST_BUNDLE, another_trust_domain, "one-trust-domain"),
    "bundle of none": (WEST_BUNDLE, lambda s: s.ClearField("validation_context"), "no-keys"),
    "key in a snapshot": (WEST_BUNDLE, a_key, "no-keys"),
    "anchors of all": (
        WEST_BUNDLE,
        lambda s: s.validation_context.ClearField("custom_validator_config"),
        "one-trust-domain",
    ),
    "anchors of all beside": (
        WEST_BUNDLE,
        lambda s: setattr(s.validation_context.trusted_ca, "filename", "all.pem"),
        "one-trust-domain",
    ),
    "two identities": (DOOR, at_door(another_identity), "exact-identity"),
    "no identity": (DOOR, at_door(lambda c: identities(c).clear()), "exact-identity"),
    "identity by prefix": (DOOR, at_door(any_identity_of_the_domain), "exact-identity"),
    "identity by DNS": (
        DOOR,
        at_door(lambda c: setattr(identities(c)[0], "san_type", SubjectAltNameMatcher.DNS)),
        "exact-identity",
    ),
    "identity of another": (WEST_GATEWAY, dialled(identity_of_another), "exact-identity"),
    "anchors in the context": (DOOR, at_door(anchors_beside_the_secret), "one-trust-domain"),
    "context without secret": (DOOR, at_door(own_context), "one-trust-domain"),
    "bundle of another": (DOOR, at_door(bundle_of("west.mesh.example")), "exact-identity"),
    "bundle not there": (DOOR, at_door(bundle_of("north.mesh.example")), "reference"),
    "dialled bundle not there": (WEST_GATEWAY, dialled(bundle_of("north.mesh.example")), "reference"),
    "no bundle": (DOOR, at_door(lambda c: combined(c).Clear()), "one-trust-domain"),
    "key in a context": (DOOR, at_door(inline_key), "identity"),
    "another certificate": (
        DOOR,
        at_door(
            lambda c: setattr(c.common_tls_context.tls_certificate_sds_secret_configs[0], "name", "other")
        ),
        "identity",
    ),
    "TLS 1.2 in": (DOOR, at_door(older_tls), "tls-1.3"),
    "TLS 1.2 out": (WEST_GATEWAY, dialled(default_versions), "tls-1.3"),
    "anybody": (DOOR, at_door(no_client_certificate), "client-certificate"),
    "tickets": (DOOR, at_door(tickets), "no-resumption"),
    "sessions": (WEST_GATEWAY, dialled(sessions), "no-resumption"),
    "no ALPN": (DOOR, at_door(no_alpn), "alpn"),
    "no SNI": (WEST_GATEWAY, dialled(lambda c: c.ClearField("sni")), "sni"),
    "plain door": (DOOR, lambda d: d.filter_chains[0].ClearField("transport_socket"), "tls"),
    "plain gateway": (WEST_GATEWAY, lambda c: c.ClearField("transport_socket"), "tls"),
    "slow handshake": (
        DOOR,
        lambda d: d.filter_chains[0].ClearField("transport_socket_connect_timeout"),
        "timeouts",
    ),
    "table of another peer": (DOOR, swapped_table, "one-peer"),
    "name of another peer": (DOOR, swapped_sni, "one-peer"),
    "any name": (DOOR, lambda d: d.filter_chains[0].ClearField("filter_chain_match"), "one-peer"),
    "default chain": (DOOR, lambda d: d.default_filter_chain.CopyFrom(FilterChain()), "chains"),
    "no chain": (DOOR, lambda d: d.ClearField("filter_chains"), "chains"),
    "unknown filter": (
        ECHO_LISTENER,
        lambda one: one.filter_chains[0].filters[0].typed_config.CopyFrom(packed(Router())),
        "known-filter",
    ),
    "TLS for clients": (
        ECHO_LISTENER,
        lambda one: one.filter_chains[0].transport_socket.CopyFrom(secrets.accept(ca("west").trust_domain)),
        "known-transport",
    ),
    "address twice": (
        ECHO_LISTENER,
        lambda one: setattr(one.address.socket_address, "port_value", 15443),
        "claimed-once",
    ),
    "listener to nowhere": (ECHO_LISTENER, proxy(lambda p: setattr(p, "cluster", "gone")), "reference"),
    "tcp idle": (ECHO_LISTENER, proxy(lambda p: p.ClearField("idle_timeout")), "timeouts"),
    "one attempt": (ECHO_LISTENER, proxy(lambda p: p.ClearField("max_connect_attempts")), "failover"),
    "no back-off": (ECHO_LISTENER, proxy(lambda p: p.ClearField("backoff_options")), "failover"),
    "no tunnel": (ECHO_LISTENER, proxy(lambda p: p.ClearField("tunneling_config")), "tunnel"),
    "table not there": (DOOR, manager(lambda m: setattr(m.rds, "route_config_name", "from/x")), "reference"),
    "nghttp2": (DOOR, manager(lambda m: m.http2_protocol_options.ClearField("use_oghttp2_codec")), "codec"),
    "few frames in": (
        DOOR,
        manager(lambda m: m.http2_protocol_options.ClearField("max_outbound_control_frames")),
        "frames",
    ),
    "few frames out": (WEST_GATEWAY, spoken(lambda o: o.ClearField("explicit_http_config")), "frames"),
    "few frames inside": (ECHO_CLUSTER, spoken(lambda o: o.ClearField("explicit_http_config")), "frames"),
    "no PINGs": (WEST_GATEWAY, spoken(lambda o: o.ClearField("explicit_http_config")), "keepalive"),
    "stream idle": (
        (LISTENER, "to/west"),
        manager(lambda m: m.ClearField("stream_idle_timeout")),
        "timeouts",
    ),
    "routes from elsewhere": (DOOR, manager(lambda m: m.rds.ClearField("config_source")), "over-ads"),
    "onward to nowhere": (ONWARD, route(lambda r: setattr(r.route, "cluster", "gone")), "reference"),
    "the same gateway again": (
        ONWARD,
        route(lambda r: r.route.retry_policy.ClearField("retry_host_predicate")),
        "failover",
    ),
    "endpoints from elsewhere": (ECHO_CLUSTER, lambda c: c.ClearField("eds_cluster_config"), "over-ads"),
    "active check of internal": (ECHO_CLUSTER, lambda c: c.health_checks.add(), "internal-health-check"),
    "internal without opt-out": (
        ECHO_ENDPOINTS,
        lambda a: a.endpoints[1].lb_endpoints[0].endpoint.ClearField("health_check_config"),
        "internal-health-check",
    ),
    "gap in priorities": (ECHO_ENDPOINTS, lambda a: setattr(a.endpoints[2], "priority", 3), "priorities"),
    "endpoint to nowhere": (
        ECHO_ENDPOINTS,
        lambda a: setattr(
            a.endpoints[1].lb_endpoints[0].endpoint.address.envoy_internal_address,
            "server_listener_name",
            "to/north",
        ),
        "reference",
    ),
    "no breakers": (ECHO_CLUSTER, lambda c: c.ClearField("circuit_breakers"), "limits"),
    "three retries": (
        ECHO_CLUSTER,
        lambda c: c.circuit_breakers.thresholds[0].ClearField("max_retries"),
        "limits",
    ),
    "long ejection": (
        ECHO_CLUSTER,
        lambda c: c.outlier_detection.ClearField("max_ejection_time"),
        "limits",
    ),
    "connect": (ECHO_CLUSTER, lambda c: c.ClearField("connect_timeout"), "timeouts"),
    "panic": (ECHO_CLUSTER, lambda c: c.common_lb_config.ClearField("healthy_panic_threshold"), "no-panic"),
    "TLS to backends": (
        (CLUSTER, "local/default/echo:80"),
        lambda c: c.transport_socket.CopyFrom(secrets.dial(ca("west").trust_domain, "east")),
        "known-transport",
    ),
    "authority twice": (TABLE, twice_the_domain, "one-host"),
    "route to nowhere": (TABLE, route(lambda r: setattr(r.route, "cluster", "gone")), "reference"),
    "route to any header": (
        TABLE,
        route(lambda r: setattr(r.route, "cluster_header", "x-cluster")),
        "one-cluster",
    ),
    "GET": (TABLE, route(lambda r: setattr(r.match, "prefix", "/")), "tunnel"),
    "15 seconds": (TABLE, route(lambda r: r.route.ClearField("timeout")), "timeouts"),
    "route idle": (TABLE, route(lambda r: r.route.ClearField("idle_timeout")), "timeouts"),
    "two names": (TABLE, lambda t: setattr(t, "name", "from/central"), "name"),
}


def rules(problems: tuple[Problem, ...]) -> set[str]:
    return {problem.rule for problem in problems}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_snapshot_meets_its_rule(case: str) -> None:
    key, change, rule = BAD[case]
    bad = changed(key, change)
    whole, step = check(bad), check(bad, check(GOOD))
    assert rule in rules(whole.problems), whole.problems
    assert whole.problems == step.problems
    mended = bad.replace([resource for kind in GOOD.types.values() for resource in kind.values()], ())
    assert check(mended, step).problems == ()


def test_a_good_snapshot_has_no_problem() -> None:
    assert check(GOOD).problems == ()


@pytest.mark.parametrize("key", sorted({r.key for kind in GOOD.types.values() for r in kind.values()}))
def test_what_something_else_needs_cannot_vanish(key: Key) -> None:
    """Only the doors themselves can go alone: nothing refers to them."""
    less = GOOD.replace((), [key])
    whole, step = check(less), check(less, check(GOOD))
    assert whole.problems == step.problems
    assert bool(whole.problems) is (key not in {DOOR, ECHO_LISTENER})
    assert rules(whole.problems) <= {"reference"}


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05ab"])
def test_what_cannot_be_read_is_a_problem(body: bytes) -> None:
    for kind in KINDS:
        bad = GOOD.replace([Resource.of(kind, "broken", body)], ())
        assert rules(check(bad).problems) == {"readable"}


def test_a_type_that_no_rule_reads_is_a_problem() -> None:
    bad = GOOD.replace([Resource.of("type.googleapis.com/envoy.service.runtime.v3.Runtime", "x", b"")], ())
    assert rules(check(bad).problems) == {"known-type"}


def test_a_problem_reads_as_one_line() -> None:
    bad = changed(ECHO_LISTENER, proxy(lambda p: setattr(p, "cluster", "gone")))
    assert [str(problem) for problem in check(bad).problems] == [
        "Listener default/echo:80: reference: Cluster gone is not there"
    ]


@given(st.lists(worlds(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_checking_step_by_step_finds_what_checking_the_whole_finds(history: list[Any], draw: Any) -> None:
    """Each step is followed by one in which a resource is missing."""
    compiled = start(history[0][0], Tuning())
    steps: dict[Any, Checked] = {}
    for around, plans in history:
        compiled = compile_step(compiled, {one: plans[one] for one in SERVICES}, around)
        for place, snapshot in compiled.snapshots.items():
            step = check(snapshot, steps.get(place))
            assert step.problems == check(snapshot).problems == ()
            steps[place] = step
            keys = sorted(key for kind in snapshot.types.values() for key in (r.key for r in kind.values()))
            holed = snapshot.replace((), [draw.choice(keys)])
            assert check(holed, step).problems == check(holed).problems
