"""Where connections come in: a listener an imported service, one for peers, and the internal ones between.

Established connections end when their listener's filter chains change, after the drain time. So nothing that
changes often is in here: exports are routes, bundles and certificates are secrets, plans are endpoints. The
listener for peers changes when a cluster joins or leaves, and then only that cluster's chain does.

Every connection manager speaks HTTP/2 by oghttp2: Envoy's default codec ends a connection, and with it every
tunnel inside, at 33 reset streams a second.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from federation.inputs import Peer
from federation.model import Service
from gateway import accesslog, names, secrets
from gateway.clusters import READY
from gateway.pb.envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from gateway.pb.envoy.config.core.v3.backoff_pb2 import BackoffStrategy
from gateway.pb.envoy.config.core.v3.base_pb2 import TrafficDirection
from gateway.pb.envoy.config.listener.v3.listener_components_pb2 import (
    Filter,
    FilterChain,
    FilterChainMatch,
    ListenerFilter,
)
from gateway.pb.envoy.config.listener.v3.listener_pb2 import Listener
from gateway.pb.envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from gateway.pb.envoy.extensions.filters.http.health_check.v3.health_check_pb2 import (
    HealthCheck,
)
from gateway.pb.envoy.extensions.filters.http.router.v3.router_pb2 import Router
from gateway.pb.envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2 import TlsInspector
from gateway.pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from gateway.pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from gateway.pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from gateway.proto import encode, http2, idle_connection, over_ads, packed, resource, seconds, socket_address
from gateway.snapshot import LISTENER, Resource
from gateway.tuning import Tuning, TunnelTuning
from pki.spiffe import TrustDomain


def imported_listener(service: Service, port: int, me: str, tuning: Tuning) -> bytes:
    """The listener of an imported service, encoded, without its address: see `at`."""
    name = names.imported(service, port)
    tunnel = tuning.tunnel
    proxy = TcpProxy(
        stat_prefix=name,
        cluster=name,
        idle_timeout=seconds(tunnel.idle_timeout),
        max_connect_attempts=UInt32Value(value=tunnel.connect_attempts),
        backoff_options=BackoffStrategy(
            base_interval=seconds(tunnel.backoff), max_interval=seconds(tunnel.longest_backoff)
        ),
        tunneling_config=TcpProxy.TunnelingConfig(hostname=names.authority(service, port)),
        access_log=accesslog.outbound(tuning.access_log, me, name),
    )
    return encode(
        Listener(
            name=name,
            traffic_direction=TrafficDirection.OUTBOUND,
            filter_chains=[FilterChain(filters=[Filter(name="tcp", typed_config=packed(proxy))])],
        )
    )


def at(listener: bytes, name: str, address: str, port: int) -> Resource:
    """`listener` bound to `address`: encoded messages that follow each other merge (protobuf encoding, "last
    one wins"), so gateways of one class share all but the few bytes that differ."""
    bound = encode(Listener(address=socket_address(address, port)))
    return Resource.of(LISTENER, name, listener + bound)


def east_west(peers: Iterable[Peer], me: str, base: str, tuning: Tuning) -> bytes:
    """The listener for peers, encoded, without its address.

    One chain a peer, chosen by SNI. Without a chain the connection is closed: there is no default. At least
    one peer is needed, because Envoy refuses a listener without chains.
    """
    return encode(
        Listener(
            name=names.EAST_WEST,
            traffic_direction=TrafficDirection.INBOUND,
            listener_filters=[ListenerFilter(name="tls_inspector", typed_config=packed(TlsInspector()))],
            listener_filters_timeout=seconds(tuning.path.handshake_timeout),
            filter_chains=[
                FilterChain(
                    name=names.inbound(peer.name),
                    filter_chain_match=FilterChainMatch(
                        server_names=[names.sni(peer.name, TrustDomain.of_cluster(me, base))]
                    ),
                    transport_socket=secrets.accept(peer.trust_domain),
                    transport_socket_connect_timeout=seconds(tuning.path.handshake_timeout),
                    filters=[_exports(names.inbound(peer.name), me, peer.name, tuning)],
                )
                for peer in peers
            ],
        )
    )


def local(me: str, tuning: Tuning) -> Resource:
    """The internal listener that ends our own tunnels: what peers get from us, without TLS."""
    return _internal(names.LOCAL, _exports(names.LOCAL, me, me, tuning))


def onward(cluster: str, tuning: Tuning) -> Resource:
    """The internal listener that passes tunnels on to the gateways of `cluster`."""
    name = names.to(cluster)
    return _internal(name, _manager(name, [_ROUTER], [], tuning.tunnel))


def _internal(name: str, manager: Filter) -> Resource:
    listener = Listener(
        name=name,
        internal_listener=Listener.InternalListenerConfig(),
        filter_chains=[FilterChain(filters=[manager])],
    )
    return resource(LISTENER, name, listener)


def _exports(table: str, me: str, source: str, tuning: Tuning) -> Filter:
    log = accesslog.inbound(tuning.access_log, me, source)
    return _manager(table, [_READINESS, _ROUTER], log, tuning.tunnel)


def _manager(name: str, filters: list[hcm.HttpFilter], log: list[AccessLog], tunnel: TunnelTuning) -> Filter:
    options = http2()
    options.allow_connect = True
    options.use_oghttp2_codec.value = True
    manager = hcm.HttpConnectionManager(
        stat_prefix=name,
        codec_type=hcm.HttpConnectionManager.HTTP2,
        http2_protocol_options=options,
        upgrade_configs=[hcm.HttpConnectionManager.UpgradeConfig(upgrade_type="CONNECT")],
        stream_idle_timeout=seconds(tunnel.idle_timeout),
        common_http_protocol_options=idle_connection(tunnel),
        http_filters=filters,
        access_log=log,
        rds=hcm.Rds(route_config_name=name, config_source=over_ads()),
    )
    return Filter(name="http", typed_config=packed(manager))


_ROUTER = hcm.HttpFilter(name="router", typed_config=packed(Router(suppress_envoy_headers=True)))

_READINESS = hcm.HttpFilter(
    name="readiness",
    typed_config=packed(
        HealthCheck(
            pass_through_mode=BoolValue(value=False),
            headers=[HeaderMatcher(name=":path", string_match=StringMatcher(exact=READY))],
        )
    ),
)
