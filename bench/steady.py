"""Requests at a steady rate, each on a new connection, made by a process of its own.

As `federation.demo.load`, an open loop: a slow answer does not slow the next request down. It costs a fraction of the
CPU, because one loop over one selector does all of it, and shares no interpreter with whatever else the benchmark does.
The process says on its standard output, by a line, that it begins, runs until its standard input ends, and then tells
there what became of each request.

python -m bench.steady ADDRESS RATE
"""

from __future__ import annotations

import asyncio
import errno
import gc
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from federation.demo.load import DEADLINE, Answer, Load
from federation.errors import FederationError
from federation.listen import HostPort

REQUEST = b"GET / HTTP/1.1\r\nHost: echo.default\r\nConnection: close\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"

_decoder = msgspec.msgpack.Decoder(list[Answer])


@asynccontextmanager
async def running(to: HostPort, rate: int) -> AsyncIterator[Load]:
    """Requests at `rate` a second for the life of the context; the answers are there when it is over.

    The first has begun when it begins, and those under way at its end are waited for. Raises FederationError if the
    generator does not live so long.
    """
    load = Load()
    generator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.steady", str(to), str(rate)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert generator.stdout is not None
    try:
        await generator.stdout.readline()
        yield load
        told, _ = await generator.communicate(b"")
        if generator.returncode != 0:
            raise FederationError(f"the generator of requests ended with status {generator.returncode}")
        load.answers += _decoder.decode(told)
    finally:
        if generator.returncode is None:
            generator.kill()
            await generator.wait()


@dataclass(slots=True)
class _Request:
    connection: socket.socket
    began: float
    sent: bool = False
    answer: bytes = b""


class Generator:
    """The requests that are under way, and what became of the others."""

    def __init__(self, to: HostPort) -> None:
        self.answers: list[Answer] = []
        self._to = (to.host, to.port)
        self._selector = selectors.DefaultSelector()
        self._under_way: dict[int, _Request] = {}

    @property
    def busy(self) -> bool:
        return bool(self._under_way)

    def watch(self, file: int) -> None:
        """`step` also returns when there is something to read from `file`, and says so."""
        self._selector.register(file, selectors.EVENT_READ)

    def forget(self, file: int) -> None:
        self._selector.unregister(file)

    def begin(self) -> None:
        """One request more."""
        connection = socket.socket()
        connection.setblocking(False)
        request = _Request(connection, time.monotonic())
        failed = connection.connect_ex(self._to)
        self._under_way[connection.fileno()] = request
        self._selector.register(connection, selectors.EVENT_WRITE, request)
        if failed not in (0, errno.EINPROGRESS):
            self._end(request, None, errno.errorcode.get(failed, str(failed)))

    def step(self, seconds: float) -> bool:
        """Go on with whatever can go on, waiting for that at most so long; whether the watched file has something."""
        heard = False
        for key, _ in self._selector.select(max(0.0, seconds)):
            if isinstance(key.data, _Request):
                self._go_on(key.data)
            else:
                heard = True
        self._give_up(time.monotonic() - DEADLINE)
        return heard

    def _go_on(self, request: _Request) -> None:
        try:
            if not request.sent:
                request.connection.send(REQUEST)
                request.sent = True
                self._selector.modify(request.connection, selectors.EVENT_READ, request)
                return
            part = request.connection.recv(4096)
        except OSError as error:
            self._end(request, None, type(error).__name__)
            return
        request.answer += part
        try:
            who = answered(request.answer)
        except ValueError as error:
            self._end(request, None, str(error))
            return
        if who is not None or not part:
            self._end(request, who, "" if part else "EOFError")

    def _give_up(self, began: float) -> None:
        """Those that began before then have failed; the oldest come first."""
        while self._under_way and (oldest := next(iter(self._under_way.values()))).began < began:
            self._end(oldest, None, "TimeoutError")

    def _end(self, request: _Request, who: str | None, error: str) -> None:
        self.answers.append(Answer(request.began, time.monotonic() - request.began, who, error))
        del self._under_way[request.connection.fileno()]
        self._selector.unregister(request.connection)
        request.connection.close()


def answered(data: bytes) -> str | None:
    """The one line of a whole answer, None if some of it is missing. Raises ValueError for any other than 200."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    status = head.split(b"\r\n", 1)[0]
    if status.split(b" ")[1:2] != [b"200"]:
        raise ValueError(status.decode("ascii", "replace"))
    _, there, rest = head.lower().partition(_LENGTH)
    if not there:
        raise ValueError("an answer without its length")
    length = int(rest.split(b"\r\n", 1)[0])
    return None if len(body) < length else body[:length].decode().removesuffix("\n")


def generate(to: HostPort, rate: int) -> list[Answer]:
    """What became of requests at `rate` a second, until standard input ended."""
    generator = Generator(to)
    generator.watch(sys.stdin.fileno())
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    due, going_on = time.monotonic(), True
    while going_on or generator.busy:
        while going_on and due <= time.monotonic():
            generator.begin()
            due += 1 / rate
        if generator.step(due - time.monotonic() if going_on else DEADLINE / 10):
            generator.forget(sys.stdin.fileno())
            going_on = False
    return generator.answers


if __name__ == "__main__":
    gc.disable()  # there are no cycles to be found, and looking for them would be a pause
    told = generate(HostPort.parse(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.buffer.write(msgspec.msgpack.encode(told))
