"""What must hold of one resource alone, and what it needs of others: the small rules behind `gateway.check`.

Each rule has a name and one reason to refuse. What no rule can read is refused: a filter, a transport socket
or a resource type that nobody looks at could do anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from gateway import names, trust_rules
from gateway.clusters import PROTOCOL_OPTIONS
from gateway.finding import Claim, Flaw, Found, Need
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from gateway.pb.envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from gateway.pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from gateway.pb.envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from gateway.pb.envoy.config.listener.v3.listener_pb2 import Listener
from gateway.pb.envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from gateway.pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from gateway.pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from gateway.pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from gateway.pb.envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2 import (
    InternalUpstreamTransport,
)
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from gateway.pb.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from gateway.proto import PENDING_FRAMES
from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource


def look(resource: Resource) -> Found:
    """Everything that the rules say of one resource."""
    rule = _RULES.get(resource.type_url)
    if rule is None:
        yield Flaw("known-type", resource.type_url)
        return
    try:
        yield from rule(resource)
    except DecodeError:
        yield Flaw("readable", "not a message of its type")


def _cluster(resource: Resource) -> Found:
    cluster = Cluster.FromString(resource.body)
    yield from _named(resource, cluster.name)
    if cluster.type != Cluster.EDS or not cluster.eds_cluster_config.eds_config.HasField("ads"):
        yield Flaw("over-ads", "its endpoints must come over the same stream")
    yield Need((ENDPOINTS, cluster.eds_cluster_config.service_name or cluster.name))
    if not _positive(cluster.connect_timeout):
        yield Flaw("timeouts", "connect_timeout")
    if not _limited(cluster):
        yield Flaw("limits", "circuit breakers for connections, pending, requests and retries must be set")
    panic = cluster.common_lb_config
    if not panic.HasField("healthy_panic_threshold") or panic.healthy_panic_threshold.value:
        yield Flaw("no-panic", "unhealthy endpoints would get traffic")
    if not cluster.outlier_detection.HasField("max_ejection_time"):
        yield Flaw("limits", "outlier_detection.max_ejection_time (Envoy's default is 300 s)")
    yield from _cluster_socket(cluster)


def _cluster_socket(cluster: Cluster) -> Found:
    socket = cluster.transport_socket
    if socket.typed_config.Is(InternalUpstreamTransport.DESCRIPTOR):
        yield from _frames(_http2(cluster))
        if cluster.health_checks:
            yield Flaw("internal-health-check", "Envoy aborts on an active check of an internal address")
    elif not names.parse_local_cluster(cluster.name):
        yield from trust_rules.upstream(socket)
        yield from _frames(_http2(cluster))
        if not _positive(_http2(cluster).connection_keepalive.interval):
            yield Flaw("keepalive", "a silent gateway would keep its tunnels")
    elif cluster.HasField("transport_socket"):
        yield Flaw("known-transport", f"{socket.name} towards our own backends")


def _http2(cluster: Cluster) -> Http2ProtocolOptions:
    options = HttpProtocolOptions()
    cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS].Unpack(options)
    return options.explicit_http_config.http2_protocol_options


def _frames(options: Http2ProtocolOptions) -> Found:
    if options.max_outbound_control_frames.value < PENDING_FRAMES:
        yield Flaw("frames", "many resets at once would end the shared connection")


def _limited(cluster: Cluster) -> bool:
    thresholds = cluster.circuit_breakers.thresholds
    return bool(thresholds) and all(
        one.HasField("max_connections")
        and one.HasField("max_pending_requests")
        and one.HasField("max_requests")
        and one.HasField("max_retries")
        for one in thresholds
    )


def _endpoints(resource: Resource) -> Found:
    assignment = ClusterLoadAssignment.FromString(resource.body)
    yield from _named(resource, assignment.cluster_name)
    tiers = [one.priority for one in assignment.endpoints]
    if sorted(set(tiers)) != list(range(len(set(tiers)))):
        yield Flaw("priorities", f"{tiers} has gaps")
    for tier in assignment.endpoints:
        for one in tier.lb_endpoints:
            endpoint = one.endpoint
            if not endpoint.address.HasField("envoy_internal_address"):
                continue
            listener = endpoint.address.envoy_internal_address.server_listener_name
            yield Need((LISTENER, listener))
            if not endpoint.health_check_config.disable_active_health_check:
                yield Flaw("internal-health-check", f"{listener} must opt out of active checks")


def _secret(resource: Resource) -> Found:
    secret = Secret.FromString(resource.body)
    yield from _named(resource, secret.name)
    yield from trust_rules.secret(secret)


def _listener(resource: Resource) -> Found:
    listener = Listener.FromString(resource.body)
    yield from _named(resource, listener.name)
    chains = list(listener.filter_chains)
    if listener.HasField("default_filter_chain") or not chains:
        yield Flaw("chains", "at least one chain, and no default that takes what fits nowhere")
    if not listener.HasField("internal_listener"):
        address = listener.address.socket_address
        yield Claim(f"{address.address}:{address.port_value}")
    for chain in chains:
        for one in chain.filters:
            yield from _filter(one)
        if listener.name == names.EAST_WEST:
            yield from _peer_chain(chain)
        elif chain.HasField("transport_socket"):
            yield Flaw("known-transport", f"{chain.transport_socket.name} on a listener for local clients")


def _peer_chain(chain: FilterChain) -> Found:
    """SNI, bundle and route table of a chain must all be those of one peer."""
    yield from trust_rules.downstream(chain.transport_socket)
    if not _positive(chain.transport_socket_connect_timeout):
        yield Flaw("timeouts", f"{chain.name}: transport_socket_connect_timeout")
    managers = [hcm.HttpConnectionManager() for _ in chain.filters]
    read = [one.typed_config.Unpack(manager) for one, manager in zip(chain.filters, managers, strict=True)]
    if read != [True]:
        yield Flaw("one-peer", f"{chain.name}: a chain for a peer is one connection manager")
        return
    peer = names.parse_inbound(managers[0].rds.route_config_name) or "?"
    asked = list(chain.filter_chain_match.server_names)
    if len(asked) != 1 or not asked[0].startswith(f"from-{peer}."):
        yield Flaw("one-peer", f"{chain.name}: the SNI {asked} is not that of the route table of {peer}")
    domain = trust_rules.trusted(chain.transport_socket)
    if domain is not None and domain.name.partition(".")[0] != peer:
        yield Flaw("one-peer", f"{chain.name}: the route table of {peer} for certificates of {domain}")


def _filter(given: Filter) -> Found:
    proxy, manager = TcpProxy(), hcm.HttpConnectionManager()
    if given.typed_config.Unpack(proxy):
        yield from _tcp_proxy(proxy)
    elif given.typed_config.Unpack(manager):
        yield from _manager(manager)
    else:
        yield Flaw("known-filter", given.typed_config.type_url or given.name)


def _tcp_proxy(proxy: TcpProxy) -> Found:
    yield Need((CLUSTER, proxy.cluster))
    if not _positive(proxy.idle_timeout):
        yield Flaw("timeouts", "tcp_proxy.idle_timeout")
    if not proxy.tunneling_config.hostname:
        yield Flaw("tunnel", "a connection must become a CONNECT")
    if proxy.max_connect_attempts.value < 2 or not _positive(proxy.backoff_options.base_interval):
        yield Flaw("failover", "attempts without back-off all meet the endpoint that just failed")


def _manager(manager: hcm.HttpConnectionManager) -> Found:
    http2 = manager.http2_protocol_options
    if manager.codec_type != hcm.HttpConnectionManager.HTTP2 or not http2.use_oghttp2_codec.value:
        yield Flaw("codec", "tunnels need HTTP/2 by oghttp2")
    yield from _frames(http2)
    if not _positive(manager.stream_idle_timeout):
        yield Flaw("timeouts", "stream_idle_timeout (Envoy's default is 5 min)")
    if not manager.rds.config_source.HasField("ads"):
        yield Flaw("over-ads", "its routes must come over the same stream")
    yield Need((ROUTES, manager.rds.route_config_name))


def _routes(resource: Resource) -> Found:
    """A table changes by single hosts, so what was said of a host is remembered by its bytes."""
    table = RouteConfiguration.FromString(resource.body)
    yield from _named(resource, table.name)
    domains: list[str] = []
    for host in table.virtual_hosts:
        asked, found = _host(host.SerializeToString())
        domains += asked
        yield from found
    if len(set(domains)) < len(domains):
        for domain, times in Counter(domains).items():
            if times > 1:
                yield Flaw("one-host", f"{domain} {times} times in {table.name}")


@lru_cache(maxsize=65_536)
def _host(encoded: bytes) -> tuple[tuple[str, ...], tuple[Flaw | Need | Claim, ...]]:
    """The authorities that a virtual host answers for, and what the rules say of it."""
    host = VirtualHost.FromString(encoded)
    return tuple(host.domains), tuple(one for route in host.routes for one in _route(route, host.name))


def _route(route: Route, host: str) -> Found:
    if route.WhichOneof("action") != "route" or route.route.WhichOneof("cluster_specifier") != "cluster":
        yield Flaw("one-cluster", f"{host}: a route leads to one cluster")
        return
    action = route.route
    yield Need((CLUSTER, action.cluster))
    if not route.match.HasField("connect_matcher"):
        yield Flaw("tunnel", f"{host}: only a CONNECT may pass")
    if not action.HasField("timeout") or _positive(action.timeout) or not _positive(action.idle_timeout):
        yield Flaw("timeouts", f"{host}: timeout 0 and an idle_timeout")
    retries = action.retry_policy
    if "reset" in retries.retry_on.split(",") and not retries.retry_host_predicate:
        yield Flaw("failover", f"{host}: a retry after a reset must go to a host that was not tried")


def _named(resource: Resource, inner: str) -> Found:
    if inner != resource.name:
        yield Flaw("name", f"the message inside is called {inner or 'nothing'}")


def _positive(duration: Duration) -> bool:
    return duration.seconds > 0 or (duration.seconds == 0 and duration.nanos > 0)


_RULES: dict[str, Callable[[Resource], Found]] = {
    CLUSTER: _cluster,
    ENDPOINTS: _endpoints,
    SECRET: _secret,
    LISTENER: _listener,
    ROUTES: _routes,
}
