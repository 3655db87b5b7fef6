"""A ban is obeyed everywhere within seconds, costs nobody else a request, and can be taken back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from federation.demo.asking import ask, until
from federation.demo.clusters import BASE
from federation.demo.world import World
from tests.scenarios.changes import REMOTE, add_service, planned, reach, settled
from tests.scenarios.command import Finished
from tests.scenarios.command import federation as run
from tests.scenarios.traffic import answered_by, kept, struck

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

AT_ONCE = 5.0
"""Seconds in which every stream of somebody banned has to be cut."""


async def at_hub(world: World, *arguments: str) -> Finished:
    finished = await run("--hub", f"unix://{world.hub_socket}", *arguments)
    assert finished.code == 0, finished.said
    return finished


async def agent(world: World, cluster: str) -> Any:
    return await ask(world.clusters[cluster].socket, "/v1/status")


async def connected(world: World) -> set[str]:
    return {one["name"] for one in await ask(world.hub_socket, "/v1/clusters") if one["connected"]}


async def within(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    began = time.monotonic()
    await until(what, holds)
    assert time.monotonic() - began < AT_ONCE, f"{what} took {time.monotonic() - began:.1f} s"


@pytest_asyncio.fixture(loop_scope="session")
async def world(federation: World) -> AsyncIterator[World]:
    """Whatever a test bans is free again after it."""
    yield federation
    for one in await ask(federation.hub_socket, "/v1/ca/bans"):
        await at_hub(federation, "ca", "unban", one["subject"])
    await until("the return of the banned", federation.served, watch=federation.processes)
    await settled(federation)


async def test_a_banned_cluster_is_cut_off_under_load_and_comes_back_when_the_ban_is_taken_back(
    world: World,
) -> None:
    to = await reach(world, "east", REMOTE)
    pids = {name: (await agent(world, name))["pid"] for name in world.clusters}

    async def ban() -> None:
        await at_hub(world, "ca", "ban", "west", "--reason", "its nodes were broken into")

        async def cut() -> bool:
            return await connected(world) == {"east", "central"}

        await within("the end of its stream", cut)

    async def unseen() -> None:
        for name in ("east", "central"):
            await planned(world, name, REMOTE, {"central"})

    found = await struck(to, ban, "central", unseen)
    assert found.load.failed <= found.in_flight, str(found)
    assert found.last == {"central"}

    async def told() -> bool:
        return "banned: its nodes were broken into" in (await agent(world, "west"))["hub_problem"]

    await until("west's agent knowing why", told)
    for name in ("east", "central"):
        peers = {peer["name"]: peer["trusted"] for peer in (await agent(world, name))["peers"]}
        assert peers == {other: other != "west" for other in world.clusters if other != name}
    why = await ask(world.clusters["east"].socket, f"/v1/explain/default/{REMOTE}")
    assert "its nodes were broken into" in str(why)

    banned = "cluster west is banned: its nodes were broken into"
    for arguments in (("cluster", "show", "west"), ("ca", "tree")):
        assert banned in (await at_hub(world, *arguments)).out
    tree = (await at_hub(world, "ca", "tree", "-o", "json")).json
    holders = {one["name"]: one["own"] for one in tree["clusters"] if one["own"]} | {"hub": tree["hub"]}
    assert set(holders) == {"hub", "east", "central"}
    assert not [name for name, own in holders.items() if "west" in {one["name"] for one in own["trusts"]}]
    for socket in (world.hub_socket, world.clusters["east"].socket):
        checks = [one for group in await ask(socket, "/v1/checks") for one in group["checks"]]
        assert {one["result"] for one in checks if one["name"] == banned} == {"warning"}
        assert not [one["name"] for one in checks if one["result"] == "failure"]

    refused = await run(
        "--hub", f"unix://{world.hub_socket}", "token", "create", "west", "--may-export", "x/*", "--range",
        "127.0.0.0/8", "--replace-authority",
    )  # fmt: skip
    assert refused.code == 1, refused.said
    assert banned in refused.said

    await at_hub(world, "ca", "unban", "west")
    await until("west's return", world.served, watch=world.processes)
    await planned(world, "east", REMOTE, {"west", "central"})
    found = await struck(to, nothing, "west")
    assert found.load.failed == 0, str(found)
    assert {name: (await agent(world, name))["pid"] for name in world.clusters} == pids


async def nothing() -> None:
    """No fault."""


async def test_established_tunnels_from_and_to_a_banned_cluster_end_as_well(world: World) -> None:
    """A drain's length later, 1 s here; between the others they stay."""
    for cluster, service in (("central", "inward"), ("west", "outward")):
        add_service(world, cluster, service)
    ways = {
        ("west", "inward"): "central",
        ("east", "outward"): "west",
        ("east", "inward"): "central",
    }
    places = {way: await reach(world, *way) for way in ways}
    for way, who in ways.items():
        await until(f"the answer of {who}", answered_by(places[way], who))
    async with (
        kept(places["west", "inward"]) as inward,
        kept(places["east", "outward"]) as outward,
        kept(places["east", "inward"]) as other,
    ):
        await at_hub(world, "ca", "ban", "west", "--reason", "test")

        async def ended() -> bool:
            return not inward.lives and not outward.lives

        await within("the end of its tunnels", ended)
        assert await other.goes_on(), other.ended


