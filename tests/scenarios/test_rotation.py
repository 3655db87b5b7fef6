"""The authority of a cluster is replaced under 200 new connections a second: nobody is ever disbelieved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from federation.api.client import Refusal, Target, connect
from federation.demo.asking import ask, until
from federation.demo.clusters import Cluster
from federation.demo.load import Load, running
from federation.demo.world import World
from federation.errors import FederationError
from tests.scenarios.changes import reach, settled
from tests.scenarios.command import federation as command

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

PHASES = ("prepared", "published", "active", "retiring", "done")


@pytest.fixture(scope="module")
def running_federation(running_rotations: World) -> World:
    return running_rotations


async def rotate(cluster: Cluster, action: str, **more: Any) -> Any:
    async with connect(Target(f"unix://{cluster.socket}")) as client:
        return await client.call("POST", "/v1/ca/rotation", body={"action": action, **more})


async def rotation(cluster: Cluster) -> Any:
    return await ask(cluster.socket, "/v1/ca/rotation")


async def reached(world: World, cluster: Cluster, *phases: str) -> None:
    async def there() -> bool:
        return (await rotation(cluster))["phase"] in phases

    try:
        await until(f"the phase {phases[0]}", there, watch=(world.hub, cluster.agent))
    except FederationError as error:
        raise AssertionError(f"{error}: {await rotation(cluster)}") from error


async def free(world: World, cluster: Cluster) -> None:
    """Until nobody holds the phase up."""

    async def nobody() -> bool:
        return not (await rotation(cluster))["blocking"]

    await until("that nobody blocks", nobody, watch=(world.hub, cluster.agent))


@asynccontextmanager
async def nobody_fails(world: World) -> AsyncIterator[Load]:
    """Requests go from east to west and back all the time, new connections and one that stays; none fails."""
    there, back = await reach(world, "east", "remote"), await reach(world, "central", "remote")
    async with running(there) as load, running(back) as other:
        await asyncio.sleep(0.5)
        yield load
        await asyncio.sleep(1)
    assert (load.failed, other.failed) == (0, 0)
    assert set(load.clusters) == {"west"}


async def living_is_known(world: World, cluster: Cluster) -> None:
    """The hub draws and exports the authority that issues, with the root's word for it, and no other."""
    asked = ("--hub", f"unix://{world.hub_socket}", "ca")
    tree = (await command(*asked, "tree", "-o", "json")).json
    (row,) = (one for one in tree["clusters"] if one["name"] == cluster.name)
    (authority,) = row["authorities"]
    assert authority["epoch"] == (await rotation(cluster))["issuing"]
    assert [form["form"] for form in authority["forms"]] == ["self-signed", "root-signed"]
    out = world.folder / f"exported-{cluster.name}"
    exported = await command(*asked, "export", "pem", "--cluster", cluster.name, "--out", str(out), "--force")
    assert exported.code == 0, exported.said
    assert (out / "root-signed.pem").read_text() == authority["forms"][1]["pem"]


def keys(cluster: Cluster) -> set[str]:
    """The keys of authorities that its agent holds."""
    return {path.stem for path in cluster.folder.glob("**/ca-*.key")}


async def test_a_rotation_of_a_cluster_ca_costs_no_request_and_leaves_one_key(federation: World) -> None:
    west = federation.clusters["west"]
    before = await rotation(west)
    async with nobody_fails(federation):
        begun = await rotate(west, "start", why="a test")
        assert (begun["running"], begun["why"]) == (True, "a test")
        with pytest.raises(Refusal, match="running already"):
            await rotate(west, "start")
        await reached(federation, west, "done")
    after = await rotation(west)
    assert after["issuing"] == before["issuing"] + 1
    assert after["epochs"] == [after["issuing"]]
    assert keys(west) == {f"ca-{after['issuing']}"}
    await settled(federation)
    assert (await command("--hub", f"unix://{west.socket}", "check")).code == 0


