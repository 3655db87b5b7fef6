"""The demo as a command: the tour, staying up, and telling other programs what runs where.

Whatever ends it (the end of the tour, Ctrl-C, SIGTERM, an error), no process and no file is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from federation.demo.alive import current
from federation.demo.claims import Record
from federation.demo.folder import ENDING, default_folder, private, state_of, write_state
from federation.demo.openbao import find_bao
from federation.demo.screen import Terminal
from federation.demo.tour import ECHO_PORT, Tour
from federation.demo.world import World, world

READY_GOAL = 5.0
"""Seconds to the first answer of another cluster."""

TOUR_GOAL = 60.0
"""Seconds of the whole tour."""


def tour(directory: Path | None, *, vault: bool = False) -> bool:
    """Start, walk through, stop; whether every claim held. With `vault` the root is in OpenBao."""
    _check(vault)
    screen = Terminal()
    record = Record(screen)
    began = time.monotonic()

    async def walk(made: World) -> None:
        ready = time.monotonic() - began
        figure = f"{ready:.1f} s to the first cross-cluster answer"
        record.claim("three clusters are up", True, figure, f"{READY_GOAL:.0f} s", missed=ready > READY_GOAL)
        await Tour(made, record, screen).run()

    with private(directory) as folder, screen.live():
        _run(folder, screen, walk, vault=vault)
    seconds = time.monotonic() - began
    held = sum(claim.holds for claim in record.claims)
    goal = f"goal{' missed' if seconds > TOUR_GOAL else ''}: {TOUR_GOAL:.0f} s"
    screen.line(f"\n{held} of {len(record.claims)} claims hold; {seconds:.1f} s ({goal})")
    return record.all_hold


def up(directory: Path | None, *, vault: bool = False) -> None:
    """Start and stay until interrupted. With `vault` the root is in OpenBao."""
    _check(vault)
    screen = Terminal()

    async def stay(made: World) -> None:
        facts = await _facts(made)
        await asyncio.to_thread(write_state, made.folder, facts)
        screen.line(_invitation(made, facts, directory))
        await asyncio.Event().wait()

    with private(directory or default_folder()) as folder:
        _run(folder, screen, stay, vault=vault)


def _check(vault: bool) -> None:
    """Miss what is not installed before there is a folder."""
    if vault:
        find_bao()


def describe(directory: Path | None) -> dict[str, Any]:
    """What runs where now, of what `up` started. Raises FederationError if no demo is up there."""
    return current(state_of(directory.absolute() if directory else default_folder()))


def _run(folder: Path, screen: Terminal, use: Callable[[World], Awaitable[None]], *, vault: bool) -> None:
    """Run `use` in a world; a signal of `ENDING` ends it as it ends by itself, a second one at once.

    Expects those signals to be held back, and leaves them so: before and after, nobody would tidy up.
    """

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        signals = 0

        def end() -> None:
            nonlocal signals
            signals += 1
            if signals == 1:
                screen.progress("stopping; once more ends everything at once")
            if signals <= 2:
                task.cancel()

        for number in ENDING:
            asyncio.get_running_loop().add_signal_handler(number, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            async with world(folder, screen.progress, vault=vault) as made:
                await use(made)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except ExceptionGroup as group:
        raise _first(group) from group


def _first(group: ExceptionGroup[Exception]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def _facts(made: World) -> dict[str, Any]:
    clusters = []
    for cluster in made.clusters.values():
        gateways = []
        for gateway in cluster.gateways:
            status = await gateway.status()
            gateways.append(
                {
                    "name": gateway.name,
                    "pid": gateway.process.pid,
                    "envoy_pid": status["envoy_pid"],
                    "address": str(gateway.address),
                    "admin": status["admin"],
                    "socket": str(gateway.socket),
                }
            )
        clusters.append(
            {
                "name": cluster.name,
                "region": cluster.plan.region,
                "agent": {"pid": cluster.agent.pid, "socket": str(cluster.socket)},
                "gateways": gateways,
                "imports": await cluster.reach(),
                "services": str(cluster.folder / "services"),
                "backends": [
                    {"service": f"default/{one.service}", "pid": one.process.pid, "address": str(one.address)}
                    for one in cluster.backends
                ],
            }
        )
    hub = {
        "pid": made.hub.pid,
        "api": str(made.hub_api),
        "sync": str(made.hub_sync),
        "socket": str(made.hub_socket),
    }
    return {"directory": str(made.folder), "pid": os.getpid(), "hub": hub, "clusters": clusters}


def _invitation(made: World, facts: dict[str, Any], directory: Path | None) -> str:
    east = facts["clusters"][0]
    reach = east["imports"][ECHO_PORT][0]
    where = f" --directory {directory}" if directory else ""
    pids = " ".join(str(one["pid"]) for one in east["backends"])
    return f"""
Three clusters are up. In another terminal, try:

  curl http://{reach}/                           east answers
  kill -9 {pids}; curl http://{reach}/           west answers, over mutual TLS
  federation --hub unix://{made.hub_socket} status
  federation --hub unix://{made.hub_socket} explain default/echo --from east
  federation demo status{where}

Ctrl-C stops everything and removes {made.folder}."""
