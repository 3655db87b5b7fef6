"""The generator of the benchmarks tells of each request what became of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from bench.steady import Generator, answered, running
from federation.demo.load import Answer
from federation.listen import HostPort

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwest\n"


@pytest.mark.parametrize(
    ("data", "who"),
    [
        (OK, "west"),
        (OK[:-1], None),
        (OK[:30], None),
        (b"", None),
        (OK.replace(b"Content-Length", b"content-length"), "west"),
    ],
)
def test_an_answer_is_whole_or_not_there_yet(data: bytes, who: str | None) -> None:
    assert answered(data) == who


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nwest\n",
        b"no HTTP\r\n\r\n",
    ],
)
def test_anything_else_is_a_failure(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"503|without its length|no HTTP"):
        answered(data)


def _run(to: HostPort, begun: int) -> list[Answer]:
    generator = Generator(to)
    for _ in range(begun):
        generator.begin()
    while generator.busy:
        generator.step(0.05)
    return generator.answers


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    (answer,) = _run(HostPort.of("127.0.0.1", free), 1)
    assert answer.who is None
    assert answer.error == "ConnectionRefusedError"


async def test_a_connection_that_ends_early_is_a_failure_and_the_others_are_not() -> None:
    async with _service(lambda number: OK if number % 2 else OK[:20]) as to:
        answers = await asyncio.to_thread(_run, to, 10)
    assert sorted(answer.who or answer.error for answer in answers) == ["EOFError"] * 5 + ["west"] * 5


async def test_a_process_of_its_own_asks_at_the_rate_that_is_wanted() -> None:
    enough = asyncio.Event()

    def answer(number: int) -> bytes:
        if number == 100:
            enough.set()
        return OK

    async with _service(answer) as to, asyncio.timeout(30), running(to, 200) as load:
        await enough.wait()
    assert len(load.answers) >= 100
    assert {one.who for one in load.answers} == {"west"}
    assert all(one.seconds > 0 for one in load.answers)
    began = sorted(one.began for one in load.answers)
    assert sum(later - earlier for earlier, later in pairwise(began)) >= 0.95 * (len(began) - 1) / 200


@asynccontextmanager
async def _service(answer: Callable[[int], bytes]) -> AsyncIterator[HostPort]:
    """Whoever connects gets the answer with the number of the connection."""
    connected = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.write(answer(connected))
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield HostPort.of(*server.sockets[0].getsockname())
