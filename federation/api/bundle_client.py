"""Fetching a bundle of a trust domain outside: one GET, verified as its profile says, bounded in size and time.

`https_web` believes public CAs and the name in the URL; `https_spiffe` believes the endpoint's trust domain and its
exact SPIFFE ID, and no name. Redirects are followed where the same rules hold again. No proxy is used.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509

from federation.bundle_url import check_url, refusal
from federation.errors import BundleUnavailable
from federation.listen import is_address
from pki.certificate import check_leaf, load_der, pem
from pki.errors import Untrusted
from pki.spiffe import SpiffeId
from pki.spiffe_bundle import LONGEST_DOCUMENT

TIMEOUT = 10.0
"""Seconds for everything, redirects included."""

MOST_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})

Allowed = tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to look, whom to believe there, and which ranges that are not public may be dialled."""

    url: str
    tls: ssl.SSLContext
    allowed: Allowed = ()


def web_context(ca: Path | None = None) -> ssl.SSLContext:
    """Believes the machine's public CAs, or those in `ca` alone. Raises BundleUnavailable."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise BundleUnavailable(str(ca), f"no certificates can be read from it: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def spiffe_context(anchors: Sequence[x509.Certificate], identity: SpiffeId) -> ssl.SSLContext:
    """Believes `anchors`, and of what they issue the SVID of `identity` alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem(anchors).decode())
    context.sslobject_class = _only(identity)
    return context


def _only(identity: SpiffeId) -> type[ssl.SSLObject]:
    """A connection that breaks off at the end of the handshake if somebody else answers (X509-SVID §5)."""

    class Svid(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            try:
                shown = check_leaf(load_der(self.getpeercert(binary_form=True) or b""))
            except Untrusted as error:
                raise ssl.SSLCertVerificationError(1, f"not an X509-SVID: {error}") from error
            if shown != identity:
                raise ssl.SSLCertVerificationError(1, f"{shown} answers, not {identity}")

    return Svid


async def fetch(endpoint: Endpoint) -> bytes:
    """The document at `endpoint`. Raises BundleUnavailable."""
    connector = aiohttp.TCPConnector(
        ssl=endpoint.tls, resolver=_Guarded(endpoint.allowed), use_dns_cache=False
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        auto_decompress=False,
        trust_env=False,
    ) as session:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await _follow(session, endpoint)
        except TimeoutError as error:
            raise BundleUnavailable(endpoint.url, f"no whole answer within {TIMEOUT:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BundleUnavailable(endpoint.url, _reason(error)) from error


async def _follow(session: aiohttp.ClientSession, endpoint: Endpoint) -> bytes:
    url = endpoint.url
    for _ in range(MOST_REDIRECTS + 1):
        check_url(url)
        host = urlsplit(url).hostname or ""
        if is_address(host) and (reason := refusal(host, endpoint.allowed)) is not None:
            raise BundleUnavailable(url, reason, _ALLOW)
        async with session.get(
            url, allow_redirects=False, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
        ) as response:
            if response.status in REDIRECTS and "Location" in response.headers:
                url = urljoin(url, response.headers["Location"])
                continue
            if response.status != 200:
                raise BundleUnavailable(url, f"it answers with status {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise BundleUnavailable(url, "it answers compressed, which was not asked for")
            return await _content(url, response)
    raise BundleUnavailable(endpoint.url, f"more than {MOST_REDIRECTS} redirects")


async def _content(url: str, response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > LONGEST_DOCUMENT:
            raise BundleUnavailable(url, f"its answer is longer than {LONGEST_DOCUMENT} bytes")
    return bytes(content)


_ALLOW = "if it is meant, name its range in `allow` of that entry of `federates`"


class _Guarded(AbstractResolver):
    """Resolves names, and gives no address that may not be dialled: what is judged here is what is dialled."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if (reason := refusal(one["host"], self._allowed)) is not None:
                raise BundleUnavailable(f"https://{host}", reason, _ALLOW)
        return found

    async def close(self) -> None:
        await self._inner.close()


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {getattr(cause, 'verify_message', cause.strerror)}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or 'the connection was closed'}"
    return str(cause) or type(cause).__name__
