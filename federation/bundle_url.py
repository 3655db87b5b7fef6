"""Which URLs and which addresses a bundle may be fetched from.

HTTPS, no user info (SPIFFE Federation §5.2.1.1), and only addresses of the public Internet unless a range is allowed by
name: whoever writes a URL, or answers with a redirect or a name of its own, must not make this process knock at its
neighbours or at a cloud's metadata service. Addresses are judged after resolution, each one that would be dialled.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

LONGEST_URL = 2048

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""


def check_url(url: str) -> None:
    """Raise ValueError, with a sentence, for what no bundle is fetched from."""
    if len(url) > LONGEST_URL or not url.isascii() or any(character <= " " for character in url):
        raise ValueError(f"longer than {LONGEST_URL} bytes, or with characters that no URL has")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("not a URL") from error
    if parts.scheme != "https":
        raise ValueError("not an https URL")
    if "@" in parts.netloc:
        raise ValueError("with a user in it (SPIFFE Federation §5.2.1.1)")
    if not host:
        raise ValueError("without a host")


def refusal(address: str, allowed: Iterable[IPv4Network | IPv6Network]) -> str | None:
    """Why `address` is not dialled, or None if it is."""
    found = _plain(ip_address(address.partition("%")[0]))
    if any(found.version == network.version and found in network for network in allowed):
        return None
    if found.is_global and not found.is_multicast:
        return None
    return f"{found} is not an address of the public Internet"


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
