"""The demo, ended by its user or by the system at any moment: no process and no file is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from federation.demo.asking import until
from federation.demo.load import request
from federation.listen import HostPort
from tests.scenarios.command import clean
from tests.scenarios.command import federation as command

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

INTERRUPTED = 130
MARK = "FEDERATION_SCENARIO"
"""A variable in the environment of everything that a demo starts."""


class Demo:
    """A running `federation demo` whose temporary files go to `folder`."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, mark: str) -> None:
        self._process = process
        self._mark = mark
        self._out = bytearray()
        self.folder = folder

    @property
    def said(self) -> str:
        return self._out.decode()

    async def read(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(4096):
            self._out += data

    async def says(self, text: str) -> None:
        async def said() -> bool:
            assert self._process.returncode is None, self.said
            return text in self.said

        await until(f"{text!r}", said)

    async def has_folder(self) -> None:
        async def there() -> bool:
            assert self._process.returncode is None, self.said
            return any(self.folder.iterdir())

        await until("the folder of the demo", there)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self, within: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def left(self) -> tuple[list[str], list[Path]]:
        """The processes and files that are still there when those that were killed have had the time to go."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while self._processes():
                    await asyncio.sleep(0.05)
        return [str(one) for one in self._processes()], sorted(
            self.folder.rglob("*")
        ) if self.folder.exists() else []

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    def kill(self) -> None:
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a short name: unix sockets in it may have 107 bytes (unix(7))."""
    return tmp_path_factory.mktemp("d")


@asynccontextmanager
async def demo(
    folder: Path, *arguments: str | Path, environment: dict[str, str] | None = None
) -> AsyncIterator[Demo]:
    """A demo in the background; whatever it leaves is ended with the context."""
    mark = uuid4().hex
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "federation.cli.main", "demo", *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=clean({"TMPDIR": str(folder), MARK: mark, **(environment or {})}),
        start_new_session=True,
    )
    made = Demo(process, folder, mark)
    reading = asyncio.create_task(made.read(), name="demo-output")
    try:
        yield made
    finally:
        made.kill()
        await process.wait()
        await reading


MOMENTS = (
    ("", signal.SIGTERM),
    ("the hub runs", signal.SIGINT),
    ("west joined with its one-time token", signal.SIGTERM),
    ("2. A request in east", signal.SIGINT),
)
"""What it says when the signal comes; the first: as soon as there is something to leave behind."""


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
async def test_interrupted_tour_leaves_nothing(folder: Path, moment: str, number: signal.Signals) -> None:
    async with demo(folder) as made:
        await (made.says(moment) if moment else made.has_folder())
        made.signal(number)
        assert await made.end() == INTERRUPTED, made.said
        assert "Traceback" not in made.said
        assert await made.left() == ([], [])


async def test_interrupted_before_it_began(folder: Path) -> None:
    """While Python still reads the program: with this setting it says which module it has read."""
    async with demo(folder, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as made:
        await made.says("click.types")
        made.signal(signal.SIGINT)
        assert await made.end() == INTERRUPTED, made.said
        assert "Traceback" not in made.said
        assert await made.left() == ([], [])


async def test_folder_with_too_long_a_name_is_refused_before_anything_starts(folder: Path) -> None:
    long = folder / ("long" * 20)
    refused = await command("demo", "--directory", long)
    assert refused.code == 1, refused
    assert "too long for the unix sockets" in refused.err
    assert "choose a shorter --directory" in refused.err
    assert not long.exists()


async def test_two_demos_side_by_side_each_interrupted_in_its_own_way(folder: Path) -> None:
    """One is interrupted and the other goes on; that one is interrupted again while it stops."""
    here, there = folder / "1", folder / "2"
    async with (
        demo(here, "up", "--directory", here) as first,
        demo(there, "up", "--directory", there) as second,
    ):
        for made in (first, second):
            await made.says("Ctrl-C stops everything")
        ways = [await _east(each) for each in (here, there)]
        assert [(await request(way)).who for way in ways] == ["east", "east"]
        taken = await command("demo", "up", "--directory", here)
        assert (taken.code, "another demo is up in" in taken.err) == (1, True), taken
        first.signal(signal.SIGINT)
        assert await first.end() == INTERRUPTED
        assert await first.left() == ([], [])
        assert (await request(ways[1])).who == "east"
        gone = await command("demo", "status", "--directory", here)
        assert (gone.code, "no demo is up" in gone.err) == (1, True), gone
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            second.signal(number)
            await asyncio.sleep(0.1)
        assert await second.end() == INTERRUPTED
        assert "Traceback" not in first.said + second.said
        assert await second.left() == ([], [])


async def _east(folder: Path) -> HostPort:
    """Where `default/echo` is reached in east, as `demo status` tells other programs."""
    status = await command("demo", "status", "--directory", folder, "-o", "json")
    assert status.code == 0, status
    east: dict[str, dict[str, str]] = next(one for one in status.json["clusters"] if one["name"] == "east")
    return HostPort.parse(east["imports"]["default/echo:80"])