async def test_a_rotation_is_watched_and_turned_back_from_the_hub_and_costs_no_request(
    federation: World,
) -> None:
    west = federation.clusters["west"]
    before = await rotation(west)
    hub = ("--hub", f"unix://{federation.hub_socket}", "ca", "rotate", "cluster")
    async with nobody_fails(federation):
        started = await command(*hub, "start", "west", "--manual", "--why", "only a trial")
        assert started.code == 0, started.said
        assert "only a trial" in started.out
        for phase in ("prepared", "published"):
            await free(federation, west)
            stepped = await command(*hub, "advance", "west", "--from", phase)
            assert stepped.code == 0, stepped.said
            again = await command(*hub, "advance", "west", "--from", phase)
            assert (again.code, "in the phase" in again.err) == (1, True), again.said
        assert (await rotation(west))["phase"] == "active"

        async def seen_everywhere() -> bool:
            looks = [
                await command("--hub", f"unix://{at}", "status")
                for at in (federation.hub_socket, west.socket)
            ]
            return all(
                "west.mesh.example: rotation" in look.out and "is active for" in look.out for look in looks
            )

        await until("that the state of hub and agent tells of it", seen_everywhere)
        await free(federation, west)
        aborted = await command(*hub, "abort", "west")
        assert aborted.code == 0, aborted.said
        await reached(federation, west, "aborted")
    after = await rotation(west)
    assert (after["phase"], after["issuing"]) == ("aborted", before["issuing"])
    assert keys(west) == {f"ca-{after['issuing']}"}
    await living_is_known(federation, west)
    watched = await command(*hub, "watch", "west")
    assert (watched.code, "aborted" in watched.out) == (1, True), watched.said
    unknown = await command(*hub, "status", "north")
    assert (unknown.code, "there is no cluster 'north'" in unknown.err) == (1, True), unknown.said


async def test_s4_the_agent_is_killed_in_each_phase_and_the_rotation_ends_all_the_same(
    federation: World,
) -> None:
    west = federation.clusters["west"]
    async with nobody_fails(federation):
        await rotate(west, "start")
        for phase in ("published", "active", "retiring"):
            await reached(federation, west, phase, "done")
            await west.agent.kill()
            await west.agent.start()
        await reached(federation, west, "done")
    after = await rotation(west)
    assert (after["phase"], after["running"]) == ("done", False)
    assert keys(west) == {f"ca-{after['issuing']}"}


async def test_a_cluster_that_is_away_holds_a_rotation_up_and_costs_nothing(federation: World) -> None:
    west, central = federation.clusters["west"], federation.clusters["central"]
    async with nobody_fails(federation):
        await central.agent.kill()
        hub = ("--hub", f"unix://{federation.hub_socket}", "ca", "rotate", "cluster")
        assert (await command(*hub, "start", "west")).code == 0
        await reached(federation, west, "published")

        async def only_central() -> bool:
            return [one["member"] for one in (await rotation(west))["blocking"]] == ["central"]

        await until("that only central is waited for", only_central)
        await asyncio.sleep(2)

        async def said_to_be_away() -> bool:
            shown = await command(*hub, "status", "west")
            assert shown.code == 1, shown.said
            assert "waits for central" in shown.out
            assert "it may wait until" in shown.out
            return "central: its agent is not connected, for " in shown.out

        await until("that its silence is noticed", said_to_be_away)
        early = await command(*hub, "advance", "west")
        assert early.code == 1, early.said
        assert "central: its agent is not connected" in early.said
        assert f"federation --hub unix://{federation.hub_socket} ca rotate quarantine central" in early.said
        away = await command(*hub, "status", "central")
        assert (away.code, "not connected to this hub" in away.err) == (3, True), away.said
        await central.agent.start()
        await reached(federation, west, "done")


async def test_who_slept_through_a_whole_rotation_believes_the_new_authority_when_it_wakes(
    federation: World,
) -> None:
    """Central is quarantined, so that nobody waits for it, and comes back afterwards."""
    west, central = federation.clusters["west"], federation.clusters["central"]
    hub = ("--hub", f"unix://{federation.hub_socket}")
    await central.agent.kill()
    assert (await command(*hub, "ca", "rotate", "quarantine", "central")).code == 0
    try:
        await rotate(west, "start")
        await reached(federation, west, "done")
    finally:
        assert (await command(*hub, "cluster", "set", "central", "--state", "active")).code == 0
    await central.agent.start()
    await until("the clusters' meeting", federation.connected, watch=federation.processes)
    await settled(federation)


async def test_all_leaves_of_a_cluster_are_renewed_at_once_when_asked(federation: World) -> None:
    west = federation.clusters["west"]

    before = [gateway_chain(gateway) for gateway in west.gateways]
    async with nobody_fails(federation):
        await rotate(west, "leaves")

        async def renewed() -> bool:
            return all(gateway_chain(g) != old for g, old in zip(west.gateways, before, strict=True))

        await until("new certificates", renewed)

        async def told() -> bool:
            looked = await command(
                "--hub", f"unix://{west.socket}", "ca", "rotate", "leaves", "status", "west"
            )
            return looked.code == 0 and f"{len(west.gateways)} of {len(west.gateways)} gateways" in looked.out

        await until("that it is told", told)
    assert not set(before) & {gateway_chain(gateway) for gateway in west.gateways}


def gateway_chain(gateway: Any) -> bytes:
    (chain,) = Path(gateway.socket).parent.glob("chain.pem")
    return chain.read_bytes()
