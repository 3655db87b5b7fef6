"""A federation whose root is in a safe: its members meet only after a ceremony, and no hub can make up one of its own."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from federation.demo.asking import ask, until
from federation.demo.processes import Process
from tests.scenarios.command import Finished, federation
from tests.scenarios.lone_hub import BASE, COMMAND, LoneHub, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


class Safe:
    """The machine of the root: a folder and a passphrase."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.passphrase = folder / "passphrase"
        self.passphrase.touch(0o600)
        self.passphrase.write_text("one that nobody guesses\n")
        self.fingerprint = ""

    async def open(self) -> None:
        made = await self._ca("init", "--offline", "--base", BASE, "--out", self.root, "-o", "json")
        self.fingerprint = made.json["fingerprint"]

    async def sign(self, requests: Path, fingerprint: str) -> Path:
        answers = requests.with_suffix(".answers")
        await self._ca(
            "sign", requests, "--root", self.root, "--out", answers, "--expect", fingerprint, "--yes"
        )
        return answers

    async def _ca(self, *arguments: str | Path) -> Finished:
        done = await federation("ca", *arguments, "--passphrase-file", self.passphrase)
        assert done.code == 0, done.said
        return done


class Offline(LoneHub):
    """A hub whose root is in `safe`."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder, address, root="offline")
        self.safe = Safe(folder)
        self.ceremonies = 0

    async def request(self) -> tuple[Path, Any]:
        """The file for the root, and what the hub says of it."""
        self.ceremonies += 1
        file = self.folder / f"{self.ceremonies}.requests"
        asked = await self.ask("ca", "request", "--out", str(file), "-o", "json")
        assert asked.code == 0, asked.said
        return file, asked.json

    async def ceremony(self) -> list[str]:
        """Ask, sign, install: the trust domains that the root vouches for now."""
        file, asked = await self.request()
        answers = await self.safe.sign(file, asked["fingerprint"])
        expected = ("--expect-root", self.safe.fingerprint)
        installed = await self.ask("ca", "install", str(answers), *expected, "-o", "json")
        assert installed.code == 0, installed.said
        kept: list[str] = installed.json["kept"]
        return kept

    async def runs(self) -> bool:
        return "waits" not in str(await ask(self.socket, "/readyz", expect=None))


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[Offline]:
    found = Offline(tmp_path, f"127.{random.randint(192, 250)}.{random.randint(0, 255)}.1")
    await found.safe.open()
    await found.start()
    try:
        yield found
    finally:
        await found.process.stop()
