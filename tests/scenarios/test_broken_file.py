"""A mistake in a file is not a deletion, also when the agent starts on it and nobody but its disk knows better."""

from __future__ import annotations

import pytest

from federation.demo.asking import ask, until
from federation.demo.world import World
from tests.scenarios.changes import planned, reach, replace
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def test_a_service_whose_file_is_broken_when_its_agent_starts_is_served_on(federation: World) -> None:
    west = federation.clusters["west"]
    to = await reach(federation, "east", "remote")
    await planned(federation, "east", "remote", {"west", "central"})
    file = west.folder / "services" / "remote.yaml"
    good = file.read_text()
    replace(file, "kind: Servce\n")
    try:
        await west.agent.kill()
        await west.agent.start()

        async def told() -> bool:
            status = await ask(west.socket, "/v1/status")
            known = any("remote.yaml:1: kind" in problem for problem in status["problems"])
            return known and status["hub_connected"] and status["exports"] == 2

        await until("the agent's word on the broken file", told, watch=(west.agent,))
        await planned(federation, "east", "remote", {"west", "central"})
        await until("an answer of west", answered_by(to, "west"))
        file.unlink()
        await planned(federation, "east", "remote", {"central"})
    finally:
        replace(file, good)
    await planned(federation, "east", "remote", {"west", "central"})
