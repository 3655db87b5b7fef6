"""The processes of a benchmark: where they run, what they cost, and that none of them is left behind.

What is measured runs on one CPU, what measures on another, where there are two.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

from federation.demo.processes import Process
from federation.errors import FederationError
from federation.listen import HostPort

_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = _CPUS[0]
LOAD_CPU = _CPUS[-1]

_TICKS = os.sysconf("SC_CLK_TCK")
_WITHIN = 20.0
"""Seconds that a process may take to listen."""


def program(name: str) -> str:
    """The path of a program. Raises FederationError if it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise FederationError(
            f"{name} is not installed", "`make bench` installs what is missing when run by root"
        )
    return found


@asynccontextmanager
async def running(name: str, command: Sequence[str], folder: Path, cpu: int) -> AsyncIterator[Process]:
    """A process that runs on `cpu` for the life of the context; its output goes to `folder`."""
    process = Process(name, command, folder / f"{name}.log")
    await process.start()
    try:
        pin((process.pid,), cpu)
        yield process
    finally:
        await process.kill()


def pin(pids: Iterable[int], cpu: int) -> None:
    """Bind every thread of these processes to one CPU; those that they start later inherit it."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), {cpu})


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes so far (proc(5): fields 14 and 15 of stat)."""
    return sum(_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids) / _TICKS


def _ticks(stat: str) -> int:
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_bytes(pid: int) -> int:
    """Resident memory of a process (proc(5): VmRSS of status, in KiB)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise FederationError(f"process {pid} has no resident memory: it is gone")


async def listening(process: Process, address: HostPort) -> None:
    """Wait until `process` accepts connections there. Raises FederationError, with what it wrote, if it does not."""
    end = asyncio.get_running_loop().time() + _WITHIN
    while asyncio.get_running_loop().time() < end:
        process.check()
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()
            return
        await asyncio.sleep(0.02)
    raise FederationError(
        f"{process.name} does not listen on {address} after {_WITHIN:.0f} s", f"see {process.log}"
    )


def loopback(count: int, ports: Sequence[int]) -> tuple[str, ...]:
    """`count` loopback addresses that follow each other, on which nobody listens on any of `ports`."""
    for _ in range(100):
        first = IPv4Address(f"127.{random.randint(192, 250)}.{random.randint(0, 255)}.1")
        addresses = tuple(str(first + number) for number in range(count))
        if all(_is_free(address, port) for address in addresses for port in ports):
            return addresses
    raise FederationError("no loopback address with free ports was found")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
