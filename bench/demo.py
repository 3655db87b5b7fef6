"""How long a newcomer waits for the demo: until one cluster answers for another, and until the tour is over.

And what the product's processes weigh while it runs. There is no peer: these are aims in seconds and bytes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.harness import Judged, Row
from bench.processes import resident_bytes
from federation.demo.load import request
from federation.demo.processes import Process
from federation.demo.run import describe
from federation.demo.tour import ECHO_PORT
from federation.errors import FederationError
from federation.listen import HostPort

STARTS = 5
FIRST_ANSWER = 5.0
TOUR = 60.0
RESIDENT = 100.0
MEBIBYTE = 1024 * 1024
GIVE_UP = 120.0
"""Seconds after which a demo that is not up, or a tour that is not over, has failed."""


async def demo(folder: Path) -> list[Row]:
    """Seconds to the first answer and of the whole tour; memory of each process, by kind."""
    waits: list[float] = []
    memory: dict[str, list[float]] = {"hub": [], "agent": [], "gateway": []}
    for number in range(STARTS):
        began = time.monotonic()
        async with _up(folder / str(number)) as facts:
            waits.append(await _first_answer(facts) - began)
            for kind, pid in _processes(facts):
                memory[kind].append(resident_bytes(pid) / MEBIBYTE)
    toured = await _tour(folder)
    note = "`federation demo up` to an answer by west in east"
    return [
        Row("demo-first-answer", "s", tuple(waits), (), Judged.MEDIAN, FIRST_ANSWER, note),
        Row("demo-tour", "s", (toured,), (), Judged.MEDIAN, TOUR, "`federation demo`; every claim holds"),
        *(
            Row(
                f"memory-{kind}",
                "MiB",
                tuple(found),
                (),
                Judged.WORST,
                RESIDENT,
                "resident in the demo, the largest",
            )
            for kind, found in memory.items()
        ),
    ]


@asynccontextmanager
async def _up(home: Path) -> AsyncIterator[dict[str, Any]]:
    """What the demo says of itself once it is up; it is interrupted, as by Ctrl-C, when the context ends."""
    command = (sys.executable, "-m", "federation.cli.main", "demo", "up", "--directory", str(home))
    process = Process("demo", command, home.with_suffix(".log"))
    await process.start()
    try:
        yield await _facts(process, home)
    finally:
        process.signal(signal.SIGINT)
        await process.stop()


async def _facts(process: Process, home: Path) -> dict[str, Any]:
    end = time.monotonic() + GIVE_UP
    while time.monotonic() < end:
        process.check()
        try:
            return describe(home)
        except FederationError:
            await asyncio.sleep(0.02)
    raise FederationError(f"the demo is not up after {GIVE_UP:.0f} s", f"see {process.log}")


async def _first_answer(facts: dict[str, Any]) -> float:
    """The moment (monotonic seconds) of the first answer by another cluster, once east has no backend any more."""
    east = next(cluster for cluster in facts["clusters"] if cluster["name"] == "east")
    for backend in east["backends"]:
        os.kill(backend["pid"], signal.SIGKILL)
    entry = HostPort.parse(east["imports"][ECHO_PORT])
    end = time.monotonic() + GIVE_UP
    while time.monotonic() < end:
        answer = await request(entry)
        if answer.who not in (None, "east"):
            return answer.began + answer.seconds
    raise FederationError("no other cluster answered")


def _processes(facts: dict[str, Any]) -> list[tuple[str, int]]:
    """(kind, pid) of each process of the product."""
    found = [("hub", facts["hub"]["pid"])]
    for cluster in facts["clusters"]:
        found.append(("agent", cluster["agent"]["pid"]))
        found += [("gateway", gateway["pid"]) for gateway in cluster["gateways"]]
    return found


async def _tour(folder: Path) -> float:
    """Seconds of a whole tour. Raises FederationError if a claim does not hold."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "federation.cli.main", "demo", "--directory", str(folder / "tour"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(GIVE_UP * 2):
            said = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.wait()
    if process.returncode != 0:
        broken = [line.strip() for line in said.splitlines() if "✗" in line] or said.splitlines()[-3:]
        raise FederationError(f"the tour ended with {process.returncode}: {' / '.join(broken)}")
    return time.monotonic() - began
