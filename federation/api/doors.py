"""Where an application is served: unix sockets that the kernel guards, and TCP addresses with or without TLS."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from aiohttp import web

from federation.errors import FederationError
from federation.listen import HostPort, listen

CLOSE_GRACE = 1.0
"""Seconds that open requests get when the process stops."""

LONGEST_SOCKET_PATH = 107
"""Bytes of a unix socket's path (unix(7))."""


class Door(Protocol):
    """A place where an application is served. `close` is called once, also if `open` failed."""

    async def open(self, runner: web.AppRunner) -> HostPort | None: ...

    def close(self) -> None: ...


@asynccontextmanager
async def serving(app: web.Application, *doors: Door) -> AsyncIterator[tuple[HostPort | None, ...]]:
    """Serve `app` at `doors` for as long as the context lives; gives the bound address of each (None: unix)."""
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=CLOSE_GRACE, auto_decompress=False, logger=_strangers()
    )
    await runner.setup()
    try:
        yield tuple([await door.open(runner) for door in doors])
    finally:
        await runner.cleanup()
        for door in doors:
            door.close()


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

    def close(self) -> None:
        if self._ours:
            self.path.unlink(missing_ok=True)


class TcpDoor:
    """A TCP address, with TLS if a context is given."""

    def __init__(self, address: HostPort, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.tls = tls

    async def open(self, runner: web.AppRunner) -> HostPort:
        opened = listen(self.address)
        bound = HostPort.of(self.address.host, opened.getsockname()[1])
        await web.SockSite(runner, opened, ssl_context=self.tls).start()
        return bound

    def close(self) -> None:
        """The runner has closed the socket."""
