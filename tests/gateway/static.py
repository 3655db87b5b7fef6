"""A snapshot as a bootstrap without xDS, so that Envoy can be asked about it, or run, with nothing else there.

What came over ADS is put in place: endpoints into clusters, route tables into connection managers, secrets into the
bootstrap. All else stays as the compiler made it.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf.any_pb2 import Any

from gateway import names
from gateway.pb.envoy.config.bootstrap.v3.bootstrap_pb2 import Admin, Bootstrap, LayeredRuntime, RuntimeLayer
from gateway.pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from gateway.pb.envoy.config.core.v3.address_pb2 import Address, Pipe
from gateway.pb.envoy.config.core.v3.base_pb2 import DataSource, Node
from gateway.pb.envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from gateway.pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from gateway.pb.envoy.config.listener.v3.listener_pb2 import Listener
from gateway.pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from gateway.pb.envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2 import InternalListener
from gateway.pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsCertificate
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from gateway.pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    CommonTlsContext,
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from gateway.proto import packed
from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Snapshot
from tests.gateway.certificates import Identity


def bootstrap(snapshot: Snapshot, node: str, admin: Path, identity: Identity) -> Bootstrap:
    """The whole snapshot as static resources, admin on a unix socket."""
    made = Bootstrap(
        node=Node(id=node, cluster=node),
        admin=Admin(address=Address(pipe=Pipe(path=str(admin), mode=0o600))),
        bootstrap_extensions=[
            TypedExtensionConfig(
                name="envoy.bootstrap.internal_listener", typed_config=packed(InternalListener())
            )
        ],
    )
    runtime = RuntimeLayer(name="static")
    runtime.static_layer.update({"overload.premature_reset_total_stream_count": 1_000_000})
    made.layered_runtime.CopyFrom(LayeredRuntime(layers=[runtime]))
    resources = made.static_resources
    resources.clusters.extend(_cluster(snapshot, name) for name in sorted(snapshot.of(CLUSTER)))
    resources.listeners.extend(_listener(snapshot, name) for name in sorted(snapshot.of(LISTENER)))
    for _, secret in sorted(snapshot.of(SECRET).items()):
        resources.secrets.append(Secret.FromString(secret.body))
    certificate = TlsCertificate(
        certificate_chain=DataSource(filename=str(identity.chain)),
        private_key=DataSource(filename=str(identity.key)),
    )
    resources.secrets.append(Secret(name=names.IDENTITY, tls_certificate=certificate))
    return made


def message_body(snapshot: Snapshot, type_url: str, name: str) -> bytes:
    found = snapshot.get(type_url, name)
    assert found is not None, (type_url, name)
    return found.body


def _cluster(snapshot: Snapshot, name: str) -> Cluster:
    cluster = Cluster.FromString(message_body(snapshot, CLUSTER, name))
    cluster.type = Cluster.STATIC
    cluster.ClearField("eds_cluster_config")
    cluster.load_assignment.CopyFrom(
        ClusterLoadAssignment.FromString(message_body(snapshot, ENDPOINTS, name))
    )
    context = UpstreamTlsContext()
    if cluster.transport_socket.typed_config.Unpack(context):
        _from_bootstrap(context.common_tls_context)
        cluster.transport_socket.typed_config.CopyFrom(packed(context))
    return cluster


def _listener(snapshot: Snapshot, name: str) -> Listener:
    listener = Listener.FromString(message_body(snapshot, LISTENER, name))
    for chain in listener.filter_chains:
        context = DownstreamTlsContext()
        if chain.transport_socket.typed_config.Unpack(context):
            _from_bootstrap(context.common_tls_context)
            chain.transport_socket.typed_config.CopyFrom(packed(context))
        for one in chain.filters:
            _with_routes(snapshot, one.typed_config)
    return listener


def _with_routes(snapshot: Snapshot, config: Any) -> None:
    manager = hcm.HttpConnectionManager()
    if config.Unpack(manager) and manager.HasField("rds"):
        body = message_body(snapshot, ROUTES, manager.rds.route_config_name)
        manager.route_config.CopyFrom(RouteConfiguration.FromString(body))
        config.CopyFrom(packed(manager))


def _from_bootstrap(context: CommonTlsContext) -> None:
    for certificate in context.tls_certificate_sds_secret_configs:
        certificate.ClearField("sds_config")
    context.combined_validation_context.validation_context_sds_secret_config.ClearField("sds_config")
