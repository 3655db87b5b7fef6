"""The Kubernetes objects that describe a service, as they are written: v1 Service, discovery.k8s.io/v1
EndpointSlice, multicluster.x-k8s.io/v1beta1 ServiceExport.

An unknown field is refused everywhere, because a misspelt one would silently mean its default. Fields that Kubernetes
has and nobody here reads are listed as `Ignored`: what an API server adds (`uid`, `managedFields`, `status`), and what
matters only inside a cluster (`selector`, `targetPort`), so that the output of `kubectl get -o yaml` can be kept as
it is. Whether names, numbers and addresses make sense is `faults`' question, not asked here.

Two annotations of a ServiceExport are ours:

- `federation/scope: "west,central"`: only these clusters see the export; without it, all do.
- `federation/capacity: "40"`: the weight of the service here while all its endpoints are ready; without it, their
  number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from federation.model import Service as ServiceName

PREFIX = "federation/"
SCOPE = PREFIX + "scope"
CAPACITY = PREFIX + "capacity"
SERVICE_NAME = "kubernetes.io/service-name"
"""The label that says which Service an EndpointSlice belongs to (KEP-752)."""

Ignored = Any
Number = Annotated[int, Meta(ge=1, le=65535)]
Protocol = Literal["TCP", "UDP", "SCTP"]
Family = Literal["IPv4", "IPv6"]


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Which object: unlike a file and a line, it stays the same when an object moves."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Metadata(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    name: str
    namespace: str = "default"
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    creation_timestamp: Ignored = None
    deletion_grace_period_seconds: Ignored = None
    deletion_timestamp: Ignored = None
    finalizers: Ignored = None
    generate_name: Ignored = None
    generation: Ignored = None
    managed_fields: Ignored = None
    owner_references: Ignored = None
    resource_version: Ignored = None
    self_link: Ignored = None
    uid: Ignored = None


class ServicePort(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """`targetPort` is not read: the ports of EndpointSlices are the real ones."""

    port: Number
    name: str = ""
    protocol: Protocol = "TCP"
    app_protocol: str = ""
    node_port: Ignored = None
    target_port: Ignored = None


class ClientIp(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    timeout_seconds: Annotated[int, Meta(ge=1, le=86400)] = 10800


class SessionAffinityConfig(Struct, frozen=True, forbid_unknown_fields=True):
    client_ip: ClientIp = field(default=ClientIp(), name="clientIP")


class ServiceSpec(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    ports: Annotated[tuple[ServicePort, ...], Meta(max_length=100)] = ()
    cluster_ip: str = field(default="", name="clusterIP")
    ip_families: Annotated[tuple[Family, ...], Meta(max_length=2)] = ()
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: SessionAffinityConfig = SessionAffinityConfig()
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    allocate_load_balancer_node_ports: Ignored = None
    cluster_ips: Ignored = field(default=None, name="clusterIPs")
    external_ips: Ignored = field(default=None, name="externalIPs")
    external_name: Ignored = None
    external_traffic_policy: Ignored = None
    health_check_node_port: Ignored = None
    internal_traffic_policy: Ignored = None
    ip_family_policy: Ignored = None
    load_balancer_class: Ignored = None
    load_balancer_ip: Ignored = field(default=None, name="loadBalancerIP")
    load_balancer_source_ranges: Ignored = None
    publish_not_ready_addresses: Ignored = None
    selector: Ignored = None
    traffic_distribution: Ignored = None

    @property
    def is_headless(self) -> bool:
        return self.cluster_ip == "None"


class _Object(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """What all objects have."""

    api_version: str
    kind: str
    metadata: Metadata

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.metadata.namespace, self.metadata.name)

    @property
    def service(self) -> ServiceName:
        """The service that this object says something about."""
        return ServiceName(self.metadata.namespace, self.metadata.name)


class Service(_Object, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    spec: ServiceSpec
    status: Ignored = None


class Conditions(Struct, frozen=True, forbid_unknown_fields=True):
    """Each may be unknown (null). `serving` is not read: only what is ready gets traffic."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Only the first of `addresses` counts: the others have no semantics (discovery.k8s.io/v1)."""

    addresses: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    conditions: Conditions = Conditions()
    zone: str = ""
    deprecated_topology: Ignored = None
    hints: Ignored = None
    hostname: Ignored = None
    node_name: Ignored = None
    target_ref: Ignored = None


class EndpointPort(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    port: Number
    name: str | None = None
    protocol: Protocol = "TCP"
    app_protocol: Ignored = None


class EndpointSlice(_Object, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """`endpoints` must be written, as [] or null where there is none: an explicit zero is not an omission."""

    api_version: Literal["discovery.k8s.io/v1"]
    kind: Literal["EndpointSlice"]
    address_type: Family
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=1000)] | None
    ports: Annotated[tuple[EndpointPort, ...], Meta(max_length=100)] | None

    @property
    def service(self) -> ServiceName:
        return ServiceName(self.metadata.namespace, self.metadata.labels.get(SERVICE_NAME, ""))


class ServiceExportSpec(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    exported_labels: Mapping[str, str] = {}
    exported_annotations: Mapping[str, str] = {}


class ServiceExport(_Object, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    api_version: Literal["multicluster.x-k8s.io/v1beta1"]
    kind: Literal["ServiceExport"]
    spec: ServiceExportSpec = ServiceExportSpec()
    status: Ignored = None

    @property
    def scope(self) -> frozenset[str] | None:
        text = self.metadata.annotations.get(SCOPE)
        return None if text is None else frozenset(name.strip() for name in text.split(","))

    @property
    def capacity(self) -> int | None:
        text = self.metadata.annotations.get(CAPACITY)
        return None if text is None else int(text)


KubeObject = Service | EndpointSlice | ServiceExport

BY_KIND: Mapping[str, type[KubeObject]] = {
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "ServiceExport": ServiceExport,
}
