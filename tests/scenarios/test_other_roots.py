"""Who comes while the root or the hub's authority is replaced, who was away meanwhile, and a hub with other roots."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from federation.api.client import Target, connect
from federation.clock import SystemClock
from federation.demo.asking import ask, until
from pki.certificate import load_pem
from pki.keys.file import FileKeyStore
from pki.keys.passphrase import Passphrase, from_file
from pki.root_lineage import RootLineage
from tests.scenarios.command import federation
from tests.scenarios.lone_hub import BASE, LoneAgent, LoneHub, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

PATHS = {"root": "/v1/root/rotation", "hub": "/v1/hub/rotation"}
BOTH = pytest.mark.parametrize("what", ["hub", "root"])


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[LoneHub]:
    found = LoneHub(tmp_path)
    async with serving(found):
        yield found


class Agent(LoneAgent):
    """One cluster's agent, which joins `hub`."""

    def __init__(self, hub: LoneHub, name: str, token: str) -> None:
        super().__init__(name, hub.agent(name, token))

    async def authorities(self) -> Any:
        return await ask(self.socket, "/v1/authorities")


async def rotate(hub: LoneHub, what: str, action: str, **more: Any) -> Any:
    async with connect(Target(f"unix://{hub.socket}")) as client:
        return await client.call("POST", PATHS[what], body={"action": action, **more})


async def rotation(hub: LoneHub, what: str) -> Any:
    return await ask(hub.socket, PATHS[what])


async def free(hub: LoneHub, what: str) -> None:
    async def nobody() -> bool:
        return not (await rotation(hub, what))["blocking"]

    await until("that nobody blocks", nobody, watch=(hub.process,))


async def done(hub: LoneHub, what: str) -> None:
    async def over() -> bool:
        return bool((await rotation(hub, what))["phase"] == "done")

    await until("the end of the rotation", over, watch=(hub.process,))


@BOTH
async def test_a_newcomer_joins_in_each_phase_and_is_waited_for_like_all_others(
    hub: LoneHub, what: str
) -> None:
    async with AsyncExitStack() as stack:
        joined = []

        async def join(name: str) -> None:
            agent = Agent(hub, name, await hub.token(name))
            await stack.enter_async_context(started(agent.process, agent.connected))
            joined.append(agent)

        await join("first")
        await rotate(hub, what, "start", manual=True)
        for phase in ("published", "active", "retiring", "done"):
            await free(hub, what)
            seen = await rotation(hub, what)
            at = {"number": seen["number"], "phase": seen["phase"]}
            assert (await rotate(hub, what, "advance", **at))["phase"] == phase
            await join(phase)
            await free(hub, what)

        async def believe_each_other() -> bool:
            told = [await agent.authorities() for agent in joined]
            return all(len(one["trusts"]) == len(joined) for one in told) and all(
                len(one["roots"]) == 1 for one in told
            )

        await until("that all believe all", believe_each_other, watch=(hub.process,))
        roots = {str((await agent.authorities())["roots"]) for agent in joined}
        assert len(roots) == 1, "and the same root"


@BOTH
async def test_who_slept_through_all_of_it_finds_the_hub_again(hub: LoneHub, what: str) -> None:
    west = Agent(hub, "west", await hub.token("west"))
    async with started(west.process, west.connected):
        pass
    assert (await hub.ask("cluster", "set", "west", "--state", "quarantined")).code == 0
    for _ in range(2):
        await rotate(hub, what, "start")
        await done(hub, what)
    assert (await hub.ask("cluster", "set", "west", "--state", "active")).code == 0
    await west.process.start()
    try:
        await until("that it finds the hub", west.connected, watch=(west.process, hub.process))
    finally:
        await west.process.stop()


async def test_an_operator_who_was_away_follows_with_the_next_call(hub: LoneHub, tmp_path: Path) -> None:
    for kind in ("--certificate", ""):
        place = tmp_path / f"ada{kind}"
        wanted = ("operator", "create", f"ada{len(kind)}", "--role", "operator", "--out", str(place))
        made = await hub.ask(*wanted, *filter(None, (kind,)))
        assert made.code == 0, made.said
    contexts = {"FEDERATION_CONTEXTS": str(tmp_path / "ada" / "contexts.yaml")}
    theirs = {"FEDERATION_CONTEXTS": str(tmp_path / "ada--certificate" / "contexts.yaml")}
    pinned = load_pem((tmp_path / "ada" / "bundle.pem").read_bytes())
    await rotate(hub, "hub", "start")

    async def only_the_operator() -> bool:
        found = (await rotation(hub, "hub"))["blocking"]
        return [one["member"] for one in found] == ["hub"] and "/operator/ada13" in str(found)

    await until("that the operator's certificate is waited for", only_the_operator, watch=(hub.process,))
    for who in (contexts, theirs):
        seen = await federation("status", environment=who)
        assert seen.code in (0, 1), seen.said
        assert BASE in seen.out
    renewed = await federation("operator", "renew", environment=theirs)
    assert renewed.code == 0, renewed.said
    await done(hub, "hub")
    now = load_pem((tmp_path / "ada" / "bundle.pem").read_bytes())
    assert set(pinned) & set(now), "the versions in between"
    seen = await federation("status", environment=contexts)
    assert seen.code in (0, 1), seen.said


async def test_a_hub_with_other_roots_is_not_believed(hub: LoneHub) -> None:
    west = Agent(hub, "west", await hub.token("west"))
    async with started(west.process, west.connected):
        before = (await west.authorities())["roots"]
        await hub.process.stop()
        for folder in ("root", "root-keys"):
            shutil.move(hub.directory / folder, hub.folder / folder)
        secret: Passphrase = from_file(hub.folder / "passphrase")
        evil = await RootLineage.open(
            hub.directory / "root", FileKeyStore(hub.directory / "root-keys", secret), BASE, SystemClock()
        )
        await evil.close()
        await hub.process.start()

        async def refused() -> bool:
            return "which are not believed" in str((await ask(west.socket, "/v1/status"))["problems"])

        await until("the refusal", refused, watch=(west.process, hub.process))
        assert (await west.authorities())["roots"] == before
        checked = await federation("--hub", f"unix://{west.socket}", "check")
        assert (checked.code, "not believed" in checked.said) == (1, True), checked.said
        await hub.process.stop()
        for folder in ("root", "root-keys"):
            shutil.rmtree(hub.directory / folder)
            shutil.move(hub.folder / folder, hub.directory / folder)
        await hub.process.start()

        async def believed() -> bool:
            return await west.connected() and not (await ask(west.socket, "/v1/status"))["problems"]

        await until("the way back", believed, watch=(west.process, hub.process))
        assert (await west.authorities())["roots"] == before
