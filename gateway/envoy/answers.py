"""What Envoy says of itself on its admin interface, as far as we read it: the JSON form of `envoy.admin.v3`."""

from __future__ import annotations

import msgspec


class _Socket(msgspec.Struct, frozen=True):
    address: str = ""
    port_value: int = 0


class _Address(msgspec.Struct, frozen=True):
    socket_address: _Socket | None = None


class _Health(msgspec.Struct, frozen=True):
    """envoy.admin.v3.HostHealthStatus, as far as a check or an ejection fails a host."""

    failed_active_health_check: bool = False
    failed_outlier_check: bool = False


class HostStatus(msgspec.Struct, frozen=True):
    address: _Address = _Address()
    health_status: _Health = _Health()

    @property
    def name(self) -> str:
        """`address:port`; empty for an internal address."""
        found = self.address.socket_address
        if found is None:
            return ""
        host = f"[{found.address}]" if ":" in found.address else found.address
        return f"{host}:{found.port_value}"

    @property
    def is_healthy(self) -> bool:
        return not (self.health_status.failed_active_health_check or self.health_status.failed_outlier_check)


class ClusterStatus(msgspec.Struct, frozen=True):
    """envoy.admin.v3.ClusterStatus: the hosts of one cluster."""

    name: str
    host_statuses: tuple[HostStatus, ...] = ()


class Clusters(msgspec.Struct, frozen=True):
    """envoy.admin.v3.Clusters"""

    cluster_statuses: tuple[ClusterStatus, ...] = ()


class ServerInfo(msgspec.Struct, frozen=True):
    """envoy.admin.v3.ServerInfo: `state` is LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING."""

    version: str = ""
    state: str = ""

    @property
    def release(self) -> str:
        """`1.40.0` of `<commit>/1.40.0/Clean/RELEASE/BoringSSL`."""
        parts = self.version.split("/")
        return parts[1] if len(parts) > 1 else self.version
