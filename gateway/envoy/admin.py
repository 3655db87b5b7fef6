"""Envoy's admin interface, on its unix socket: what it says of itself, and how it is told to drain.

Only for the parent of that Envoy. Nothing here is ever served to others, except statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from gateway.envoy.answers import Clusters, ClusterStatus, ServerInfo
from gateway.errors import EnvoyAdminError

TIMEOUT = 5.0
"""Seconds for one answer; Envoy's main thread gives it, which configuration updates may keep busy."""


class Admin:
    """One Envoy's admin interface. Every call raises `EnvoyAdminError` when there is no answer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def state(self) -> str:
        """`ServerInfo.state` alone, in an answer that costs Envoy's main thread a thirtieth of the whole."""
        _, body = await self._ask("GET", "/ready")
        return body.decode("ascii", "replace").strip()

    async def info(self) -> ServerInfo:
        return _decode(await self._call("GET", "/server_info"), ServerInfo)

    async def clusters(self, matching: str) -> tuple[ClusterStatus, ...]:
        """The clusters whose names match this regular expression (RE2)."""
        answer = await self._call("GET", "/clusters", {"format": "json", "filter": matching})
        return _decode(answer, Clusters).cluster_statuses

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
        status, body = await self._ask(method, path, query)
        if status != 200:
            raise EnvoyAdminError(path, f"status {status}")
        return body

    async def _ask(self, method: str, path: str, query: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body; `/ready` has something to say with status 503 too."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                "http://envoy",
                connector=aiohttp.UnixConnector(path=str(self._path), limit=4),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                trust_env=False,
            )
        try:
            async with self._session.request(method, path, params=query) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EnvoyAdminError(path, str(error) or "no answer in time") from error


_Shape = TypeVar("_Shape", ServerInfo, Clusters)


def _decode(body: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise EnvoyAdminError("its answer", str(error)) from error
