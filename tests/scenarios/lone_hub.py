"""A hub alone, and agents without gateways: for what is decided without them, a whole federation is too much."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from federation.demo.asking import ask, until
from federation.demo.files import keys, write_passphrase
from federation.demo.processes import Process
from federation.document import dump
from tests.scenarios.command import Finished, federation

BASE = "mesh.example"
COMMAND = (sys.executable, "-m", "federation.cli.main")


class LoneHub:
    """A hub on `address` (a random one), and the settings of agents beside it (on the addresses after it)."""

    def __init__(self, folder: Path, address: str = "") -> None:
        self.folder = folder
        self.address = address or f"{network()}.1"
        self.config = folder / "hub.yaml"
        write_passphrase(folder)
        self.keys = keys(folder)
        self.config.write_text(dump(self.settings(folder / "hub")))
        self.process = self.running()

    @property
    def directory(self) -> Path:
        return self.folder / "hub"

    @property
    def socket(self) -> Path:
        return self.directory / "api.sock"

    def settings(self, directory: Path) -> dict[str, Any]:
        places = {"api": f"{self.address}:8443", "sync": f"{self.address}:8444"}
        telemetry = {"telemetry": f"{self.address}:9464"}
        return {
            "base": BASE,
            "directory": str(directory),
            "advertise": places,
            "listen": places | telemetry,
            "keys": self.keys,
        }

    def running(self, limit: str = "") -> Process:
        """The hub's process, not started; `limit` is a line of shell before it."""
        command: tuple[str, ...] = (*COMMAND, "serve", "--config", str(self.config))
        if limit:
            command = ("/bin/sh", "-c", f'{limit}; exec "$@"', "sh", *command)
        return Process("hub", command, self.folder / "hub.log")

    async def start(self) -> None:
        await self.process.start()
        await until("the hub's start", self._answers, watch=(self.process,))

    async def _answers(self) -> bool:
        await ask(self.socket, "/v1/status")
        return True

    async def token(self, cluster: str, ttl: str = "10m") -> str:
        """A fresh join token for `cluster`."""
        wanted = ("token", "create", cluster, "--may-export", "default/*", "--range", "127.0.0.0/8")
        made = await self.ask(*wanted, "--ttl", ttl, "-o", "json")
        assert made.code == 0, made.said
        token: str = made.json["token"]
        return token

    async def ask(self, *arguments: str) -> Finished:
        return await federation("--hub", f"unix://{self.socket}", *arguments)

    def agent(self, name: str, token: str) -> Path:
        """The settings file of an agent called `name`, which has `token`; in a folder of its own."""
        number = len(list(self.folder.glob("agent-*")))
        home = self.folder / f"agent-{number}"
        (home / "services").mkdir(parents=True)
        secret = home / "join.token"
        secret.touch(0o600)
        secret.write_text(token)
        host = f"{self.address.rpartition('.')[0]}.{2 + number}"
        places = {"api": f"{host}:8445", "xds": f"{host}:8446"}
        settings = {
            "cluster": name,
            "region": "eu",
            "directory": str(home / "state"),
            "services": str(home / "services"),
            "join_token": str(secret),
            "advertise": places,
            "listen": {**places, "telemetry": f"{host}:9465"},
            "keys": self.keys,
        }
        config = home / "agent.yaml"
        config.write_text(dump(settings))
        return config


class LoneAgent:
    """An agent with the settings file `config`, which a `LoneHub` has written."""

    def __init__(self, name: str, config: Path, command: Sequence[str] = COMMAND) -> None:
        self.name = name
        self.config = config
        self.folder = config.parent / "state"
        self.process = Process(name, (*command, "agent", "--config", str(config)), config.parent / "log")

    @property
    def socket(self) -> Path:
        return self.folder / "api.sock"

    async def status(self) -> Any:
        return await ask(self.socket, "/v1/status")

    async def answers(self) -> bool:
        return bool(await self.status())

    async def connected(self) -> bool:
        return bool((await self.status())["hub_connected"])

    async def trusts(self) -> dict[str, bool]:
        """Every other member that it knows, and whether it believes that one."""
        return {peer["name"]: peer["trusted"] for peer in (await self.status())["peers"]}


def network() -> str:
    """The first three numbers of addresses on loopback, chosen at random among those that are for tests."""
    return f"127.{random.randint(192, 250)}.{random.randint(0, 255)}"


@asynccontextmanager
async def serving(hub: LoneHub) -> AsyncIterator[None]:
    """`hub`, running for the life of the context."""
    await hub.start()
    try:
        yield
    finally:
        await hub.process.stop()


@asynccontextmanager
async def started(process: Process, ready: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """`process` for the life of the context, from when it is ready."""
    await process.start()
    try:
        await until(f"the start of {process.name}", ready, watch=(process,))
        yield
    finally:
        await process.stop()
