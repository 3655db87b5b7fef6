"""An endpoint that is the gateway itself gets no request: each would come back as a new one, without end."""

from __future__ import annotations

import pytest

from federation.demo.asking import ask, until
from federation.demo.world import World
from tests.scenarios.changes import add_service, reach, remove_service

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def test_a_gateway_is_no_endpoint(federation: World) -> None:
    east = federation.clusters["east"]
    to = await reach(federation, "east", "remote")
    add_service(federation, "east", "loop", [to.host], port=to.port)
    try:

        async def told() -> bool:
            problems = (await ask(east.socket, "/v1/status"))["problems"]
            return any("default/loop" in one and "our own gateway" in one for one in problems)

        await until("the problem", told, watch=(east.agent,))
        [exporter] = (await ask(east.socket, "/v1/services/default/loop"))["exporters"]
        assert (exporter["cluster"], exporter["total"]) == ("east", 0)
    finally:
        remove_service(federation, "east", "loop")

    async def gone() -> bool:
        return not (await ask(east.socket, "/v1/status"))["problems"]

    await until("the end of the problem", gone, watch=(east.agent,))
