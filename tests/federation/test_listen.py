"""Addresses as they are written, and who holds one that is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from federation.listen import CannotListen, HostPort, collide, ensure_free, holder_of, listen

ME = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def port_of(opened: socket.socket) -> int:
    port: int = opened.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8443", "127.0.0.1", 8443),
        ("[::1]:8443", "::1", 8443),
        ("[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1),
        ("hub.example.com:0", "hub.example.com", 0),
    ],
)
def test_an_address_is_what_was_written(text: str, host: str, port: int) -> None:
    found = HostPort.parse(text)
    assert (found, found.host, found.port) == (text, host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":", "8443", ":8443", "host:", "::1:8443", "[::1]", "[::1:8443", "[12]:1", "a b:1", "a/b:1", "http://a:1"]
    + [f"127.0.0.1:{port}" for port in ("65536", "-1", "+1", " 1", "1 ", "٣", "0x10", "9" * 5000)],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        HostPort.parse(text)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("::", "127.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_a_port_in_use_names_its_holder(first: str, second: str, held: ExitStack) -> None:
    taken = held.enter_context(listen(HostPort.of(first, 0)))
    address = HostPort.of(second, port_of(taken))
    with pytest.raises(CannotListen) as refused:
        listen(address)
    assert refused.value.address == address
    assert str(refused.value) == f"cannot listen on {address}: the port is held by {ME}"
    assert "choose another port" in refused.value.hint
    with pytest.raises(CannotListen):
        ensure_free(address)


def test_who_listens_at_another_address_holds_nothing(held: ExitStack) -> None:
    other = held.enter_context(listen(HostPort.of("127.0.0.2", 0)))
    address = HostPort.of("127.0.0.3", port_of(other))
    assert holder_of(address) is None
    ensure_free(address)
    held.enter_context(listen(address))


def test_an_address_of_another_machine_or_no_address_is_told() -> None:
    with pytest.raises(CannotListen, match="no such address") as refused:
        listen(HostPort.of("192.0.2.1", 1))
    assert "0.0.0.0" in refused.value.hint
    with pytest.raises(CannotListen, match="not an IP address"):
        listen(HostPort("localhost:1"))


def test_any_free_port_needs_no_look() -> None:
    ensure_free(HostPort.of("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "[::1]:1", False),
        ("[::]:1", "[::1]:1", True),
        ("[::]:1", "127.0.0.1:1", True),
        ("[::]:1", "0.0.0.0:1", True),
        ("[::1]:1", "[0:0::1]:1", True),
    ],
)
def test_whether_two_places_collide_is_known_as_the_kernel_decides_it(
    one: str, other: str, meet: bool
) -> None:
    first, second = HostPort.parse(one), HostPort.parse(other)
    assert collide(first, second) == collide(second, first) == meet
    if first.port == second.port != 0:
        with listen(HostPort.of(first.host, 0)) as opened:
            try:
                listen(HostPort.of(second.host, port_of(opened))).close()
            except CannotListen:
                assert meet
            else:
                assert not meet
