from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.ranges import SPECIAL, why_outside

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "224.0.0.1",
        "239.255.255.255",
        "ff02::1",
        "255.255.255.255",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
    ],
)
def test_a_wide_range_does_not_cover_special_addresses(address: str) -> None:
    assert why_outside(address, EVERYTHING) is not None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.10.1", "127.0.10.0/24"),
        ("127.0.0.1", "127.0.0.0/8"),
        ("::1", "::1/128"),
        ("169.254.1.1", "169.254.0.0/16"),
        ("169.254.169.254", "169.254.169.254/32"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("fd00::1", "fd00::/8"),
    ],
)
def test_a_range_within_the_block_covers_it(address: str, network: str) -> None:
    assert why_outside(address, (ip_network(network),)) is None


def test_link_local_range_does_not_register_the_metadata_service() -> None:
    assert why_outside("169.254.169.254", (ip_network("169.254.0.0/16"),)) == (
        "169.254.169.254 is a cloud metadata address, which only a range within 169.254.169.254/32 covers"
    )


@pytest.mark.parametrize(
    "text", ["", "echo", "10.1", "010.1.1.1", "10.1.1.1/32", "fe80::1%eth0", "10.1.1.1 "]
)
def test_what_is_no_address_of_its_own_is_refused(text: str) -> None:
    assert why_outside(text, EVERYTHING) is not None


def test_the_ranges_are_named() -> None:
    ranges = (ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"))
    assert why_outside("10.3.0.1", ranges) == (
        "10.3.0.1 is outside the registered ranges: 10.1.0.0/16, 10.2.0.0/16"
    )


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_covered_exactly_if_inside_and_of_the_same_blocks(address: int, network: int, prefix: int) -> None:
    one = IPv4Address(address)
    block = IPv4Network((network, prefix), strict=False)
    inside = one in block and all(
        block.subnet_of(special)
        for _, special in SPECIAL
        if isinstance(special, IPv4Network) and one in special
    )
    assert (why_outside(str(one), (block,)) is None) is inside
