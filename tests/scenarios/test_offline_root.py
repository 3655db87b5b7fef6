"""A federation whose root is in a safe: its members meet only after a ceremony, and no hub can make one up."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from federation.demo.asking import ask, until
from federation.demo.clusters import Cluster
from federation.demo.load import running
from federation.demo.processes import Process
from federation.demo.world import World
from federation.errors import FederationError
from tests.scenarios.changes import REMOTE, add_service, reach
from tests.scenarios.command import Finished, federation
from tests.scenarios.lone_hub import COMMAND, LoneAgent, LoneHub, serving, started
from tests.scenarios.safe import Safe
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = (sys.executable, "-m", "tests.scenarios.hostile")


class Offline(LoneHub):
    """A hub whose root is in `safe`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.safe = Safe(folder / "safe")

    def settings(self, directory: Path) -> dict[str, Any]:
        return super().settings(directory) | {"root": "offline"}

    async def ceremony(self) -> list[str]:
        """The trust domains that the root vouches for now."""
        return await self.safe.ceremony(self.socket)

    async def runs(self) -> bool:
        """Whether it has its root, and does all that a hub does."""
        return isinstance(await ask(self.socket, "/v1/clusters"), list)

    async def begin(self) -> None:
        """The first ceremony, for the hub itself."""
        assert await self.ceremony() == ["hub.mesh.example"]
        await until("the hub's start", self.runs, watch=(self.process,))

    async def member(self, name: str, command: Sequence[str] = COMMAND) -> Agent:
        return Agent(name, self.agent(name, await self.token(name)), command)


class Agent(LoneAgent):
    @property
    def log(self) -> str:
        return self.process.log.read_text()


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[Offline]:
    found = Offline(tmp_path)
    await found.safe.open()
    async with serving(found):
        yield found


def keys_in_sight(process: Process, safe: Path) -> list[str]:
    """What a process has open or mapped that lies in the safe."""
    place = Path(f"/proc/{process.pid}")
    opened = [os.readlink(each) for each in (place / "fd").iterdir()]
    mapped = [line.split(maxsplit=5)[-1] for line in (place / "maps").read_text().splitlines()]
    return [path for path in (*opened, *mapped) if path.startswith(str(safe))]


async def test_members_meet_after_the_ceremony_and_k2_no_process_ever_has_the_root_key(hub: Offline) -> None:
    waits = await hub.ask("status")
    assert waits.code == 1
    assert "has to sign this hub's authority" in waits.said
    assert "ca request" in waits.said
    assert (await hub.ask("token", "create", "east")).code == 1, "nobody could recognise this hub"
    await hub.begin()
    async with AsyncExitStack() as stack:
        agents = [await hub.member(name) for name in ("east", "west")]
        for agent in agents:
            await stack.enter_async_context(started(agent.process, agent.connected))
        east, west = agents

        async def known() -> bool:
            return await east.trusts() == {"west": False} and await west.trusts() == {"east": False}

        await until("the agents hear of each other", known, watch=(hub.process,))
        told = await hub.ask("status")
        assert told.code == 1
        assert "east waits for the root to sign" in told.said
        check = await hub.ask("check")
        assert "west waits for the root" in check.said
        own = await federation("--hub", f"unix://{east.socket}", "status")
        assert "has not signed our authority" in own.said
        assert await hub.ceremony() == ["east.mesh.example", "west.mesh.example"]

        async def meet() -> bool:
            return await east.trusts() == {"west": True} and await west.trusts() == {"east": True}

        await until("the agents believe each other", meet, watch=(hub.process,))

        async def believed_by_the_root() -> bool:
            verified = await hub.ask("ca", "verify", "--from", "east", "--to", "west", "--trust", "root")
            return verified.code == 0

        await until("whoever trusts the root believes east", believed_by_the_root, watch=(hub.process,))
        assert (
            await hub.ask("ca", "request", "--out", str(hub.folder / "none"))
        ).out == "nobody waits for the root\n"
        for process in (hub.process, east.process, west.process):
            assert keys_in_sight(process, hub.folder / "safe") == []
        assert sorted(path.name for path in hub.directory.rglob("*.key")) == ["ca-1.key"]
        assert not (hub.directory / "root-keys").exists()
        late = await hub.member("late")
        await stack.enter_async_context(started(late.process, late.connected))
        assert await hub.safe.ceremony(late.socket) == ["late.mesh.example"], "at its own agent"

        async def believed() -> bool:
            return (await east.trusts()).get("late", False) and (await late.trusts())["west"]

        await until("the others believe who did it at its own agent", believed, watch=(hub.process,))
    await hub.process.stop()
    await hub.process.start()
    await until("the hub's second start", hub.runs, watch=(hub.process,))


