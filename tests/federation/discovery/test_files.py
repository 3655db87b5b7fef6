"""A folder that is really watched: what the kernel says arrives as events, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from federation.clock import SystemClock
from federation.discovery import files
from federation.discovery.files import FileDiscovery, check_objects
from federation.discovery.sources import LocalEvent
from federation.model import Service
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE, joined, named

ALL = joined(SERVICE, SLICE, EXPORT)
DEADLINE = 20.0
"""Seconds; how long anything may take before it counts as not happening."""
NEVER = 3600.0
"""Seconds between two full looks, where only the kernel's word is to count."""
SOON = 0.1


class Running:
    def __init__(self, path: Path, *, rescan: float, remembered: frozenset[Service] = frozenset()) -> None:
        self.events: list[LocalEvent] = []
        self._more = asyncio.Event()
        self.discovery = FileDiscovery(path, self._emit, SystemClock(), remembered=remembered, rescan=rescan)

    def _emit(self, *events: LocalEvent) -> None:
        self.events += events
        self._more.set()

    @property
    def said(self) -> list[str]:
        return [str(event) for event in self.events]

    @property
    def problems(self) -> list[str]:
        return [str(problem) for problem in self.discovery.problems()]

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not what():
                await asyncio.sleep(0.005)

    async def hear(self, count: int) -> list[str]:
        """The next `count` events; the list starts anew."""
        await self.until(lambda: len(self.events) >= count)
        said = self.said
        self.events.clear()
        return said


@asynccontextmanager
async def running(
    path: Path, *, rescan: float = NEVER, remembered: frozenset[Service] = frozenset()
) -> AsyncIterator[Running]:
    before = set(threading.enumerate())
    run = Running(path, rescan=rescan, remembered=remembered)
    task = asyncio.create_task(run.discovery.run(), name="discovery")
    try:
        yield run
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert set(threading.enumerate()) <= before


async def listed(run: Running) -> None:
    async with asyncio.timeout(DEADLINE):
        await run.discovery.listed.wait()


async def test_create_change_replace_delete(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(named(ALL, "b"))
    async with running(tmp_path) as run:
        await listed(run)
        assert await run.hear(1) == ["local service default/b changed"]

        (tmp_path / "echo.yaml").write_text(ALL)
        assert await run.hear(1) == ["local service default/echo changed"]

        (tmp_path / "echo.yaml").write_text(ALL.replace("10.1.0.1", "10.1.0.2"))
        assert await run.hear(1) == ["local service default/echo changed"]

        (tmp_path / ".echo.tmp").write_text(ALL.replace("10.1.0.1", "10.1.0.3"))
        (tmp_path / ".echo.tmp").rename(tmp_path / "echo.yaml")
        assert await run.hear(1) == ["local service default/echo changed"]

        (tmp_path / "echo.yaml").rename(tmp_path / "other.yaml")
        (tmp_path / "b.yaml").unlink()
        assert await run.hear(1) == ["local service default/b is gone"]

        (tmp_path / "other.yaml").unlink()
        assert await run.hear(1) == ["local service default/echo is gone"]
        assert run.problems == []


async def test_a_new_subfolder_is_watched_too(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await listed(run)
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "echo.yaml").write_text(ALL)
        assert await run.hear(1) == ["local service default/echo changed"]
        (tmp_path / "new" / "echo.yaml").write_text(ALL.replace("8080", "9090"))
        assert await run.hear(1) == ["local service default/echo changed"]
        shutil.rmtree(tmp_path / "new")
        assert await run.hear(1) == ["local service default/echo is gone"]


async def test_broken_then_mended(tmp_path: Path) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(ALL)
    async with running(tmp_path) as run:
        await listed(run)
        await run.hear(1)
        file.write_text(ALL.replace("8080", "none"))
        await run.until(lambda: bool(run.problems))
        [problem] = run.problems
        assert problem.startswith(f"{file}:21: ports[0].port: got the string 'none'; allowed: a whole number")
        assert run.events == []
        file.write_text(ALL.replace("8080", "9090"))
        assert await run.hear(1) == ["local service default/echo changed"]
        assert run.problems == []


async def test_a_file_written_piece_by_piece_is_never_seen_as_less(tmp_path: Path) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text(ALL)
    async with running(tmp_path) as run:
        await listed(run)
        await run.hear(1)
        with file.open("w") as slow:
            await run.until(lambda: bool(run.problems))
            slow.write(ALL.replace("8080", "9090"))
        assert await run.hear(1) == ["local service default/echo changed"]
        assert run.problems == []


async def test_a_mounted_config_map_that_is_updated(tmp_path: Path) -> None:
    for version, address in (("..1", "10.1.0.1"), ("..2", "10.1.0.2")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "echo.yaml").write_text(ALL.replace("10.1.0.1", address))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "echo.yaml").symlink_to("..data/echo.yaml")
    async with running(tmp_path) as run:
        await listed(run)
        assert await run.hear(1) == ["local service default/echo changed"]
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        assert await run.hear(1) == ["local service default/echo changed"]


