"""A cluster that was removed knows why it is alone, says how to come back, and comes back with a new token."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from federation.demo.asking import ask, until
from federation.demo.processes import Process
from federation.sync.protocol import REMOVED
from tests.scenarios.command import federation
from tests.scenarios.lone_hub import COMMAND, LoneHub, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[LoneHub]:
    found = LoneHub(tmp_path, f"127.{random.randint(192, 250)}.{random.randint(0, 255)}.1")
    await found.start()
    try:
        yield found
    finally:
        await found.process.stop()


async def test_a_removed_cluster_comes_back_with_a_new_token_in_its_old_folder(hub: LoneHub) -> None:
    config = hub.agent("north", await hub.token("north"))
    socket = config.parent / "state" / "api.sock"
    agent = Process("north", (*COMMAND, "agent", "--config", str(config)), config.parent / "log")

    async def status() -> Any:
        return await ask(socket, "/v1/status")

    async def connected() -> bool:
        return bool((await status())["hub_connected"])

    async def answers() -> bool:
        return bool(await status())

    async def told() -> bool:
        return REMOVED in (await status())["hub_problem"]

    async def problem() -> str:
        return str((await status())["hub_problem"])

    async with started(agent, connected):
        removed = await hub.ask("cluster", "remove", "north", "--yes")
        assert removed.code == 0, removed.said
        assert "join_token" in removed.out
        await until("the reason", told, watch=(agent,))
        check = await federation("--hub", f"unix://{socket}", "check")
        assert check.code == 1, check.said
        assert REMOVED in check.said
        assert "federation token create north" in check.said
        assert REMOVED in await problem(), "it has dialled in vain since"
    async with started(agent, answers):
        assert not await connected(), "the token is used up, and the agent starts without the hub"
    (config.parent / "join.token").write_text(await hub.token("north"))
    async with started(agent, connected):
        clusters = (await hub.ask("cluster", "list", "-o", "json")).json
        assert [(one["name"], one["connected"]) for one in clusters] == [("north", True)]
