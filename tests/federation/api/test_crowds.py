"""What strangers can hold at a TCP door: connections that shake no hands, send half a head, or stay for nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from federation.api import server, tls
from federation.api.doors import TcpDoor, serving
from federation.identity import Identity
from federation.listen import HostPort
from tests.federation.api.test_tls import identity
from tests.federation.api.world import ask, serve

__all__ = ["identity"]

ANY_PORT = HostPort.of("127.0.0.1", 0)
FOREVER = 3600.0
MOST = 8

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Crowd:
    """Strangers who connect and do not leave by themselves."""

    def __init__(self, at: HostPort) -> None:
        self.at = at
        self.streams: list[Streams] = []

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *error: object) -> None:
        for _, writer in self.streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self.streams), return_exceptions=True)

    async def grow(self, size: int, said: bytes = b"", shaking: ssl.SSLContext | None = None) -> None:
        name = "federation.hub.mesh.example" if shaking else None
        for _ in range(size):
            reader, writer = await asyncio.open_connection(
                self.at.host, self.at.port, ssl=shaking, server_hostname=name
            )
            writer.write(said)
            await writer.drain()
            self.streams.append((reader, writer))

    async def cut(self, number: int) -> bool:
        """Wait until the door has ended this connection."""
        async with asyncio.timeout(60):
            try:
                while await self.streams[number][0].read(4096):
                    pass
            except OSError:
                pass
        return True


async def answered(at: HostPort, context: ssl.SSLContext | None = None) -> bytes:
    """What somebody is answered who has a real request."""
    async with asyncio.timeout(60):
        name = "federation.hub.mesh.example" if context else None
        reader, writer = await asyncio.open_connection(at.host, at.port, ssl=context, server_hostname=name)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        writer.close()
        return said.split(b"\r\n")[0]


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHo"], ids=["silent", "half a head"])
async def test_who_sends_no_whole_head_is_cut(said: bytes) -> None:
    async with serving(web.Application(), TcpDoor(ANY_PORT), patience=0.2) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(3, said)
            assert all([await crowd.cut(number) for number in range(3)])


async def test_who_drips_its_head_is_cut_all_the_same() -> None:
    """Each byte is progress, none of them a request."""
    async with serving(web.Application(), TcpDoor(ANY_PORT), patience=0.3) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(1, b"GET / HTTP/1.1\r\n")
            cut = asyncio.create_task(crowd.cut(0), name="cut")
            async with asyncio.timeout(60):
                while not cut.done():
                    crowd.streams[0][1].write(b"X-Drip: x\r\n")
                    await asyncio.sleep(0.02)
            assert await cut


async def test_who_had_an_answer_and_stays_for_nothing_is_cut() -> None:
    async with serving(web.Application(), TcpDoor(ANY_PORT), patience=0.2) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(1, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await crowd.streams[0][0].readline()).startswith(b"HTTP/1.1 404")
            assert await crowd.cut(0)


async def test_who_shakes_no_hands_is_cut(identity: Identity) -> None:
    door = TcpDoor(ANY_PORT, tls.served(identity, identity._authority.bundle), patience=0.2)
    async with serving(web.Application(), door, patience=FOREVER) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(3)
            assert all([await crowd.cut(number) for number in range(3)])


@pytest.mark.parametrize("kind", ["plain", "no handshake", "idle in TLS"])
async def test_a_crowd_that_stays_keeps_nobody_out_and_its_oldest_give_way(
    kind: str, identity: Identity
) -> None:
    bundle = identity._authority.bundle
    served = None if kind == "plain" else tls.served(identity, bundle)
    context = None if kind == "plain" else tls.client_context(bundle().anchors)
    door = TcpDoor(ANY_PORT, served, most=MOST, patience=FOREVER)
    async with serving(web.Application(), door, patience=FOREVER) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(3 * MOST, shaking=context if kind == "idle in TLS" else None)
            assert all([await crowd.cut(number) for number in range(2 * MOST)])
            assert not crowd.streams[-1][0].at_eof()
            for _ in range(MOST):
                assert await answered(at, context) == b"HTTP/1.1 404 Not Found"
            assert len(door._inside) <= MOST


@pytest.mark.parametrize("kind", ["plain", "no handshake"])
async def test_a_crowd_that_comes_while_the_process_is_busy_is_let_in_within_the_bound(
    kind: str, identity: Identity
) -> None:
    """The kernel takes them all; the process must close the oldest at the pace at which it accepts the next."""
    served = None if kind == "plain" else tls.served(identity, identity._authority.bundle)
    door = TcpDoor(ANY_PORT, served, most=MOST, patience=FOREVER)
    async with serving(web.Application(), door, patience=FOREVER) as (at,):
        assert at is not None
        with ExitStack() as crowd:
            callers = [crowd.enter_context(socket.create_connection((at.host, at.port))) for _ in range(200)]
            before = open_files()
            most = 0
            async with asyncio.timeout(60):
                while not is_cut(callers[-MOST - 1]):
                    await asyncio.sleep(0)
                    most = max(most, open_files() - before)
            assert MOST <= most <= 2 * MOST
            assert not any(is_cut(caller) for caller in callers[-MOST:])


def open_files() -> int:
    """As the kernel counts them, this look at them included."""
    return len(os.listdir("/proc/self/fd"))


def is_cut(caller: socket.socket) -> bool:
    try:
        return caller.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def test_those_who_left_make_room_before_those_who_are_there() -> None:
    door = TcpDoor(ANY_PORT, most=MOST, patience=FOREVER)
    async with serving(web.Application(), door, patience=FOREVER) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(1)
            for _ in range(5 * MOST):
                assert await answered(at) == b"HTTP/1.1 404 Not Found"
            crowd.streams[0][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await crowd.streams[0][0].readline()).startswith(b"HTTP/1.1 404")


async def test_a_process_without_a_free_file_closes_the_oldest_and_lets_people_in() -> None:
    loop = asyncio.get_running_loop()
    async with serving(web.Application(), TcpDoor(ANY_PORT), patience=FOREVER) as (at,):
        assert at is not None
        async with Crowd(at) as crowd:
            await crowd.grow(2, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for reader, _ in crowd.streams:
                assert (await reader.readline()).startswith(b"HTTP/1.1 404")
            with socket.socket() as caller:
                caller.setblocking(False)
                with no_more_files():
                    await loop.sock_connect(caller, (at.host, at.port))
                    await loop.sock_sendall(caller, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    async with asyncio.timeout(60):
                        assert (await loop.sock_recv(caller, 4096)).startswith(b"HTTP/1.1 404")
            assert await crowd.cut(0)
            assert not crowd.streams[1][0].at_eof()
        assert await answered(at) == b"HTTP/1.1 404 Not Found"


@contextmanager
def no_more_files() -> Iterator[None]:
    """Until the end, no file or socket can be opened for which none is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    async with serve(tmp_path) as api:
        at = HostPort.parse(api.url.removeprefix("https://"))
        head = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        async with Crowd(at) as crowd:
            await crowd.grow(1, head, tls.client_context(api.authority.bundle().anchors))
            async with asyncio.timeout(60):
                assert (await crowd.streams[0][0].readline()).startswith(b"HTTP/1.1 408")
        assert (await ask(api.remote(), "POST", "/v1/join", body={"cluster": "east"}))[0] == 200
