"""The agent's parent of its door processes for `IssueSvid`: starts them, starts them again, and lets none survive."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from federation.clock import Clock
from federation.listen import HostPort
from federation.svid.demand import Answer, Demand
from federation.svid.doors import Hatch, Served
from gateway.envoy import tether

RESTART_AFTER = 1.0
FOLLOW_EVERY = 1.0
"""Seconds between two looks at whether certificate or bundle have changed."""
EXIT_GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL."""

log = structlog.get_logger()


class IssuingDoors:
    """`processes` doors at `address`, which reach us at the unix socket `path` (0600)."""

    def __init__(
        self,
        path: Path,
        address: HostPort,
        processes: int,
        issue: Callable[[Demand], Awaitable[Answer]],
        served: Callable[[], Served],
        clock: Clock,
    ) -> None:
        self._path = path
        self._address = address
        self._processes = processes
        self._issue = issue
        self._served = served
        self._clock = clock
        self._hatches: set[Hatch] = set()
        self._pids: dict[int, int] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the doors that run."""
        return tuple(self._pids.values())

    @property
    def connected(self) -> int:
        return len(self._hatches)

    async def run(self) -> None:
        """For ever."""
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._opened, self._path)
        finally:
            os.umask(before)
        async with server, asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="doors-follow")
            for number in range(self._processes):
                group.create_task(self._keep(number), name=f"door-{number}")

    async def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hatch = Hatch(reader, writer, self._issue)
        self._hatches.add(hatch)
        try:
            hatch.tell(self._served())
            await hatch.run()
        finally:
            self._hatches.discard(hatch)

    async def _follow(self) -> None:
        """Tell the doors when what they speak TLS with, or the bundle, has changed."""
        told = self._served()
        while True:
            await self._clock.sleep(FOLLOW_EVERY)
            if (now := self._served()) != told:
                told = now
                for hatch in self._hatches:
                    hatch.tell(now)

    async def _keep(self, number: int) -> None:
        while True:
            door = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                *(sys.executable, "-m", "federation.app.svid_door", str(self._path), str(self._address)),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            self._pids[number] = door.pid
            try:
                status = await door.wait()
            finally:
                del self._pids[number]
                await _end(door)
            log.error("a door for certificates ended", number=number, status=status)
            await self._clock.sleep(RESTART_AFTER)


async def _end(door: asyncio.subprocess.Process) -> None:
    if door.returncode is not None:
        return
    with suppress(ProcessLookupError):
        door.terminate()
    try:
        async with asyncio.timeout(EXIT_GRACE):
            await door.wait()
    except TimeoutError:
        door.kill()
        await door.wait()