async def test_a_hub_with_the_root_offline_cannot_introduce_a_cluster_of_its_own_making(hub: Offline) -> None:
    await hub.begin()
    east = await hub.member("east")
    west = await hub.member("west")
    mole = await hub.member("mole", HOSTILE)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(started(east.process, east.connected))
        await stack.enter_async_context(started(west.process, west.connected))
        assert await hub.ceremony() == ["east.mesh.example", "west.mesh.example"]

        async def meet() -> bool:
            return await east.trusts() == {"west": True} and await west.trusts() == {"east": True}

        await until("the agents believe each other", meet, watch=(hub.process,))
        await hub.process.stop()
        hub.process.command = (*HOSTILE, "serve", "--config", str(hub.config))
        await hub.process.start()
        await until("the changed hub's start", hub.runs, watch=(hub.process,))
        await stack.enter_async_context(started(mole.process, mole.connected))

        async def refused() -> bool:
            said = (agent.log for agent in (east, west))
            return all(
                "refused what the hub relays" in log and "not vouched for by the root" in log for log in said
            )

        await until("the forged bundle reaches its victims", refused, watch=(hub.process, mole.process))
        for agent, friend in ((east, "west"), (west, "east")):
            assert await agent.trusts() == {friend: True, "mole": False}


async def test_a_file_that_was_exchanged_is_not_installed(hub: Offline, tmp_path: Path) -> None:
    """By another root, for another key, or the answer to somebody else's request: nothing of it is kept."""
    file, asked = await hub.safe.request(hub.socket)
    other = Safe(tmp_path / "other")
    await other.open()
    answers = await other.sign(file, asked["fingerprint"])
    guarded = ("--expect-root", hub.safe.fingerprint)
    refused = await hub.ask("ca", "install", str(answers), *guarded)
    assert refused.code == 1
    assert "--expect-root names another one" in refused.err
    unasked = await hub.ask("ca", "install", str(answers))
    assert unasked.code == 1, "nobody was there to say that it is the right root"
    assert not (hub.directory / "root").exists()
    root = hub.safe.root / "root" / "self-signed.pem"
    imported = await hub.ask("ca", "import-root", str(root), "--expect", hub.safe.fingerprint)
    assert imported.code == 0, imported.said
    pinned = await hub.ask("ca", "install", str(answers))
    assert pinned.code == 1
    assert "pinned here is" in pinned.err
    await hub.begin()
    assert (await hub.ask("ca", "install", str(answers))).code == 1
    answers.unlink()
    again = await hub.ask("ca", "install", str(await hub.safe.sign(file, asked["fingerprint"])))
    assert again.code == 0, "the same key, signed once more"


class Roots:
    """The rotation of the root at a hub."""

    def __init__(self, hub: Process, socket: Path) -> None:
        self.hub = hub
        self.socket = socket

    async def ca(self, *arguments: str) -> Finished:
        return await federation("--hub", f"unix://{self.socket}", "ca", *arguments)

    async def status(self) -> Any:
        return await ask(self.socket, "/v1/root/rotation")

    async def reached(self, *phases: str) -> None:
        async def there() -> bool:
            return (await self.status())["phase"] in phases

        try:
            await until(f"the phase {phases[0]}", there, watch=(self.hub,))
        except FederationError as error:
            raise AssertionError(f"{error}: {await self.status()}") from error

    async def blocked_by(self, *members: str) -> None:
        """Until exactly these hold the phase up."""

        async def they() -> bool:
            return tuple(one["member"] for one in (await self.status())["blocking"]) == members

        try:
            await until(f"that {members} are waited for", they, watch=(self.hub,))
        except FederationError as error:
            raise AssertionError(f"{error}: {await self.status()}") from error


async def asked_by(hub: Path, *domains: str) -> None:
    """Until the requests of all these are at the hub: those of clusters come to it a moment after its own."""

    async def they() -> bool:
        found = await ask(hub, "/v1/ca/requests")
        return {each["trust_domain"] for each in found["requests"]} == set(domains)

    await until(f"the requests of {domains}", they)


