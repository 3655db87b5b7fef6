"""The client of the REST API: over a unix socket, or over HTTPS with the hub's anchors."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from federation.api.routes import Problem, encode
from federation.errors import FederationError, Unreachable

TIMEOUT = 15.0
"""Seconds for a whole call; an answer that takes longer is as good as none to a person at a prompt."""

UNIX = "unix://"

LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer; the first contact of a join is with a server that nobody has verified yet."""


class Unrecognised(Unreachable):
    """Somebody answered whose certificate the pinned anchors do not lead to."""


class Refusal(FederationError):
    """The server answered, and the answer is no."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(problem.message, hint=problem.hint)
        self.status = status
        self.code = problem.code


@dataclass(frozen=True, slots=True)
class Target:
    """Where a process is reached and what proves who we are.

    `url` is `unix:///path/to/api.sock` or `https://host:port`; `server_name` is the DNS SAN of the server's identity,
    checked in place of the dialled host, because certificates name identities and not addresses.
    """

    url: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)


class ApiClient:
    """Calls one target. Raises Unreachable if nobody answers, Refusal if the answer is no."""

    def __init__(self, target: Target, session: aiohttp.ClientSession, base: str) -> None:
        self._target = target
        self._session = session
        self._base = base

    async def get(self, path: str, **query: str) -> Any:
        return await self.call("GET", path, query=query)

    async def call(
        self, method: str, path: str, *, body: Any = None, query: dict[str, str] | None = None
    ) -> Any:
        """The decoded JSON of a successful answer."""
        headers = {"Authorization": f"Bearer {self._target.token}"} if self._target.token else {}
        data = None if body is None else encode(body)
        try:
            async with self._session.request(
                method,
                self._base + path,
                params=query,
                data=data,
                headers={**headers, "Content-Type": "application/json"},
                ssl=self._target.tls or True,
                server_hostname=self._target.server_name,
                allow_redirects=False,
            ) as response:
                content = await self._content(response)
                status = response.status
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unrecognised(self._target.url, "its certificate is not the one expected") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(self._target.url, _reason(error)) from error
        return _decode(self._target.url, status, content)

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for chunk in response.content.iter_chunked(1024 * 1024):
            content += chunk
            if len(content) > LONGEST_ANSWER:
                problem = f"its answer is longer than {LONGEST_ANSWER // 1024 // 1024} MiB"
                raise Unreachable(self._target.url, problem)
        return bytes(content)


def _reason(error: BaseException) -> str:
    """Why, in the words of the system: asyncio and OpenSSL put addresses and functions in their place."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause: BaseException = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or 'the connection was closed'}"
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno) if cause.errno in errno.errorcode else str(cause.strerror)
    if isinstance(cause, aiohttp.ClientResponseError):
        return "it does not speak HTTP/1.1, so it is not an API"
    if isinstance(cause, aiohttp.InvalidURL):
        return "its address is malformed"
    return str(cause) or type(cause).__name__


def _decode(url: str, status: int, content: bytes) -> Any:
    try:
        if 200 <= status < 300:
            return msgspec.json.decode(content)
        raise Refusal(status, msgspec.json.decode(content, type=Problem))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreachable(url, f"it does not speak this API (HTTP {status})") from error


@asynccontextmanager
async def connect(target: Target, *, timeout: float = TIMEOUT) -> AsyncIterator[ApiClient]:
    """A client of `target` for the life of the context; `timeout` is in seconds, for each call.

    Nothing is ever sent in plain over a network: raises Unreachable for any other scheme.
    """
    connector: aiohttp.BaseConnector
    if target.url.startswith(UNIX):
        connector, base = aiohttp.UnixConnector(path=target.url.removeprefix(UNIX)), "http://localhost"
    elif not target.url.startswith("https://"):
        raise Unreachable(
            target.url, "its address is not one to call", "allowed: unix:///path and https://host:port"
        )
    else:
        connector, base = aiohttp.TCPConnector(use_dns_cache=False), target.url.rstrip("/")
    limits = aiohttp.ClientTimeout(total=timeout)
    async with aiohttp.ClientSession(connector=connector, timeout=limits, trust_env=False) as session:
        yield ApiClient(target, session, base)
