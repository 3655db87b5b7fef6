"""Where an application is served: unix sockets that the kernel guards, and TCP addresses with or without TLS.

Anybody may knock at a TCP address, so what a stranger can hold there is bounded: so many connections at a time, of
which the oldest gives way to a new one, and so many seconds without a whole request. Every call here is short, so
the oldest is not one that somebody waits for, and a crowd of silent strangers keeps nobody out.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import structlog
from aiohttp import web

from federation.errors import FederationError
from federation.listen import LONGEST_SOCKET_PATH, HostPort, listen

CLOSE_GRACE = 1.0
"""Seconds that open requests get when the process stops."""

PATIENCE = 15.0
"""Seconds that a handshake, the head of a request, its body, and the pause until the next one may take."""

MOST_CONNECTIONS = 256
"""Connections at one TCP address; a process may have 1024 files open unless it is told otherwise."""

ACCEPT_AGAIN = 0.1
"""Seconds until the next attempt when the process cannot open any more files."""

log = structlog.get_logger()


class Door(Protocol):
    """A place where an application is served. `close` is called once, also if `open` failed."""

    async def open(self, runner: web.AppRunner) -> HostPort | None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def serving(
    app: web.Application, *doors: Door, patience: float = PATIENCE
) -> AsyncIterator[tuple[HostPort | None, ...]]:
    """Serve `app` at `doors` for as long as the context lives; gives the bound address of each (None: unix).

    Who sends no whole head of a request for `patience` seconds is cut.
    """
    app.on_response_prepare.append(_without_server)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=CLOSE_GRACE,
        keepalive_timeout=patience,
        auto_decompress=False,
        logger=_strangers(),
    )
    await runner.setup()
    try:
        yield tuple([await door.open(runner) for door in doors])
    finally:
        for door in doors:
            await door.close()
        await runner.cleanup()


async def _without_server(_: web.Request, response: web.StreamResponse) -> None:
    """Which library in which version answers is nobody's affair (RFC 9110 §10.2.4)."""
    response.headers.pop("Server", None)


def _strangers() -> logging.Logger:
    """The log of requests that are not even HTTP: anybody can make them, so each is one line without a traceback."""
    logger = logging.getLogger("federation.http")
    logger.addFilter(_without_traceback)
    return logger


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] is not None:
        record.msg = f"{record.getMessage()}: {type(record.exc_info[1]).__name__}"
        record.args, record.exc_info = (), None
    return True


class CannotListenUnix(FederationError):
    """The unix socket cannot be served."""

    def __init__(self, path: Path, why: str, hint: str) -> None:
        super().__init__(f"cannot listen on {path}: {why}", hint=hint)
        self.path = path


class UnixDoor:
    """A unix socket, 0600 from its first moment.

    A stale socket is replaced. One that another process serves, or a file that is no socket, is an error and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ours = False

    async def open(self, runner: web.AppRunner) -> None:
        if len(os.fsencode(self.path)) > LONGEST_SOCKET_PATH:
            why = f"the path is over {LONGEST_SOCKET_PATH} bytes long (unix(7))"
            raise CannotListenUnix(self.path, why, "choose a shorter directory")
        try:
            await self._clear()
            opened = self._bind()
        except OSError as error:
            raise CannotListenUnix(self.path, error.strerror or "failed", "check the directory") from error
        self._ours = True
        await web.SockSite(runner, opened).start()

    async def _clear(self) -> None:
        """Remove what a process that was killed left behind. Raises OSError, or CannotListenUnix for all else."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise CannotListenUnix(self.path, "there is a file that is no socket", "move it away")
        try:
            _, writer = await asyncio.open_unix_connection(str(self.path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            self.path.unlink(missing_ok=True)
        else:
            writer.close()
            raise CannotListenUnix(
                self.path, "another process serves it", "stop it, or choose another directory"
            )

    def _bind(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            opened.bind(str(self.path))
            opened.listen(64)
            opened.setblocking(False)
        except OSError:
            opened.close()
            raise
        finally:
            os.umask(before)
        return opened

    async def close(self) -> None:
        if self._ours:
            self.path.unlink(missing_ok=True)


class TcpDoor:
    """A TCP address, with TLS if a context is given, and at most `most` connections at a time."""

    def __init__(
        self,
        address: HostPort,
        tls: ssl.SSLContext | None = None,
        *,
        most: int = MOST_CONNECTIONS,
        patience: float = PATIENCE,
    ) -> None:
        self.address = address
        self.tls = tls
        self._most = most
        self._shaking = (
            {"ssl_handshake_timeout": patience, "ssl_shutdown_timeout": CLOSE_GRACE} if tls else {}
        )
        self._inside: deque[socket.socket] = deque()
        self._accepting: asyncio.Task[None] | None = None

    async def open(self, runner: web.AppRunner) -> HostPort:
        listening = listen(self.address)
        bound = HostPort.of(self.address.host, listening.getsockname()[1])
        assert runner.server is not None
        self._accepting = asyncio.create_task(self._accept(listening, runner.server), name=f"door {bound}")
        self._accepting.add_done_callback(self._ended)
        return bound

    async def close(self) -> None:
        """Let nobody in any more; who is inside is the runner's affair."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))

    async def _accept(self, listening: socket.socket, server: web.Server) -> None:
        """Let people in, one a turn of the loop: where more are waiting, `sock_accept` gives the loop no turn, in which
        whoever was cut is closed.
        """
        with listening:
            async with asyncio.TaskGroup() as entering:
                while True:
                    try:
                        accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
                    except OSError as error:
                        await self._not_accepted(error)
                        continue
                    self._make_room()
                    self._inside.append(accepted)
                    entering.create_task(self._enter(accepted, server), name="handshake")
                    await asyncio.sleep(0)

    def _ended(self, accepting: asyncio.Task[None]) -> None:
        if not accepting.cancelled() and (error := accepting.exception()) is not None:
            log.critical("nobody is let in any more", address=str(self.address), exc_info=error)

    async def _not_accepted(self, error: OSError) -> None:
        """Out of files or memory, or the caller is gone already: go on listening, without turning in circles."""
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            log.warning("no connection can be accepted", address=str(self.address), problem=error.strerror)
            self._cut_oldest()
            await asyncio.sleep(ACCEPT_AGAIN)

    def _make_room(self) -> None:
        if len(self._inside) >= self._most:
            self._inside = deque(one for one in self._inside if one.fileno() >= 0)
        if len(self._inside) >= self._most:
            self._cut_oldest()

    def _cut_oldest(self) -> None:
        if self._inside:
            with suppress(OSError):
                self._inside.popleft().shutdown(socket.SHUT_RDWR)

    async def _enter(self, accepted: socket.socket, server: web.Server) -> None:
        """Shake hands; whoever fails to is gone without a word, as anybody may fail."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                server, accepted, ssl=self.tls, **self._shaking
            )
        except OSError:
            accepted.close()
