"""Unix sockets: private from their first moment, never taken from somebody who lives."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from aiohttp import web

from federation.api.doors import CannotListenUnix, TcpDoor, UnixDoor, serving
from federation.listen import CannotListen, HostPort, listen


def open_to_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o177)
    except FileNotFoundError:
        return False


async def test_a_socket_is_never_open_to_others_not_even_for_a_moment(tmp_path: Path) -> None:
    path, seen, done = tmp_path / "api.sock", [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if open_to_all(path):
                seen.append(path)

    watcher = threading.Thread(target=watch)
    before = os.umask(0)
    watcher.start()
    try:
        for _ in range(50):
            async with serving(web.Application(), UnixDoor(path)):
                assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
        done.set()
        watcher.join()
    assert not seen
    assert not path.exists()


async def test_a_socket_left_by_a_process_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(str(path))
    async with serving(web.Application(), UnixDoor(path)):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


async def test_a_socket_that_somebody_serves_stays_theirs(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with serving(web.Application(), UnixDoor(path)):
        with pytest.raises(CannotListenUnix, match="another process serves it"):
            async with serving(web.Application(), UnixDoor(path)):
                pytest.fail("two served one socket")
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


async def test_a_process_too_busy_to_answer_lives_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(CannotListenUnix):
            async with serving(web.Application(), UnixDoor(path)):
                pytest.fail("the socket was taken over")
        assert path.exists()


async def test_a_socket_that_does_not_say_that_nobody_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(CannotListenUnix, match="wrong type"):
            async with serving(web.Application(), UnixDoor(path)):
                pytest.fail("the socket was taken over")
        assert path.exists()


async def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(CannotListenUnix, match="no socket") as refused:
        async with serving(web.Application(), UnixDoor(path)):
            pytest.fail("a file was replaced")
    assert refused.value.hint == "move it away"
    assert path.read_text() == "precious"
    link = tmp_path / "link.sock"
    link.symlink_to(path)
    with pytest.raises(CannotListenUnix, match="no socket"):
        async with serving(web.Application(), UnixDoor(link)):
            pytest.fail("a link was followed")


async def test_a_path_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotListenUnix, match="over 107 bytes"):
        async with serving(web.Application(), UnixDoor(tmp_path / ("é" * 54))):
            pytest.fail("the kernel takes no such path")
    with pytest.raises(CannotListenUnix, match="No such file or directory") as refused:
        async with serving(web.Application(), UnixDoor(tmp_path / "missing" / "api.sock")):
            pytest.fail("there is no such folder")
    assert refused.value.hint


async def test_the_doors_opened_before_one_that_fails_are_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with listen(HostPort.of("127.0.0.1", 0)) as held:
        taken = HostPort.of("127.0.0.1", held.getsockname()[1])
        with pytest.raises(CannotListen):
            async with serving(web.Application(), UnixDoor(path), TcpDoor(taken)):
                pytest.fail("the port is taken")
    assert not path.exists()
