"""Envoy's admin interface, on its unix socket: what it says of itself, and how it is told to drain.

Only for the parent of that Envoy. Nothing here is ever served to others, except statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from gateway.errors import EnvoyAdminError

TIMEOUT = 5.0
"""Seconds for one answer; Envoy's main thread gives it, which configuration updates may keep busy."""


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


class _Clusters(msgspec.Struct, frozen=True):
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


class Admin:
    """One Envoy's admin interface. Every call raises `EnvoyAdminError` when there is no answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def info(self) -> ServerInfo:
        return _decode(await self._call("GET", "/server_info"), ServerInfo)

    async def clusters(self, matching: str) -> tuple[ClusterStatus, ...]:
        """The clusters whose names match this regular expression (RE2)."""
        answer = await self._call("GET", "/clusters", {"format": "json", "filter": matching})
        return _decode(answer, _Clusters).cluster_statuses

    async def gauges(self, matching: str) -> dict[str, int]:
        """Counters and gauges whose names match this regular expression (RE2)."""
        text = (await self._call("GET", "/stats", {"filter": matching})).decode()
        pairs = (line.rsplit(": ", 1) for line in text.splitlines() if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdecimal()}

    async def prometheus(self) -> bytes:
        """All statistics that were ever written, in Prometheus' text format."""
        return await self._call("GET", "/stats/prometheus", {"usedonly": ""})

    async def fail_health_checks(self) -> None:
        """Peers that probe us go elsewhere."""
        await self._call("POST", "/healthcheck/fail")

    async def drain_listeners(self) -> None:
        """Ask peers to leave, and stop accepting when the drain time (`--drain-time-s`) is over."""
        await self._call("POST", "/drain_listeners", {"graceful": ""})

    async def _call(self, method: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                "http://envoy",
                connector=aiohttp.UnixConnector(path=str(self._path), limit=4),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                trust_env=False,
            )
        try:
            async with self._session.request(method, path, params=query) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EnvoyAdminError(path, str(error) or "no answer in time") from error
        if response.status != 200:
            raise EnvoyAdminError(path, f"status {response.status}")
        return body


_Shape = TypeVar("_Shape", ServerInfo, _Clusters)


def _decode(body: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise EnvoyAdminError("its answer", str(error)) from error