async def test_the_banned_identity_of_gateways_is_refused_by_its_own_agent_and_by_its_peers(
    world: World,
) -> None:
    west = world.clusters["west"]
    identity = f"spiffe://west.{BASE}/gateway/eastwest"

    async def streams() -> set[bool]:
        return {gateway["connected"] for gateway in (await agent(world, "west"))["gateways"]}

    async def cut() -> bool:
        return await streams() == {False}

    assert await streams() == {True}
    await at_hub(world, "ca", "ban", identity, "--reason", "a node was stolen")
    await within("the end of the streams of west's gateways", cut)
    await planned(world, "east", REMOTE, {"central"})
    assert await connected(world) == set(world.clusters), "west's agent has another identity"

    created = await ask(west.socket, "/v1/tokens", method="POST", body={"gateway_class": "eastwest"})
    assert created["token"]
    log = west.gateways[0].process.log.read_text()
    assert "is banned: a node was stolen" in log

    known = await run("--hub", f"unix://{west.socket}", "ca", "bans", "-o", "json")
    assert [(one["kind"], one["subject"]) for one in known.json] == [("identity", identity)]
    await at_hub(world, "ca", "unban", identity)

    async def back() -> bool:
        return await streams() == {True}

    await until("the return of west's gateways", back)
    await planned(world, "east", REMOTE, {"west", "central"})


async def test_a_banned_key_loses_one_gateway_its_agent_and_costs_the_others_nothing(world: World) -> None:
    first, second = world.clusters["west"].gateways
    chain = first.socket.parent / "chain.pem"
    await at_hub(world, "ca", "ban", "--certificate", str(chain), "--reason", "its disk was copied")

    async def cut() -> bool:
        found = {one["name"]: one["connected"] for one in (await agent(world, "west"))["gateways"]}
        return found == {first.name: False, second.name: True}

    await within("the end of the streams of one gateway", cut)
    found = await struck(await reach(world, "east", REMOTE), nothing, "west")
    assert found.load.failed == 0, str(found)
    await at_hub(world, "ca", "unban", "--certificate", str(chain))


async def test_a_ban_outlives_a_restart_of_the_hub_and_of_an_agent(world: World) -> None:
    await at_hub(world, "ca", "ban", "west", "--reason", "test")
    await planned(world, "east", REMOTE, {"central"})
    await world.hub.kill()
    await world.clusters["east"].agent.kill()
    await world.clusters["east"].agent.start()

    async def answers() -> bool:
        return bool(await agent(world, "east"))

    await until("the start of east's agent", answers, watch=(world.clusters["east"].agent,))
    await planned(world, "east", REMOTE, {"central"})
    await world.hub.start()

    async def back() -> bool:
        return await connected(world) == {"east", "central"}

    await until("the return of those who are not banned", back, watch=(world.hub,))
    assert [one["subject"] for one in await ask(world.hub_socket, "/v1/ca/bans")] == ["west"]
