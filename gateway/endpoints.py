"""Where traffic of a service, to a service and to a cluster may go: ClusterLoadAssignments.

A service has one endpoint per cluster. The tier of a plan is Envoy's priority, the weight of a line its
weight. A demoted line stays, unhealthy: its tier keeps its index, and `explain` and Envoy show the same rows.
What Envoy must know to be explainable (cluster, tier, reason, version of the plan) travels as endpoint
metadata, never in a listener, because a changed listener ends its connections.

Envoy's share for a tier is `min(100 %, overprovisioning * healthy weight / total weight)`. The plan decides
shares by tiers and weights alone, so the factor is large enough for the lightest line of a tier to hold all
of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value

from federation.inputs import Peer
from federation.route import Line, PortPlan, Tier
from gateway import names
from gateway.pb.envoy.config.core.v3.base_pb2 import Metadata
from gateway.pb.envoy.config.core.v3.health_check_pb2 import HEALTHY, UNHEALTHY
from gateway.pb.envoy.config.endpoint.v3.endpoint_components_pb2 import (
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from gateway.pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from gateway.proto import internal_address, resource, socket_address
from gateway.snapshot import ENDPOINTS, Resource

TIER_WEIGHT = 4_000
"""The weights of a tier are scaled down to about this sum: a share is exact to 0.025 %."""

OVERPROVISIONING = 500_000
"""Percent. At least 100 * (TIER_WEIGHT + clusters of a tier), for up to 1,000 clusters; and times that sum
still below 2^32, the width that Envoy multiplies in."""


def plan_version(plan: PortPlan) -> str:
    """A short name for what a plan says; the same wherever the same plan is computed."""
    return sha256(repr((plan.service, plan.port, plan.tiers)).encode()).hexdigest()[:8]


def imported_endpoints(plan: PortPlan, me: str) -> Resource:
    """The clusters that answer for a service, as the endpoints of `names.imported`."""
    version = plan_version(plan)
    name = names.imported(plan.service, plan.port.number)
    assignment = ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[_tier(index, tier, me, version) for index, tier in enumerate(plan.tiers)],
        policy=ClusterLoadAssignment.Policy(
            overprovisioning_factor=UInt32Value(value=OVERPROVISIONING), weighted_priority_health=True
        ),
    )
    return resource(ENDPOINTS, name, assignment)


def _tier(priority: int, tier: Tier, me: str, version: str) -> LocalityLbEndpoints:
    weights = scaled(line.weight for line in tier.lines)
    return LocalityLbEndpoints(
        priority=priority,
        lb_endpoints=[
            _line(line, weight, priority, me, version)
            for line, weight in zip(tier.lines, weights, strict=True)
        ],
    )


def _line(line: Line, weight: int, tier: int, me: str, version: str) -> LbEndpoint:
    why = Struct()
    why.update({"cluster": line.cluster, "tier": tier, "reason": line.reason.code, "plan": version})
    listener = names.LOCAL if line.cluster == me else names.to(line.cluster)
    return LbEndpoint(
        endpoint=Endpoint(
            address=internal_address(listener),
            health_check_config=Endpoint.HealthCheckConfig(disable_active_health_check=True),
        ),
        health_status=HEALTHY if line.healthy else UNHEALTHY,
        load_balancing_weight=UInt32Value(value=weight),
        metadata=Metadata(filter_metadata={names.METADATA: why}),
    )


def scaled(weights: Iterable[int]) -> tuple[int, ...]:
    """Weights in proportion to the given ones, each at least 1 (Envoy refuses 0), their sum about
    `TIER_WEIGHT` at most."""
    given = tuple(max(weight, 0) for weight in weights)
    total = max(sum(given), TIER_WEIGHT)
    return tuple(max(1, weight * TIER_WEIGHT // total) for weight in given)


def local_endpoints(plan: PortPlan) -> Resource:
    """Our own backends. One that is not ready gets no new connections and keeps those it has."""
    name = names.local_cluster(plan.service, plan.port.number)
    backends = LocalityLbEndpoints(
        lb_endpoints=[
            LbEndpoint(
                endpoint=Endpoint(address=socket_address(backend.address, backend.port)),
                health_status=HEALTHY if backend.ready else UNHEALTHY,
            )
            for backend in plan.local
        ]
    )
    return resource(ENDPOINTS, name, ClusterLoadAssignment(cluster_name=name, endpoints=[backends]))


def gateway_endpoints(peer: Peer) -> Resource:
    """The east-west gateways of another cluster."""
    name = names.gateway(peer.name)
    gateways = LocalityLbEndpoints(
        lb_endpoints=[
            LbEndpoint(endpoint=Endpoint(address=socket_address(gateway.address, gateway.port)))
            for gateway in peer.gateways
            if gateway.cls == names.GATEWAY_CLASS
        ]
    )
    return resource(ENDPOINTS, name, ClusterLoadAssignment(cluster_name=name, endpoints=[gateways]))
