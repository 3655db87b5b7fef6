"""The parent of one Envoy: starts it, starts it again when it dies, drains it, and lets none survive.

One worker by default: a gateway is sized by replicas, and every worker has its own connections, pings and probes to
every other gateway. Envoy never outlives its parent (see `tether`): a gateway without its process would serve with a
certificate that nobody renews. What keeps Envoy from starting (a full disk, no memory, no program) may pass: it is said
in `problem` and tried again, never the end of the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from google.protobuf.json_format import MessageToJson

from federation.clock import Clock
from federation.retry import Backoff
from gateway.envoy import tether
from gateway.envoy.admin import Admin
from gateway.errors import EnvoyAdminError, EnvoyFailed
from gateway.pb.envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from pki import durable
from pki.errors import WriteError

SHORTEST_BACKOFF = 0.1
LONGEST_BACKOFF = 10.0

EXIT_GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL. Envoy exits at once on SIGTERM, unless it hangs."""

POLL = 0.1
"""Seconds between two looks at the connections that are left while draining."""

_CONNECTIONS = r"^listener\..*\.downstream_cx_active$"
_INTERNAL = "envoy_internal"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start Envoy. `drain` is in seconds: how long peers get to leave, also when a listener changes."""

    binary: Path
    folder: Path
    concurrency: int = 1
    drain: float = 5.0
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    @property
    def config(self) -> Path:
        return self.folder / "bootstrap.json"

    def command(self) -> tuple[str, ...]:
        """Without hot restart there is no shared memory, so any number run side by side."""
        return (
            str(self.binary),
            *("--config-path", str(self.config)),
            *("--concurrency", str(self.concurrency)),
            *("--drain-time-s", str(max(1, math.ceil(self.drain)))),
            *("--log-level", self.log_level),
            "--disable-hot-restart",
        )


class EnvoyProcess:
    """`run` keeps an Envoy alive until `drain` is over, or until it is cancelled.

    `problem` says why the last start failed or the last Envoy ended: old news as soon as one is live.
    """

    def __init__(self, launch: Launch, bootstrap: Bootstrap, admin: Admin, clock: Clock) -> None:
        self._launch = launch
        self._bootstrap = bootstrap
        self._admin = admin
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.crashes = 0
        self.problem = ""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Start Envoy, and start it again, until `drain`."""
        backoff = Backoff(self._clock, SHORTEST_BACKOFF, LONGEST_BACKOFF)
        while not self._stopping:
            try:
                self._place_bootstrap()
                self._ended(await self._run_once())
            except EnvoyFailed as error:
                self._say(str(error))
            if not self._stopping:
                await backoff.wait()

    def _place_bootstrap(self) -> None:
        """Written only if it differs from what is there: a full disk keeps nobody from starting as before."""
        path = self._launch.config
        wanted = MessageToJson(self._bootstrap).encode()
        with contextlib.suppress(OSError):
            if path.read_bytes() == wanted:
                return
        try:
            durable.write(path, wanted)
        except WriteError as error:
            raise EnvoyFailed(str(error)) from error

    def _ended(self, code: int) -> None:
        """Envoy, or what was to become it, ended with this status. Raises EnvoyFailed if it never was Envoy."""
        if code > tether.NOT_STARTED:
            raise EnvoyFailed(f"{self._launch.binary}: {os.strerror(code - tether.NOT_STARTED)}")
        if not self._stopping:
            self.crashes += 1
            self._say(f"Envoy ended with {_cause(code)} and is started again")

    def _say(self, problem: str) -> None:
        self.problem = problem
        log.error(problem, crashes=self.crashes)

    async def _run_once(self) -> int:
        command = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self._launch.command())
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise EnvoyFailed(error.strerror or str(error)) from error
        self._process = process
        log.info("Envoy started", pid=process.pid)
        try:
            return await process.wait()
        finally:
            await asyncio.shield(self._end(process))
            self._process = None

    async def drain(self) -> None:
        """Turn new clients away, wait for those that are there, and end Envoy: at most twice the drain time."""
        self._stopping = True
        try:
            if self._launch.drain > 0 and self._process is not None:
                await self._admin.fail_health_checks()
                await self._admin.drain_listeners()
                await self._clock.sleep(self._launch.drain)
                await self._wait_for_connections()
        except EnvoyAdminError as error:
            log.warning("Envoy cannot be drained", reason=str(error))
        if (process := self._process) is not None:
            await self._end(process)

    async def _wait_for_connections(self) -> None:
        deadline = self._clock.monotonic() + self._launch.drain
        while (left := await self.connections()) and self._clock.monotonic() < deadline:
            await self._clock.sleep(POLL)
        log.info("Envoy drained", connections_left=left)

    async def connections(self) -> int:
        """Connections from outside that Envoy holds. Raises EnvoyAdminError."""
        gauges = await self._admin.gauges(_CONNECTIONS)
        return sum(value for name, value in gauges.items() if _INTERNAL not in name)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(EXIT_GRACE):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
