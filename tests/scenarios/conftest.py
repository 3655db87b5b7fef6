"""Two federations for all scenarios: each test finds them whole, and leaves them whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from federation.demo.world import World, world
from tests.scenarios.changes import REMOTE, add_service, mend


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_federation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("federation"), lambda _: None) as made:
        for cluster in ("west", "central"):
            add_service(made, cluster, REMOTE)
        await mend(made)
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_rotations(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A federation for those who rotate authorities. A rotation waits for every certificate of the authority that goes,
    so nobody is given one here who does not renew it: neither a workload nor an operator.
    """
    async with world(tmp_path_factory.mktemp("rotations"), lambda _: None) as made:
        for cluster in ("west", "central"):
            add_service(made, cluster, REMOTE)
        await mend(made)
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def federation(running_federation: World) -> AsyncIterator[World]:
    """The demo's world and the service `default/remote`, which west and central export."""
    yield running_federation
    await mend(running_federation)


LIFE = 30.0
IDLE = 4.0
DRAIN = 3.0
"""Seconds; see `hasty`."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    agent = {"certificate_lifetime": f"{LIFE:.0f}s", "tunnels": {"idle": f"{IDLE:.0f}s"}}
    gateway = {"envoy": {"drain": f"{DRAIN:.0f}s"}}
    hub = {"name_constraints": True}
    async with world(tmp_path_factory.mktemp("hasty"), lambda _: None, agent, gateway, hub) as made:
        for cluster in ("west", "central"):
            add_service(made, cluster, REMOTE)
        await mend(made)
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def hasty(running_hasty: World) -> AsyncIterator[World]:
    """The same, where certificates live `LIFE`, idle tunnels `IDLE` and gateways drain for `DRAIN`. The root writes
    name constraints into the authorities of the clusters.
    """
    yield running_hasty
    await mend(running_hasty)
