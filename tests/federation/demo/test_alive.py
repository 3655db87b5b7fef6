"""What is told of a demo after some of it has died: nobody's pid but its own, and no listener that is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from federation.demo.alive import current, parent, served


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def dead() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_the_parent_of_a_process_and_of_none(child: int) -> None:
    assert parent(child) == os.getpid()
    assert parent(dead()) is None


def test_only_what_the_demo_started_has_a_pid(child: int) -> None:
    stranger = os.getpid()
    gateway = {"name": "gateway-1", "pid": child, "envoy_pid": stranger}
    cluster = {
        "name": "east",
        "agent": {"pid": stranger, "socket": "s"},
        "gateways": [gateway],
        "backends": [{"pid": dead()}, {"pid": child}],
        "imports": {},
    }
    told = current({"pid": os.getpid(), "hub": {"pid": child, "api": "a"}, "clusters": [cluster]})
    assert told["hub"] == {"pid": child, "api": "a"}
    (east,) = told["clusters"]
    assert east["agent"] == {"pid": None, "socket": "s"}
    assert east["gateways"] == [{"name": "gateway-1", "pid": child, "envoy_pid": None}]
    assert east["backends"] == [{"pid": None}, {"pid": child}]


def test_an_import_is_at_a_gateway_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        gone, here = (f"127.0.0.1:{each.getsockname()[1]}" for each in (silent, server))
        assert served((gone, here)) == here
        assert served((gone,)) is None
