"""The demo as a command: the tour, staying up, and telling other programs what runs where.

Whatever ends it (the end of the tour, Ctrl-C, SIGTERM, an error), no process and no file is left.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from federation.api.doors import LONGEST_SOCKET_PATH
from federation.demo.claims import Record
from federation.demo.screen import Terminal
from federation.demo.tour import ECHO_PORT, Tour
from federation.demo.world import World, world
from federation.errors import FederationError
from pki import durable

STATE = "demo.json"
FIRST_ANSWER_GOAL = 5.0
TOUR_GOAL = 60.0
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""The signals that end a demo and leave nothing of it."""

LONGEST_SOCKET = "central/gateway-1/state/admin.sock"
"""Of those below the folder of a demo."""


def default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"federation-demo-{os.geteuid()}"


def tour(directory: Path | None) -> bool:
    """Start, walk through, stop; whether every claim held."""
    screen = Terminal()
    record = Record(screen)
    began = time.monotonic()

    async def walk(made: World) -> None:
        ready = time.monotonic() - began
        record.claim("three clusters are up", True, f"{ready:.1f} s to the first cross-cluster answer", "5 s")
        await Tour(made, record, screen).run()

    with _folder(directory) as folder, screen.live():
        _run(folder, screen, walk)
    seconds = time.monotonic() - began
    held = sum(claim.holds for claim in record.claims)
    screen.line(f"\n{held} of {len(record.claims)} claims hold; {seconds:.1f} s (goal: {TOUR_GOAL:.0f} s)")
    return record.all_hold


def up(directory: Path | None) -> None:
    """Start and stay until interrupted."""
    screen = Terminal()

    async def stay(made: World) -> None:
        facts = await _facts(made)
        state = made.folder / STATE
        await asyncio.to_thread(durable.write, state, msgspec.json.encode(facts))
        screen.line(_invitation(made, facts, directory))
        await asyncio.Event().wait()

    with _folder(directory or default_folder()) as folder:
        _run(folder, screen, stay)


def describe(directory: Path | None) -> dict[str, Any]:
    """What runs where, as `up` wrote it. Raises FederationError if no demo is up there."""
    state = (directory or default_folder()) / STATE
    try:
        found: dict[str, Any] = msgspec.json.decode(state.read_bytes())
    except FileNotFoundError as error:
        raise FederationError(
            f"no demo is up in {state.parent}", "start one with `federation demo up`"
        ) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise FederationError(f"{state} cannot be read: {error}") from error
    return found


def _run(folder: Path, screen: Terminal, use: Callable[[World], Awaitable[None]]) -> None:
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
            if signals <= 2:
                task.cancel()

        for number in ENDING:
            asyncio.get_running_loop().add_signal_handler(number, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            async with world(folder, screen.progress) as made:
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


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    """A private folder that is gone afterwards, unless the demo failed: then its logs are wanted.

    The signals of `ENDING` are held back from its making to the end of the process, except in `_run`.
    """
    _check_length(directory.absolute() if directory else default_folder())
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    if directory is None:
        folder = Path(tempfile.mkdtemp(prefix="federation-demo-"))
    else:
        folder = directory.absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken = any(folder.iterdir())
        except OSError as error:
            raise FederationError(
                f"cannot use {folder}: {error.strerror}", "choose another --directory"
            ) from error
        if taken:
            raise FederationError(
                f"{folder} is not empty: another demo may be up there",
                "see `federation demo status`, or choose another --directory",
            )
    try:
        yield folder
    except FederationError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _check_length(folder: Path) -> None:
    spare = LONGEST_SOCKET_PATH - len(os.fsencode(folder / LONGEST_SOCKET))
    if spare < 0:
        raise FederationError(
            f"the path {folder} is {-spare} bytes too long for the unix sockets below it (unix(7))",
            "choose a shorter --directory",
        )


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
                "imports": await cluster.imports(),
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
    return {"directory": str(made.folder), "hub": hub, "clusters": clusters}


def _invitation(made: World, facts: dict[str, Any], directory: Path | None) -> str:
    east = facts["clusters"][0]
    reach = east["imports"][ECHO_PORT]
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
