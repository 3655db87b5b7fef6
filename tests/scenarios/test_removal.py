"""A cluster that was removed knows why it is alone, says how to come back, and comes back with a new token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from federation.demo.asking import until
from federation.sync.protocol import REMOVED
from tests.scenarios.command import federation
from tests.scenarios.lone_hub import LoneAgent, LoneHub, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[LoneHub]:
    found = LoneHub(tmp_path)
    async with serving(found):
        yield found


async def test_a_removed_cluster_comes_back_with_a_new_token_in_its_old_folder(hub: LoneHub) -> None:
    agent = LoneAgent("north", hub.agent("north", await hub.token("north")))

    async def told() -> bool:
        return REMOVED in (await agent.status())["hub_problem"]

    async def problem() -> str:
        return str((await agent.status())["hub_problem"])

    async with started(agent.process, agent.connected):
        removed = await hub.ask("cluster", "remove", "north", "--yes")
        assert removed.code == 0, removed.said
        assert "join_token" in removed.out
        await until("the reason", told, watch=(agent.process,))
        check = await federation("--hub", f"unix://{agent.socket}", "check")
        assert check.code == 1, check.said
        assert REMOVED in check.said
        assert "federation token create north" in check.said
        assert REMOVED in await problem(), "it has dialled in vain since"
    async with started(agent.process, agent.answers):
        assert not await agent.connected(), "the token is used up, and the agent starts without the hub"
    (agent.config.parent / "join.token").write_text(await hub.token("north"))
    async with started(agent.process, agent.connected):
        clusters = (await hub.ask("cluster", "list", "-o", "json")).json
        assert [(one["name"], one["connected"]) for one in clusters] == [("north", True)]
