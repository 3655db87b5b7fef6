"""The parent of one Envoy: starts it, starts it again when it dies, drains it, and lets none survive.

One worker by default: a gateway is sized by replicas, and every worker has its own connections, pings and probes to
every other gateway. Envoy never outlives its parent (see `tether`): a gateway without its process would serve with a
certificate that nobody renews.
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
    """How to start Envoy. `drain` is in seconds: how long peers get to leave, also when a listener changes.

    `output` takes what Envoy writes; None leaves it where the gateway's own goes.
    """

    binary: Path
    folder: Path
    concurrency: int = 1
    drain: float = 5.0
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    output: Path | None = None

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
    """`run` keeps an Envoy alive until `drain` is over, or until it is cancelled."""

    def __init__(self, launch: Launch, bootstrap: Bootstrap, admin: Admin, clock: Clock) -> None:
        self._launch = launch
        self._bootstrap = bootstrap
        self._admin = admin
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.crashes = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Raises EnvoyFailed if the bootstrap cannot be written or nothing can be started."""
        try:
            self._launch.config.write_text(MessageToJson(self._bootstrap))
        except OSError as error:
            raise EnvoyFailed(f"{self._launch.config}: {error.strerror}") from error
        backoff = Backoff(self._clock, SHORTEST_BACKOFF, LONGEST_BACKOFF)
        while not self._stopping:
            await self._account(await self._run_once(), backoff)

    async def _account(self, code: int, backoff: Backoff) -> None:
        if not self._stopping:
            self.crashes += 1
            log.error("Envoy ended and is started again", status=_cause(code), crashes=self.crashes)
            await backoff.wait()

    async def _run_once(self) -> int:
        command = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self._launch.command())
        with contextlib.ExitStack() as stack:
            output = None if (path := self._launch.output) is None else stack.enter_context(path.open("ab"))
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
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
