"""What an Envoy is started with: where its configuration comes from, and what must not be left to defaults.

All the rest comes over ADS. Envoy waits without limit for its first clusters and listeners: a gateway without any
configuration serves nothing, and says so, instead of becoming ready with nothing to offer. What those refer to is
waited for as each resource says.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.struct_pb2 import Struct

from gateway.pb.envoy.config.bootstrap.v3.bootstrap_pb2 import Admin, Bootstrap, LayeredRuntime, RuntimeLayer
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from gateway.pb.envoy.config.core.v3.address_pb2 import Address, Pipe
from gateway.pb.envoy.config.core.v3.base_pb2 import Node
from gateway.pb.envoy.config.core.v3.config_source_pb2 import (
    AggregatedConfigSource,
    ApiConfigSource,
    ApiVersion,
    ConfigSource,
)
from gateway.pb.envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from gateway.pb.envoy.config.core.v3.grpc_service_pb2 import GrpcService
from gateway.pb.envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from gateway.pb.envoy.config.endpoint.v3.endpoint_components_pb2 import (
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from gateway.pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from gateway.pb.envoy.config.metrics.v3.stats_pb2 import StatsConfig, StatsMatcher
from gateway.pb.envoy.config.overload.v3.overload_pb2 import OverloadManager, ResourceMonitor
from gateway.pb.envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2 import InternalListener
from gateway.pb.envoy.extensions.resource_monitors.downstream_connections.v3.downstream_connections_pb2 import (
    DownstreamConnectionsConfig,
)
from gateway.pb.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from gateway.pb.envoy.type.matcher.v3.string_pb2 import ListStringMatcher, StringMatcher
from gateway.proto import packed, seconds

XDS = "xds"
"""The one static cluster: the gateway process."""

MOST_CONNECTIONS = 50_000
"""Downstream connections that one Envoy accepts (Envoy's edge guide)."""

RESETS = 1_000_000
"""`overload.premature_reset_total_stream_count`. Envoy's default of 500 closes a connection that many short tunnels
share, and peers are authenticated gateways."""

_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
_SILENT = ("vhost.", "http.admin.", "workers.", "listener.admin.")
"""Prefixes of statistics that nobody reads and that would be counted for each exported service."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Unix sockets, as paths that Envoy can open: where it takes its configuration, and where it is administered."""

    xds: str
    admin: str


def bootstrap(instance: str, cluster: str, sockets: Sockets) -> Bootstrap:
    """For the Envoy of the gateway `instance` of `cluster`."""
    return Bootstrap(
        node=Node(id=instance, cluster=cluster),
        admin=Admin(address=Address(pipe=Pipe(path=sockets.admin, mode=0o600))),
        dynamic_resources=_dynamic_resources(),
        static_resources=Bootstrap.StaticResources(clusters=[_xds_cluster(sockets.xds)]),
        bootstrap_extensions=[
            TypedExtensionConfig(
                name="envoy.bootstrap.internal_listener", typed_config=packed(InternalListener())
            )
        ],
        layered_runtime=LayeredRuntime(layers=[RuntimeLayer(name="static", static_layer=_runtime())]),
        overload_manager=OverloadManager(
            resource_monitors=[
                ResourceMonitor(
                    name=_CONNECTIONS,
                    typed_config=packed(
                        DownstreamConnectionsConfig(max_active_downstream_connections=MOST_CONNECTIONS)
                    ),
                )
            ]
        ),
        stats_config=StatsConfig(
            stats_matcher=StatsMatcher(
                exclusion_list=ListStringMatcher(patterns=[StringMatcher(prefix=p) for p in _SILENT])
            )
        ),
    )


def _dynamic_resources() -> Bootstrap.DynamicResources:
    over_ads = ConfigSource(
        ads=AggregatedConfigSource(),
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=seconds(0),
    )
    return Bootstrap.DynamicResources(
        ads_config=ApiConfigSource(
            api_type=ApiConfigSource.DELTA_GRPC,
            transport_api_version=ApiVersion.V3,
            grpc_services=[GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=XDS))],
            set_node_on_first_message_only=True,
        ),
        cds_config=over_ads,
        lds_config=over_ads,
    )


def _xds_cluster(path: str) -> Cluster:
    endpoint = Endpoint(address=Address(pipe=Pipe(path=path)))
    http2 = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions()
        )
    )
    return Cluster(
        name=XDS,
        type=Cluster.STATIC,
        connect_timeout=seconds(1),
        load_assignment=ClusterLoadAssignment(
            cluster_name=XDS,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=endpoint)])],
        ),
        typed_extension_protocol_options={_HTTP: packed(http2)},
    )


def _runtime() -> Struct:
    layer = Struct()
    layer["overload.premature_reset_total_stream_count"] = RESETS
    return layer
