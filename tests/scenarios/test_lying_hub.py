"""A hub that lies about who holds which anchors, and gives orders without end, harms no rotation."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from federation.api.client import Refusal, Target, connect
from federation.demo.asking import ask, until
from federation.errors import FederationError
from pki.rotation import Lack
from tests.scenarios.lone_hub import LoneAgent, LoneHub, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

LYING = (sys.executable, "-m", "tests.scenarios.lying_hub")
ORDERED_A_DAY = 4
ORDERS = 20


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[LoneHub]:
    found = LoneHub(tmp_path)
    found.process.command = (*LYING, "serve", "--config", str(found.config))
    async with serving(found):
        yield found


class Agent(LoneAgent):
    async def rotation(self) -> Any:
        return await ask(self.socket, "/v1/ca/rotation")

    async def start_rotation(self) -> Any:
        async with connect(Target(f"unix://{self.socket}")) as client:
            return await client.call("POST", "/v1/ca/rotation", body={"action": "start", "why": "yearly"})


async def order(hub: LoneHub, cluster: str, **body: Any) -> Any:
    async with connect(Target(f"unix://{hub.socket}")) as client:
        return await client.call("POST", f"/v1/clusters/{cluster}/rotation", body=body)


async def test_no_lie_and_no_order_of_a_hub_makes_a_cluster_go_on_before_others_can_follow(
    hub: LoneHub,
) -> None:
    async with AsyncExitStack() as stack:
        agents = []
        for name in ("west", "central"):
            agents.append(Agent(name, hub.agent(name, await hub.token(name))))
            await stack.enter_async_context(started(agents[-1].process, agents[-1].connected))
        west, central = agents

        async def meet() -> bool:
            return await west.trusts() == {"central": True} and await central.trusts() == {"west": True}

        async def says() -> bool:
            clusters = (await ask(hub.socket, "/v1/tree"))["clusters"]
            held = {one["name"]: one["held"] for one in clusters}["central"]
            return any(one["trust_domain"] == "west.mesh.example" for one in held)

        await until("the agents believe each other", meet, watch=(hub.process,))
        await until("the word of central", says, watch=(hub.process,))
        await central.process.kill()
        await west.start_rotation()

        async def doubted() -> bool:
            holding = {one["member"]: one["reason"] for one in (await west.rotation())["blocking"]}
            return holding == {"central": Lack.PROOF.value}

        try:
            await until("the lie of the hub", doubted, watch=(hub.process, west.process))
        except FederationError as error:
            raise AssertionError(f"{error}: {await west.rotation()}") from error
        before = await west.rotation()
        assert (before["phase"], before["issuing"]) == ("published", 1)

        here = {"number": before["number"], "phase": before["phase"]}
        for action in ("abort", "advance"):
            with pytest.raises(Refusal, match="was begun in this cluster"):
                await order(hub, "west", action=action, **here)
        assert (await west.rotation())["phase"] == "published"

        await central.process.start()

        async def over() -> bool:
            return bool((await west.rotation())["phase"] == "done")

        await until("the end of the rotation", over, watch=(hub.process, west.process))

        answers = Counter[str]()
        while answers.total() < ORDERS:
            try:
                await order(hub, "west", action="leaves")
                answers["obeyed"] += 1
            except Refusal as refusal:
                if "cannot reach" in str(refusal):  # its agent, too, comes anew with a new certificate
                    await until("a stream of west", west.connected, watch=(hub.process, west.process))
                    continue
                answers["refused" if "within a day" in str(refusal) else str(refusal)] += 1
        assert answers == {"obeyed": ORDERED_A_DAY, "refused": ORDERS - ORDERED_A_DAY}
        with pytest.raises(Refusal, match="within a day"):
            await order(hub, "west", action="start", why="and again")
        assert (await west.rotation())["number"] == before["number"]
