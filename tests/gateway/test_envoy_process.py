"""What keeps Envoy from starting is said and tried again; it never ends the gateway."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from federation.clock import SystemClock
from gateway.envoy.admin import Admin
from gateway.envoy.bootstrap import Sockets, bootstrap
from gateway.envoy.process import EnvoyProcess, Launch

DEADLINE = 20.0
STARTED = "started"
PROGRAM = f'#!/bin/sh\ntouch "$(dirname "$0")/{STARTED}"\nexec sleep 600\n'
"""Stands where Envoy's binary is: leaves a sign that it was started, and stays."""


def place(binary: Path, text: str = PROGRAM) -> None:
    """Put a program there as an installer does: never half of it, and never over one that runs."""
    new = binary.with_name("new")
    new.write_text(text)
    new.chmod(0o700)
    new.replace(binary)


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@contextmanager
def limited(which: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


def envoy(folder: Path, instance: str = "gateway-1") -> EnvoyProcess:
    folder.mkdir(mode=0o700, exist_ok=True)
    launch = Launch(folder / "envoy", folder, drain=0.0)
    sockets = Sockets(str(folder / "xds.sock"), str(folder / "admin.sock"))
    return EnvoyProcess(launch, bootstrap(instance, "east", sockets), Admin(launch.folder), SystemClock())


@asynccontextmanager
async def running(process: EnvoyProcess) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(process.run(), name="envoy")
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def said() -> Iterator[list[EventDict]]:
    """What is logged; nothing is written, so that a limit on files is for the gateway's alone."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "g"
    found.mkdir(mode=0o700)
    place(found / "envoy")
    return found


@pytest.fixture
def sign(folder: Path) -> Path:
    return folder / STARTED


async def test_a_full_disk_takes_no_bootstrap_and_room_mends_it(
    folder: Path, sign: Path, said: list[EventDict]
) -> None:
    process = envoy(folder)
    async with running(process) as task:
        with limited(resource.RLIMIT_FSIZE, 0):
            await until(lambda: bool(process.problem))
            assert "bootstrap.json" in process.problem
            assert os.strerror(errno.EFBIG) in process.problem
            assert {line["event"] for line in said} == {process.problem}
            assert process.pid is None
            assert not task.done()
        await until(sign.exists)
        assert process.crashes == 0
    assert (folder / "bootstrap.json").stat().st_mode & 0o777 == 0o600


async def test_the_bootstrap_that_is_there_is_used_and_not_written_again(folder: Path, sign: Path) -> None:
    async with running(envoy(folder)):
        await until(sign.exists)
    before = (folder / "bootstrap.json").stat()
    sign.unlink()
    with limited(resource.RLIMIT_FSIZE, 0):
        async with running(envoy(folder)):
            await until(sign.exists)
    after = (folder / "bootstrap.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_a_bootstrap_that_cannot_be_replaced_stays_whole_and_is_not_used(
    folder: Path, sign: Path
) -> None:
    async with running(envoy(folder)):
        await until(sign.exists)
    before = (folder / "bootstrap.json").read_bytes()
    sign.unlink()
    renamed = envoy(folder, "gateway-2")
    async with running(renamed):
        with limited(resource.RLIMIT_FSIZE, 0):
            await until(lambda: "bootstrap.json" in renamed.problem)
            assert (folder / "bootstrap.json").read_bytes() == before
            assert not sign.exists()
        await until(sign.exists)
    assert b"gateway-2" in (folder / "bootstrap.json").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"bootstrap.json", "envoy", STARTED}


async def test_no_file_descriptor_left_for_a_start(folder: Path, sign: Path) -> None:
    async with running(envoy(folder)):
        await until(sign.exists)
    sign.unlink()
    process = envoy(folder)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    with limited(resource.RLIMIT_NOFILE, lowest + 1):
        task = asyncio.create_task(process.run(), name="envoy")
        await until(lambda: bool(process.problem) or task.done())
        assert os.strerror(errno.EMFILE) in process.problem
    await until(sign.exists)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def removed(binary: Path) -> None:
    binary.unlink()


def no_program(binary: Path) -> None:
    place(binary, "neither ELF nor a script\n")


def not_allowed(binary: Path) -> None:
    binary.chmod(0o600)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(removed, errno.ENOENT), (no_program, errno.ENOEXEC), (not_allowed, errno.EACCES)],
)
async def test_a_program_that_went_bad_between_two_starts(
    folder: Path,
    sign: Path,
    spoil: Callable[[Path], None],
    error: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    process = envoy(folder)
    async with running(process) as task:
        await until(sign.exists)
        sign.unlink()
        spoil(folder / "envoy")
        assert process.pid is not None
        os.kill(process.pid, 9)
        await until(lambda: "cannot be started" in process.problem)
        assert f"{folder / 'envoy'}: {os.strerror(error)}" in process.problem
        assert process.crashes == 1
        assert not task.done()
        place(folder / "envoy")
        await until(sign.exists)
    assert "Traceback" not in capfd.readouterr().err


async def test_a_program_that_is_being_written(folder: Path, sign: Path) -> None:
    """A script is read by its interpreter; only a real program is refused with ETXTBSY (execve(2))."""
    copied = (folder / "envoy").read_text()
    binary = folder / "envoy"
    binary.write_bytes(Path("/bin/true").read_bytes())
    process = envoy(folder)
    with binary.open("ab"):
        async with running(process):
            await until(lambda: os.strerror(errno.ETXTBSY) in process.problem)
            place(binary, copied)
            await until(sign.exists)


async def test_an_envoy_that_ends_at_once_is_a_problem_until_one_stays(folder: Path, sign: Path) -> None:
    place(folder / "envoy", "#!/bin/sh\nexit 3\n")
    process = envoy(folder)
    async with running(process):
        await until(lambda: process.crashes >= 2)
        assert process.problem == "Envoy ended with status 3 and is started again"
        place(folder / "envoy")
        await until(sign.exists)
