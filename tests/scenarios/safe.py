"""The machine of an offline root, and the way of the files between it and a hub: the commands as people run them."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from tests.scenarios.command import Finished, federation
from tests.scenarios.lone_hub import BASE


class Safe:
    """A folder with a passphrase and, once it was opened, a root."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.root = folder / "root"
        self.roots = [self.root]
        self.passphrase = folder / "passphrase"
        self.passphrase.touch(0o600)
        self.passphrase.write_text("one that nobody guesses\n")
        self.fingerprint = ""
        self._numbers = count(1)

    async def open(self) -> None:
        """Make the root."""
        made = await self._ca("init", "--offline", "--base", BASE, "--out", self.root, "-o", "json")
        self.fingerprint = made.json["fingerprint"]

    async def follow(self, socket: Path) -> None:
        """Make the root that is to follow, and take to the hub what the one before hands over. The next ceremonies are
        its own.
        """
        number = len(self.roots) + 1
        new, file = self.folder / f"root-{number}", self.folder / f"{number}.next-root"
        given = ("--base", BASE, "--out", new, "--follows", self.root, "--hand-over", file, "-o", "json")
        made = await self._ca("init", "--offline", *given)
        assert made.json["follows"] == self.fingerprint
        self.fingerprint = made.json["fingerprint"]
        installed = await federation(
            "--hub", f"unix://{socket}", "ca", "install", file, "--expect-root", self.fingerprint
        )
        assert installed.code == 0, installed.said
        assert "rotate root start" in installed.out
        self.root = new
        self.roots.append(new)

    async def request(self, socket: Path) -> tuple[Path, Any]:
        """The file that a hub or an agent has for the root, and what is said of it."""
        file = self.folder / f"{next(self._numbers)}.requests"
        asked = await federation("--hub", f"unix://{socket}", "ca", "request", "--out", file, "-o", "json")
        assert asked.code == 0, asked.said
        return file, asked.json

    async def sign(self, requests: Path, fingerprint: str) -> Path:
        answers = requests.with_suffix(".answers")
        expected = ("--expect", fingerprint, "--yes")
        await self._ca("sign", requests, "--root", self.root, "--out", answers, *expected)
        return answers

    async def install(self, socket: Path, answers: Path) -> list[str]:
        """The trust domains that the root vouches for now."""
        expected = ("--expect-root", self.fingerprint, "-o", "json")
        done = await federation("--hub", f"unix://{socket}", "ca", "install", answers, *expected)
        assert done.code == 0, done.said
        return sorted(done.json["kept"])

    async def ceremony(self, socket: Path) -> list[str]:
        """Ask, sign, install."""
        file, asked = await self.request(socket)
        return await self.install(socket, await self.sign(file, asked["fingerprint"]))

    async def _ca(self, *arguments: str | Path) -> Finished:
        done = await federation("ca", *arguments, "--passphrase-file", self.passphrase)
        assert done.code == 0, done.said
        return done
