"""README, followed to the letter: every block of commands is run, and every answer that it shows is given."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from federation.demo.asking import until
from federation.errors import FederationError
from tests.scenarios.command import clean
from tests.scenarios.test_demo import INTERRUPTED, demo

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

README = Path(__file__).parents[2] / "README.md"
PLACE = "/tmp/demo"
"""The folder that README uses; here it is another one."""

STAYS = f".venv/bin/federation demo up --directory {PLACE}"
TOUR = "make demo"


@dataclass(frozen=True, slots=True)
class Block:
    """Commands, and what README shows as their answer (empty: it shows none)."""

    commands: str
    answer: str = ""


def sections() -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)\n", README.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str) -> list[Block]:
    """Each block in `sh`, with the block in `text` that comes directly after it."""
    sh, answer = r"^```sh\n(.*?)^```\n", r"(?:\n```text\n(.*?)^```\n)?"
    return [Block(*found) for found in re.findall(sh + answer, text, re.MULTILINE | re.DOTALL)]


VARIES = re.compile(r"127(\.\d+){3}|\b\d+(?=[smhd]\b)|\b\d+/\d+\b")
"""What is different each time: addresses, ages, counts of resources."""


def fits(shown: str, answered: str) -> bool:
    """Whether an answer is the one that README shows; there, `…` stands for anything."""
    wanted, given = ("\n".join(map(_settled, text.splitlines())) for text in (shown, answered))
    return re.fullmatch(re.escape(wanted).replace("…", ".*"), given) is not None


def _settled(line: str) -> str:
    return VARIES.sub("#", " ".join(line.split()))


class Shell:
    """One bash, as a reader has it open: what a block sets is there for the next."""

    END = "the block has ended with"

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    async def run(self, commands: str) -> tuple[int, str]:
        """The exit code of the last of the commands, and what all of them said."""
        self._in.write(f"{commands}echo {self.END} $?\n".encode())
        said = ""
        while line := (await self._out.readline()).decode():
            if line.startswith(self.END):
                return int(line.removeprefix(self.END)), said
            said += line
        raise AssertionError(f"bash has ended: {said}")

    async def follow(self, block: Block) -> None:
        """Run a block as it is. One with an answer only asks: it asks again until the answer is the one shown."""
        if not block.answer:
            code, said = await self.run(block.commands)
            assert code == 0, (block.commands, said)
            return
        said = ""

        async def answered() -> bool:
            nonlocal said
            _, said = await self.run(block.commands)
            return fits(block.answer, said)

        try:
            await until("the answer that README shows", answered)
        except FederationError as error:
            raise AssertionError(f"{block.commands}shown:\n{block.answer}answered:\n{said}") from error


@asynccontextmanager
async def shell(folder: Path) -> AsyncIterator[Shell]:
    """A bash in `folder`, which has the `.venv` of these tests."""
    (folder / ".venv").symlink_to(sys.prefix)
    process = await asyncio.create_subprocess_exec(
        *("bash", "--norc", "-u"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
        env=clean(),
    )
    try:
        yield Shell(process)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("title", ["Five minutes", "The command line"])
async def test_the_blocks_of_a_section_do_what_it_says(
    title: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("d")
    place = home / "demo"
    every = {name: blocks(text.replace(PLACE, str(place))) for name, text in sections().items()}
    first, stays, finds_it, *tries = every["Five minutes"]
    assert first.commands == f"{TOUR}\n"
    assert stays.commands == f"{STAYS.replace(PLACE, str(place))}\n"
    async with demo(home, "up", "--directory", place) as made, shell(tmp_path) as bash:
        await made.says("Ctrl-C stops everything")
        await bash.follow(finds_it)
        for block in tries if title == "Five minutes" else every[title]:
            await bash.follow(block)
        made.signal(signal.SIGINT)
        assert await made.end() == INTERRUPTED
        assert await made.left() == ([], [])


async def test_the_tour_ends_as_readme_shows(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `make demo` runs once `.venv` is there."""
    shown = re.search(r"(\d+ of \d+ claims hold)", sections()["Five minutes"])
    assert shown is not None
    async with demo(tmp_path_factory.mktemp("d")) as made:
        assert await made.end(within=180) == 0, made.said
        assert shown[1] in made.said
        assert "✗" not in made.said
        assert await made.left() == ([], [])
