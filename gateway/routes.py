"""What may be reached: one virtual host an exported service port, one route table a peer.

A CONNECT for an authority without a virtual host in the peer's table gets 404: what is not exported to you is
unreachable by you. Tables hold encoded virtual hosts, so one more export encodes one entry, and a table is
the concatenation of its entries: in protobuf, a message's bytes are those of its fields, one after the other
(protobuf encoding, "repeated elements").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from federation.inputs import Peer
from federation.model import Service
from gateway import names
from gateway.pb.envoy.config.route.v3.route_components_pb2 import (
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
)
from gateway.pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from gateway.pb.envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import (
    PreviousHostsPredicate,
)
from gateway.proto import encode, packed, resource, seconds
from gateway.snapshot import ROUTES, Resource
from gateway.tuning import TunnelTuning

Table = Mapping[str, bytes]
"""Name of a virtual host, in order, to the field of a RouteConfiguration that holds it, encoded. Never changed: the
next table is one copy for a whole batch of changes."""

SELECTIONS = 10
"""How often Envoy draws a gateway until it draws one that was not tried (least request draws at random)."""


def virtual_host(service: Service, port: int, tunnel: TunnelTuning) -> bytes:
    """The end of the tunnels of one exported port: its backends get the bytes."""
    end = _connect(names.local_cluster(service, port), "connect-failure,refused-stream", tunnel)
    end.route.upgrade_configs.add(
        upgrade_type="CONNECT", connect_config=RouteAction.UpgradeConfig.ConnectConfig()
    )
    host = VirtualHost(
        name=names.imported(service, port), domains=[names.authority(service, port)], routes=[end]
    )
    return encode(RouteConfiguration(virtual_hosts=[host]))


def changed(hosts: Table, put: Mapping[str, bytes], remove: Iterable[str]) -> Table:
    """The next table: some entries put, others removed, whether or not they were there."""
    merged = {**hosts, **put}
    for name in remove:
        merged.pop(name, None)
    return dict(sorted(merged.items(), key=itemgetter(0)))


def table(name: str, hosts: Table) -> Resource:
    """The route table `name`. Equal contents give equal bytes, whatever the order in which they came."""
    return Resource.of(ROUTES, name, b"".join([encode(RouteConfiguration(name=name)), *hosts.values()]))


def onward(peer: Peer, tunnel: TunnelTuning) -> Resource:
    """The table of `to/<peer>`: every CONNECT goes on to that cluster's gateways, which decide.

    A gateway that dies or falls silent costs a retry at another one, each is tried once, and the service need not
    pass the cluster over. Where there is one only, the failure goes back to the service, which uses the next
    cluster: a retry might come before the ejection is known, meet the same gateway, and wait for it once more.
    """
    on = _connect(names.gateway(peer.name), "connect-failure,refused-stream", tunnel)
    gateways = len(peer.gateways)
    if gateways > 1:
        _try_another(on.route.retry_policy, gateways, tunnel)
    host = VirtualHost(name="any", domains=["*"], routes=[on])
    name = names.to(peer.name)
    return resource(ROUTES, name, RouteConfiguration(name=name, virtual_hosts=[host]))


def _try_another(policy: RetryPolicy, gateways: int, tunnel: TunnelTuning) -> None:
    policy.retry_on += ",reset"
    policy.num_retries.value = min(gateways - 1, policy.num_retries.value)
    policy.retry_back_off.base_interval.CopyFrom(seconds(tunnel.backoff))
    policy.retry_back_off.max_interval.CopyFrom(seconds(tunnel.longest_backoff))
    policy.retry_host_predicate.add(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
    )
    policy.host_selection_retry_max_attempts = SELECTIONS


def _connect(cluster: str, retry_on: str, tunnel: TunnelTuning) -> Route:
    return Route(
        match=RouteMatch(connect_matcher=RouteMatch.ConnectMatcher()),
        route=RouteAction(
            cluster=cluster,
            timeout=Duration(),
            idle_timeout=seconds(tunnel.idle_timeout),
            retry_policy=RetryPolicy(retry_on=retry_on, num_retries=UInt32Value(value=2)),
        ),
    )
