"""Which addresses the ranges of a cluster cover.

A range is what the operator registered for a cluster's gateways and endpoints. Addresses with a meaning of
their own (loopback, link-local, cloud metadata, multicast and the like) are covered only by a range that lies
in their block, so that `0.0.0.0/0` never lets anybody point a gateway at `127.0.0.1` or at a metadata service
by accident.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from federation.model import Network

SPECIAL: tuple[tuple[str, Network], ...] = tuple(
    (what, ip_network(text))
    for what, text in (
        ("unspecified", "0.0.0.0/8"),
        ("unspecified", "::/128"),
        ("loopback", "127.0.0.0/8"),
        ("loopback", "::1/128"),
        ("IPv4-mapped", "::ffff:0:0/96"),
        ("link-local", "169.254.0.0/16"),
        ("link-local", "fe80::/10"),
        ("multicast", "224.0.0.0/4"),
        ("multicast", "ff00::/8"),
        ("broadcast", "255.255.255.255/32"),
        ("cloud metadata", "169.254.169.254/32"),
        ("cloud metadata", "100.100.100.200/32"),
        ("cloud metadata", "192.0.0.192/32"),
        ("cloud metadata", "fd00:ec2::254/128"),
    )
)
"""Special blocks (RFC 6890) and what cloud providers answer credentials on; later lines lie within earlier ones."""


def why_outside(text: str, ranges: Sequence[Network]) -> str | None:
    """None if the IP address `text` is covered by one of `ranges`, else one sentence that says why not."""
    try:
        address = ip_address(text)
    except ValueError:
        return f"{text!r} is not an IP address"
    if "%" in text:
        return f"{text} names an interface, which means nothing on another machine"
    blocks = [(what, block) for what, block in SPECIAL if address in block]
    covering = [network for network in ranges if address in network]
    if any(all(_within(network, block) for _, block in blocks) for network in covering):
        return None
    if blocks:
        what, block = blocks[-1]
        return f"{text} is a {what} address, which only a range within {block} covers"
    allowed = ", ".join(str(network) for network in ranges) or "none"
    return f"{text} is outside the registered ranges: {allowed}"


def _within(network: Network, block: Network) -> bool:
    return network.network_address in block and network.broadcast_address in block
