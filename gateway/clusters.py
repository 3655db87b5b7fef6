"""How Envoy reaches and watches what it sends to: a cluster an imported service, an exported one, a peer.

Each kind of trouble is seen in one place. The cluster of a service ejects (service, other cluster) at the
first failed CONNECT. `gateway/<cluster>` watches the path: probes, PINGs, and failures of its own connections
only, so a sick service never ejects a gateway. `local/<service>` watches backends.

No active health check where endpoints are internal addresses: Envoy 1.40 aborts on one.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from federation.inputs import Peer
from federation.model import Service
from gateway import names, secrets
from gateway.pb.envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from gateway.pb.envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from gateway.pb.envoy.config.core.v3.base_pb2 import TransportSocket
from gateway.pb.envoy.config.core.v3.health_check_pb2 import HealthCheck
from gateway.pb.envoy.config.core.v3.protocol_pb2 import KeepaliveSettings
from gateway.pb.envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2 import (
    InternalUpstreamTransport,
)
from gateway.pb.envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from gateway.pb.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from gateway.pb.envoy.type.v3.http_pb2 import CodecClientType
from gateway.pb.envoy.type.v3.percent_pb2 import Percent
from gateway.proto import http2, idle_connection, over_ads, packed, resource, seconds
from gateway.snapshot import CLUSTER, Resource
from gateway.tuning import Limits, Tuning, TunnelTuning

READY = "/ready"
"""The path that a gateway's chain answers while its process wants traffic."""

PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
"""The key of a cluster's `typed_extension_protocol_options`."""


def imported_cluster(service: Service, port: int, tuning: Tuning) -> Resource:
    """The clusters that answer for a service, each reached through an internal listener."""
    cluster = _cluster(names.imported(service, port), tuning.path.connect_timeout, tuning.limits)
    cluster.ignore_health_on_host_removal = True
    cluster.transport_socket.CopyFrom(_INTERNAL)
    cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS].CopyFrom(_http2(tuning.tunnel))
    cluster.outlier_detection.CopyFrom(_eject_connect_failures(tuning.tunnel))
    outliers = cluster.outlier_detection
    outliers.consecutive_5xx.value = 1
    outliers.consecutive_gateway_failure.value = 1
    outliers.enforcing_consecutive_gateway_failure.value = 100
    return resource(CLUSTER, cluster.name, cluster)


def local_cluster(service: Service, port: int, tuning: Tuning) -> Resource:
    """Our own backends, each checked by a TCP connect."""
    backend = tuning.backend
    cluster = _cluster(names.local_cluster(service, port), backend.connect_timeout, tuning.limits)
    cluster.outlier_detection.CopyFrom(_eject_connect_failures(tuning.tunnel))
    check = _check(backend.check_interval, backend.check_timeout, backend.check_failures)
    check.tcp_health_check.SetInParent()
    cluster.health_checks.append(check)
    return resource(CLUSTER, cluster.name, cluster)


def gateway_cluster(peer: Peer, me: str, tuning: Tuning) -> Resource:
    """The gateways of another cluster: one pool of connections for all tunnels that go there."""
    path = tuning.path
    cluster = _cluster(names.gateway(peer.name), path.connect_timeout, tuning.limits)
    cluster.ignore_health_on_host_removal = True
    cluster.transport_socket.CopyFrom(secrets.dial(peer.trust_domain, me))
    keepalive = KeepaliveSettings(
        interval=seconds(path.ping_interval),
        timeout=seconds(path.ping_timeout),
        interval_jitter=Percent(value=0),
    )
    cluster.typed_extension_protocol_options[PROTOCOL_OPTIONS].CopyFrom(_http2(tuning.tunnel, keepalive))
    cluster.outlier_detection.CopyFrom(_eject_connect_failures(tuning.tunnel))
    outliers = cluster.outlier_detection
    outliers.enforcing_consecutive_5xx.value = 0
    outliers.enforcing_consecutive_gateway_failure.value = 0
    outliers.enforcing_success_rate.value = 0
    check = _check(path.probe_interval, path.probe_timeout, path.probe_failures)
    check.http_health_check.CopyFrom(
        HealthCheck.HttpHealthCheck(
            host=names.sni(me, peer.trust_domain), path=READY, codec_client_type=CodecClientType.HTTP2
        )
    )
    cluster.health_checks.append(check)
    return resource(CLUSTER, cluster.name, cluster)


def _cluster(name: str, connect_timeout: float, limits: Limits) -> Cluster:
    return Cluster(
        name=name,
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=over_ads()),
        connect_timeout=seconds(connect_timeout),
        common_lb_config=Cluster.CommonLbConfig(
            healthy_panic_threshold=Percent(value=0), update_merge_window=Duration()
        ),
        circuit_breakers=CircuitBreakers(
            thresholds=[
                CircuitBreakers.Thresholds(
                    max_connections=UInt32Value(value=limits.connections),
                    max_pending_requests=UInt32Value(value=limits.pending),
                    max_requests=UInt32Value(value=limits.requests),
                    max_retries=UInt32Value(value=limits.retries),
                )
            ]
        ),
    )


def _eject_connect_failures(tunnel: TunnelTuning) -> OutlierDetection:
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=UInt32Value(value=1),
        enforcing_consecutive_local_origin_failure=UInt32Value(value=100),
        interval=seconds(0.5),
        base_ejection_time=seconds(tunnel.ejection),
        max_ejection_time=seconds(tunnel.longest_ejection),
        max_ejection_percent=UInt32Value(value=100),
    )


def _check(interval: float, timeout: float, failures: int) -> HealthCheck:
    return HealthCheck(
        interval=seconds(interval),
        no_traffic_interval=seconds(interval),
        timeout=seconds(timeout),
        unhealthy_threshold=UInt32Value(value=failures),
        healthy_threshold=UInt32Value(value=1),
    )


def _http2(tunnel: TunnelTuning, keepalive: KeepaliveSettings | None = None) -> Any:
    options = http2()
    if keepalive is not None:
        options.connection_keepalive.CopyFrom(keepalive)
    return packed(
        HttpProtocolOptions(
            common_http_protocol_options=idle_connection(tunnel),
            explicit_http_config=HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=options),
        )
    )


_INTERNAL = TransportSocket(
    name="internal",
    typed_config=packed(
        InternalUpstreamTransport(
            transport_socket=TransportSocket(name="raw", typed_config=packed(RawBuffer()))
        )
    ),
)
