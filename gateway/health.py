"""What Envoy's word on its hosts means for the agent: which paths are up, and which of our backends fail.

Envoy's hosts are its own probes and ejections; there is no second prober with a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federation.model import Service
from gateway import names
from gateway.envoy.answers import ClusterStatus

WATCHED = "^(gateway|local)/"
"""The clusters that matter here, as RE2 over `gateway.names`."""


@dataclass(frozen=True, slots=True, order=True)
class PathHealth:
    """The gateways of one remote cluster: how many there are, and how many answer."""

    cluster: str
    healthy: int
    total: int


@dataclass(frozen=True, slots=True, order=True)
class FailedBackends:
    """Addresses (`address:port`) of our own backends of a service that do not answer."""

    service: Service
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    paths: tuple[PathHealth, ...] = ()
    failed: tuple[FailedBackends, ...] = ()


def health(clusters: Iterable[ClusterStatus]) -> Health:
    """Services without failed backends are left out."""
    paths: list[PathHealth] = []
    failed: list[FailedBackends] = []
    for cluster in clusters:
        hosts = cluster.host_statuses
        if (peer := names.parse_gateway(cluster.name)) is not None:
            paths.append(PathHealth(peer, sum(host.is_healthy for host in hosts), len(hosts)))
        elif (local := names.parse_local_cluster(cluster.name)) is not None:
            addresses = tuple(sorted(host.name for host in hosts if not host.is_healthy))
            if addresses:
                failed.append(FailedBackends(*local, addresses))
    return Health(tuple(sorted(paths)), tuple(sorted(failed)))
