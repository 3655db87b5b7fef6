"""From where a bundle may be fetched: which URLs, and which addresses after resolution."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.bundle_url import check_url, refusal


@pytest.mark.parametrize(
    "url",
    ["https://a.example", "https://a.example:8443/x?y=1", "https://[2001:db8::1]/", "https://192.0.2.1/b"],
)
def test_f2_https_urls_are_good(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "HTTP://a.example/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "//a.example/",
        "a.example",
        "https://",
        "https:///x",
        "https://user@a.example/",
        "https://user:secret@a.example/",
        "https://@a.example/",
        "https://a.example:99999/",
        "https://[::1/",
        "https://a.example/\r\nX: y",
        "https://a.example/ x",
        "https://ä.example/",
        "https://a.example/" + "x" * 2048,
        "",
    ],
)
def test_f2_everything_else_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_url(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ],
)
def test_f5_addresses_that_are_not_public_are_not_dialled(address: str) -> None:
    assert refusal(address, ()) is not None


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_f5_public_addresses_are(address: str) -> None:
    assert refusal(address, ()) is None


def test_f5_a_range_that_is_allowed_allows_itself_alone() -> None:
    allowed = (ip_network("10.2.0.0/16"), ip_network("fd00:2::/64"))
    assert refusal("10.2.3.4", allowed) is None
    assert refusal("::ffff:10.2.3.4", allowed) is None
    assert refusal("fd00:2::7", allowed) is None
    for address in ("10.3.0.1", "169.254.169.254", "fd00:3::1"):
        assert refusal(address, allowed) is not None


@given(st.ip_addresses())
def test_f5_what_is_not_global_is_never_dialled(address: object) -> None:
    found = ip_address(str(address))
    if not found.is_global:
        assert refusal(str(found), ()) is not None