async def test_the_folder_vanishes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "services"
    path.mkdir()
    (path / "echo.yaml").write_text(ALL)
    async with running(path, rescan=SOON) as run:
        await listed(run)
        await run.hear(1)
        path.rename(tmp_path / "away")
        await run.until(lambda: bool(run.problems))
        assert "cannot be read" in run.problems[0]
        (tmp_path / "away" / "echo.yaml").write_text(ALL.replace("8080", "9090"))
        (tmp_path / "away").rename(path)
        assert await run.hear(1) == ["local service default/echo changed"]
        await run.until(lambda: not run.problems)
        (path / "b.yaml").write_text(named(ALL, "b"))
        assert await run.hear(1) == ["local service default/b changed"]


async def test_a_folder_that_is_not_there_at_first(tmp_path: Path) -> None:
    path = tmp_path / "services"
    async with running(path, rescan=SOON) as run:
        await run.until(lambda: bool(run.problems))
        assert not run.discovery.listed.is_set()
        path.mkdir()
        await listed(run)
        assert run.problems == []


async def test_what_an_earlier_process_knew_and_nobody_describes_is_gone(tmp_path: Path) -> None:
    (tmp_path / "echo.yaml").write_text(ALL)
    remembered = frozenset({Service("default", "echo"), Service("default", "old")})
    async with running(tmp_path, rescan=SOON, remembered=remembered) as run:
        assert await run.hear(2) == [
            "local service default/echo changed",
            "local service default/old is gone",
        ]


async def test_without_the_kernels_word_changes_are_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(files, "RustNotify", refuse)
    async with running(tmp_path, rescan=SOON) as run:
        await listed(run)
        (tmp_path / "echo.yaml").write_text(ALL)
        assert await run.hear(1) == ["local service default/echo changed"]


async def test_names_that_are_not_utf_8_stop_nothing(tmp_path: Path) -> None:
    """The watch cannot tell such a name, nor anything else from then on."""
    folder = os.fsencode(tmp_path)
    async with running(tmp_path, rescan=SOON) as run:
        await listed(run)
        (tmp_path / "echo.yaml").write_text(ALL)
        assert await run.hear(1) == ["local service default/echo changed"]

        Path(os.fsdecode(folder + b"/n\xff.txt")).touch()
        (tmp_path / "b.yaml").write_text(named(ALL, "b"))
        assert await run.hear(1) == ["local service default/b changed"]
        assert run.problems == []

        refused = Path(os.fsdecode(folder + b"/n\xff.yaml"))
        refused.write_text(named(ALL, "c"))
        await run.until(lambda: bool(run.problems))
        assert run.problems == [str(problem) for problem in check_objects(tmp_path)]
        [problem] = run.problems
        assert problem == (
            f"{tmp_path}/n\\udcff.yaml: has a name that is refused; allowed: printable characters in UTF-8"
        )
        refused.unlink()
        await run.until(lambda: not run.problems)
        (tmp_path / "d.yaml").write_text(named(ALL, "d"))
        assert await run.hear(1) == ["local service default/d changed"]


async def test_problems_name_addresses_outside_of_given_ranges(tmp_path: Path) -> None:
    (tmp_path / "echo.yaml").write_text(ALL)
    async with running(tmp_path) as run:
        await listed(run)
        echo = Service("default", "echo")
        assert run.discovery.outside(echo, [ip_network("10.1.0.0/16")]) == ()
        [problem] = run.discovery.outside(echo, [ip_network("10.2.0.0/16")])
        assert str(problem) == (
            f"{tmp_path}/echo.yaml:18: endpoints[0].addresses[0]: "
            "10.1.0.1 is outside the registered ranges: 10.2.0.0/16"
        )