async def test_a_root_in_a_safe_is_replaced_by_another_one_there_and_back(hub: Offline) -> None:
    await hub.begin()
    roots, first = Roots(hub.process, hub.socket), hub.safe.fingerprint
    none = await roots.ca("rotate", "root", "start")
    assert none.code == 1, none.said
    assert "the one that is to follow is not here" in none.err
    assert "--follows" in none.err
    async with AsyncExitStack() as stack:
        east, west = [await hub.member(name) for name in ("east", "west")]
        for agent in (east, west):
            await stack.enter_async_context(started(agent.process, agent.connected))
        assert await hub.ceremony() == ["east.mesh.example", "west.mesh.example"]

        async def meet() -> bool:
            return await east.trusts() == {"west": True} and await west.trusts() == {"east": True}

        await until("the agents believe each other", meet, watch=(hub.process,))

        # Turned back: nobody has to go to the safe once more for that.
        await hub.safe.follow(hub.socket)
        assert (await roots.ca("rotate", "root", "start", "--why", "a trial")).code == 0
        await roots.reached("active")
        await roots.blocked_by("east", "hub", "west")
        assert (await roots.ca("rotate", "root", "abort")).code == 0
        await hub.process.kill()
        await hub.process.start()
        await until("the hub's start after a crash", hub.runs, watch=(hub.process,))
        await roots.reached("aborted")
        await asked_by(hub.socket)
        given_up = hub.safe.roots.pop()
        hub.safe.root, hub.safe.fingerprint = hub.safe.roots[-1], first
        stale = await roots.ca("rotate", "root", "start")
        assert "cannot follow" in stale.err

        # And there.
        given_up.rename(given_up.with_name("given-up"))
        (hub.safe.folder / "2.next-root").unlink()
        await hub.safe.follow(hub.socket)
        assert (await roots.ca("rotate", "root", "start", "--why", "its ten years are over")).code == 0
        await roots.reached("active")
        await roots.blocked_by("east", "hub", "west")
        told = await roots.ca("rotate", "root", "status")
        assert told.code == 1
        assert "ca request" in told.said
        await hub.process.kill()
        await hub.process.start()
        await until("the hub's second start", hub.runs, watch=(hub.process,))
        await roots.blocked_by("east", "hub", "west")
        assert await hub.safe.ceremony(west.socket) == ["west.mesh.example"], "at its own agent"
        await roots.blocked_by("east", "hub")
        assert await hub.ceremony() == ["east.mesh.example", "hub.mesh.example"]
        await roots.reached("done")
        assert await meet()
        over = await roots.ca("rotate", "root", "status")
        assert (over.code, "no other one begins by itself" in over.out) == (0, True), over.said
        (root,) = (await ask(hub.socket, "/v1/authorities"))["roots"]
        assert root["forms"][0]["sha256"] == hub.safe.fingerprint != first
        late = await hub.member("late")
        await stack.enter_async_context(started(late.process, late.connected))
        file, asked = await hub.safe.request(hub.socket)
        refused = await federation(
            *("ca", "sign", file, "--root", hub.safe.roots[0], "--out", hub.folder / "by-the-old-one"),
            *("--expect", asked["fingerprint"], "--yes", "--passphrase-file", hub.safe.passphrase),
        )
        assert (refused.code, "take the other root" in refused.err) == (2, True), refused.said
        answers = await hub.safe.sign(file, asked["fingerprint"])
        assert await hub.safe.install(hub.socket, answers) == ["late.mesh.example"]

        async def believed() -> bool:
            return (await east.trusts()).get("late", False) and (await late.trusts()).get("west", False)

        await until("the others believe who came afterwards", believed, watch=(hub.process,))


class OfflineWorld(World):
    """The demo's world with its root in a safe: one ceremony for the hub, one for all clusters."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, hub={"root": "offline"})
        self.safe = Safe(folder / "safe")
        self.meetings: list[list[str]] = []
        self._one_at_a_time = asyncio.Lock()

    async def start_cluster(self, cluster: Cluster, progress: Callable[[str], None]) -> None:
        async with self._one_at_a_time:
            if not self.meetings:
                self.meetings.append(await self.safe.ceremony(self.hub_socket))
                await until("the hub's start", self._hub_runs, watch=(self.hub,))
        await super().start_cluster(cluster, progress)

    async def connected(self) -> bool:
        """All clusters have joined and their gateways run: whoever waits is signed now."""
        if len(self.meetings) == 1:
            for cluster in self.clusters.values():
                peers = (await ask(cluster.socket, "/v1/status"))["peers"]
                assert [peer["trusted"] for peer in peers] == [False] * len(peers)
            self.meetings.append(await self.safe.ceremony(self.hub_socket))
        return await super().connected()

    async def _hub_runs(self) -> bool:
        return isinstance(await ask(self.hub_socket, "/v1/clusters"), list)


async def test_after_the_ceremony_requests_go_from_cluster_to_cluster_also_while_the_root_is_replaced(
    tmp_path: Path,
) -> None:
    world = OfflineWorld(tmp_path)
    await world.safe.open()
    try:
        await world.start(lambda _: None)
        names = [f"{name}.mesh.example" for name in sorted(world.clusters)]
        assert world.meetings == [["hub.mesh.example"], names]
        add_service(world, "west", REMOTE)
        to = await reach(world, "east", REMOTE)
        await until("an answer from west", answered_by(to, "west"))
        roots = Roots(world.hub, world.hub_socket)
        async with running(to) as load:
            await world.safe.follow(world.hub_socket)
            assert (await roots.ca("rotate", "root", "start", "--why", "a test")).code == 0
            await roots.reached("active")
            await roots.blocked_by("central", "east", "hub", "west")
            await asked_by(world.hub_socket, *names, "hub.mesh.example")
            assert await world.safe.ceremony(world.hub_socket) == sorted([*names, "hub.mesh.example"])
            await roots.reached("done")
            await asyncio.sleep(1)
        assert load.failed == 0
        assert set(load.clusters) == {"west"}
    finally:
        await world.stop()
