"""Asking the demo's processes through their own sockets, and waiting until they say what is wanted.

Waiting always ends: with the condition, with a process that stopped, or with the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from federation.api.client import Refusal, Target, connect
from federation.demo.processes import Process
from federation.errors import FederationError, Unreachable

READY_WITHIN = 60.0
"""Seconds that one process may take to become ready on a busy machine."""


async def ask(path: Path, route: str, *, method: str = "GET", body: Any = None) -> Any:
    """One call of the process behind the unix socket `path`."""
    async with connect(Target(f"unix://{path}")) as client:
        return await client.call(method, route, body=body)


async def until(
    what: str,
    holds: Callable[[], Awaitable[bool]],
    *,
    watch: tuple[Process, ...] = (),
    within: float = READY_WITHIN,
) -> None:
    """Wait for a condition. Raises FederationError if it does not come, or if a process that it needs stopped."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        for process in watch:
            process.check()
        try:
            if await holds():
                return
        except (Unreachable, Refusal):
            pass
        if asyncio.get_running_loop().time() > deadline:
            logs = " and ".join(sorted({f"{process.log.parent}/*.log" for process in watch}))
            raise FederationError(
                f"{what} did not happen within {within:.0f} s", f"see {logs}" if logs else ""
            )
        await asyncio.sleep(0.03)


async def answers(path: Path) -> bool:
    """Whether the process behind the unix socket `path` does; what it raises otherwise is for `until`."""
    await ask(path, "/v1/status")
    return True
