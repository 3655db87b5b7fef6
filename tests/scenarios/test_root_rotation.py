"""The root, and the hub's own authority, are replaced under traffic: nobody is ever disbelieved, whoever is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.api.client import Refusal, Target, connect
from federation.demo.asking import ask, until
from federation.demo.world import World
from tests.scenarios.changes import settled
from tests.scenarios.command import federation as command
from tests.scenarios.test_rotation import nobody_fails

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

PATHS = {"root": "/v1/root/rotation", "hub": "/v1/hub/rotation"}
BOTH = pytest.mark.parametrize("what", ["hub", "root"])


@pytest.fixture(scope="module")
def running_federation(running_rotations: World) -> World:
    return running_rotations


async def rotate(world: World, what: str, action: str, **more: Any) -> Any:
    async with connect(Target(f"unix://{world.hub_socket}")) as client:
        return await client.call("POST", PATHS[what], body={"action": action, **more})


async def rotation(world: World, what: str) -> Any:
    return await ask(world.hub_socket, PATHS[what])


async def reached(world: World, what: str, *phases: str) -> None:
    async def there() -> bool:
        return (await rotation(world, what))["phase"] in phases

    await until(f"the phase {phases[0]}", there, watch=(world.hub,))


def keys(world: World, what: str) -> set[str]:
    """The keys that the hub has on disk."""
    folder = world.folder / "hub" / {"root": "root-keys", "hub": "keys"}[what]
    return {path.stem for path in folder.glob("ca-*.key")}


@BOTH
async def test_a_rotation_costs_no_request_and_leaves_one_key(federation: World, what: str) -> None:
    before = await rotation(federation, what)
    async with nobody_fails(federation):
        begun = await rotate(federation, what, "start", why="a test")
        assert (begun["running"], begun["why"]) == (True, "a test")
        with pytest.raises(Refusal, match="running already"):
            await rotate(federation, what, "start")
        await reached(federation, what, "done")
    after = await rotation(federation, what)
    assert after["issuing"] == before["issuing"] + 1
    assert after["epochs"] == [after["issuing"]]
    assert keys(federation, what) == {f"ca-{after['issuing']}"}
    await settled(federation)
    for cluster in federation.clusters.values():
        checked = await command("--hub", f"unix://{cluster.socket}", "check")
        assert checked.code == 0, checked.said


@BOTH
async def test_a_rotation_is_watched_and_turned_back(federation: World, what: str) -> None:
    before = await rotation(federation, what)
    asked = ("--hub", f"unix://{federation.hub_socket}", "ca", "rotate", what)

    async def free() -> bool:
        return not (await rotation(federation, what))["blocking"]

    async def advance(phase: str) -> None:
        await until("that nobody blocks", free, watch=(federation.hub,))
        stepped = await command(*asked, "advance", "-o", "json")
        assert stepped.code == 0, stepped.said
        assert stepped.json["phase"] == phase

    async with nobody_fails(federation):
        started = await command(*asked, "start", "--manual", "--why", "only a trial")
        assert started.code == 0, started.said
        assert "only a trial" in started.out
        await advance("published")
        await advance("active")
        await until("that nobody blocks", free, watch=(federation.hub,))
        aborted = await command(*asked, "abort")
        assert aborted.code == 0, aborted.said
        await reached(federation, what, "aborted")
    after = await rotation(federation, what)
    assert after["issuing"] == before["issuing"]
    assert keys(federation, what) == {f"ca-{after['issuing']}"}
    watched = await command(*asked, "watch")
    assert (watched.code, "aborted" in watched.out) == (1, True), watched.said
    again = await command(*asked, "abort")
    assert (again.code, "no rotation is running" in again.err) == (1, True), again.said


@BOTH
async def test_s4_hub_and_agent_are_killed_in_each_phase_and_the_rotation_ends_all_the_same(
    federation: World, what: str
) -> None:
    west = federation.clusters["west"]
    async with nobody_fails(federation):
        await rotate(federation, what, "start")
        for phase in ("published", "active", "retiring"):
            await reached(federation, what, phase, "retiring", "done")
            await federation.hub.kill()
            await west.agent.kill()
            await federation.hub.start()
            await west.agent.start()
        await reached(federation, what, "done")
    assert len(keys(federation, what)) == 1


@BOTH
async def test_a_cluster_that_is_away_holds_a_rotation_up_and_costs_nothing(
    federation: World, what: str
) -> None:
    central = federation.clusters["central"]
    async with nobody_fails(federation):
        await central.agent.kill()
        await rotate(federation, what, "start")
        await reached(federation, what, "published")

        async def only_central() -> bool:
            return [one["member"] for one in (await rotation(federation, what))["blocking"]] == ["central"]

        await until("that only central is waited for", only_central)
        shown = await command("--hub", f"unix://{federation.hub_socket}", "ca", "rotate", what, "status")
        assert shown.code == 1, shown.said
        assert "waits for central" in shown.out
        await central.agent.start()
        await reached(federation, what, "done")


async def test_an_operator_who_has_no_access_any_more_is_not_waited_for(
    federation: World, tmp_path: Path
) -> None:
    hub = ("--hub", f"unix://{federation.hub_socket}")
    for name in ("ada", "bob"):
        wanted = ("operator", "create", name, "--role", "viewer", "--certificate", "--out", tmp_path / name)
        made = await command(*hub, *wanted)
        assert made.code == 0, made.said
    gone = await command(*hub, "operator", "remove", "ada")
    assert gone.code == 0, gone.said
    await rotate(federation, "hub", "start")

    async def only_bob() -> bool:
        blocking = (await rotation(federation, "hub"))["blocking"]
        return ["/operator/bob until" in who for one in blocking for who in one["who"]] == [True]

    await reached(federation, "hub", "active")
    await until("that only bob is waited for", only_bob, watch=(federation.hub,))
    shown = await command(*hub, "ca", "rotate", "hub", "status")
    assert (shown.code, "federation operator remove NAME" in shown.out) == (1, True), shown.said
    seen = await command(*hub, "status")
    assert "is active for" in seen.out, seen.said
    gone = await command(*hub, "operator", "remove", "bob")
    assert gone.code == 0, gone.said
    await reached(federation, "hub", "done")
