"""An agent whose folder is lost: put back from a copy it goes on as it was; without one it comes back with a new key
if an operator says so, and whoever holds the old one is shut out, also where the hub is put back from before that."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509

from federation.demo.asking import ask, until
from federation.demo.processes import Process
from pki import journal
from pki.algorithms import spki_hash
from pki.profiles import epoch_of
from pki.token import JoinToken
from tests.scenarios.command import federation
from tests.scenarios.lone_hub import LoneAgent, LoneHub, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[LoneHub]:
    found = LoneHub(tmp_path)
    async with serving(found):
        yield found


class Agent(LoneAgent):
    async def believes(self, other: Agent) -> bool:
        """Whether it goes by the anchor that the folder of `other` holds."""
        trusted = (await self.trusts()).get(other.name, False)
        return trusted and other.anchor in await self.anchors(other.name)

    async def anchors(self, name: str) -> list[x509.Certificate]:
        """The anchors by which it verifies the cluster `name`."""
        held = await ask(self.socket, "/v1/authorities")
        return [
            anchor
            for each in held["trusts"]
            if each["name"] == name
            for anchor in x509.load_pem_x509_certificates(each["pem"].encode())
        ]

    @property
    def anchor(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / "authority" / "self-signed.pem").read_bytes())

    def lines(self) -> int:
        """How many lines the journal has, all of which follow from each other."""
        key = spki_hash(self.anchor.public_key())
        return journal.verify(self.folder / "authority" / "journal", key).lines


async def members(hub: LoneHub, stack: AsyncExitStack) -> tuple[Agent, Agent]:
    """Two that run and believe each other."""
    east, west = [Agent(name, hub.agent(name, await hub.token(name))) for name in ("east", "west")]
    for agent in (east, west):
        await stack.enter_async_context(started(agent.process, agent.connected))

    async def meet() -> bool:
        return await east.believes(west) and await west.believes(east)

    await until("the agents believe each other", meet, watch=(hub.process, east.process, west.process))
    return east, west


async def test_a_folder_that_is_put_back_elsewhere_goes_on_where_it_was(hub: LoneHub, tmp_path: Path) -> None:
    """Same key, same anchor, the journal continued, an epoch beyond: nobody has to do anything."""
    async with AsyncExitStack() as stack:
        east, west = await members(hub, stack)
        anchor, lines = east.anchor, east.lines()
        await east.process.stop()
        copy = tmp_path / "east.tar.gz"
        with tarfile.open(copy, "w:gz") as archive:
            archive.add(east.folder, "state")
        east.folder.rename(tmp_path / "lost")
        restored = tmp_path / "elsewhere"
        restored.mkdir(mode=0o700)
        with tarfile.open(copy) as archive:
            archive.extractall(restored, filter="fully_trusted")
        east.config.write_text(east.config.read_text().replace(str(east.folder), str(restored / "state")))
        east.folder = restored / "state"
        (east.config.parent / "join.token").unlink()
        (east.folder / "leaf.pem").unlink()
        await stack.enter_async_context(started(east.process, east.connected))

        async def as_before() -> bool:
            return await east.believes(west) and await west.believes(east)

        await until("the agents believe each other again", as_before, watch=(hub.process, east.process))
        assert east.anchor == anchor
        assert east.lines() > lines
        assert [key.name for key in (east.folder / "keys").glob("*.key")] == ["ca-1.key"]


async def test_a_cluster_that_lost_its_key_comes_back_with_another_one_only_when_an_operator_says_so(
    hub: LoneHub, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        east, west = await members(hub, stack)
        before = east.anchor
        await east.process.stop()
        old = east.folder.rename(tmp_path / "old")
        refused = await hub.ask(
            "token", "create", "east", "--may-export", "default/*", "--range", "127.0.0.0/8"
        )
        assert refused.code == 1
        assert "east is a member already" in refused.err
        assert "--replace-authority" in refused.err
        again = await federation(*east.process.command[3:])
        assert again.code == 1, "its token is used up, by the key that is lost"
        assert "the token is not valid" in again.err
        made = await hub.ask("token", "create", "east", "--replace-authority", "-o", "json")
        assert made.code == 0, made.said
        east.folder.rename(tmp_path / "made in vain")
        (east.config.parent / "join.token").write_text(made.json["token"])
        await stack.enter_async_context(started(east.process, east.connected))
        assert epoch_of(east.anchor.subject) == 2

        async def follow() -> bool:
            return await west.believes(east) and await east.believes(west)

        await until(
            "the others go by the new anchor", follow, watch=(hub.process, east.process, west.process)
        )
        assert await west.anchors("east") == [east.anchor] != [before]
        [info] = [
            one for one in (await hub.ask("cluster", "list", "-o", "json")).json if one["name"] == "east"
        ]
        assert (info["may_export"], info["ranges"]) == (["default/*"], ["127.0.0.0/8"])
        await east.process.stop()
        lost = east.folder.rename(tmp_path / "new")
        old.rename(east.folder)
        (east.config.parent / "join.token").unlink()
        thief = Process("thief", east.process.command, east.config.parent / "thief.log")

        async def shut_out() -> bool:
            status = await east.status()
            return not status["hub_connected"] and bool(status["hub_problem"])

        async with started(thief, shut_out):
            assert await west.anchors("east") != [before], "whoever has the lost key is nobody any more"
        assert lost.exists()


async def test_a_hub_from_before_a_replacement_follows_it(hub: LoneHub, tmp_path: Path) -> None:
    """Its registry says that east joined earlier, with a key that is lost: others keep what they heard since."""
    async with AsyncExitStack() as stack:
        east, west = await members(hub, stack)
        before = east.anchor
        await hub.process.stop()
        sockets = shutil.ignore_patterns("*.sock")
        shutil.copytree(hub.directory, tmp_path / "copy", ignore=sockets)
        await hub.start()
        await east.process.stop()
        made = await hub.ask("token", "create", "east", "--replace-authority", "-o", "json")
        assert made.code == 0, made.said
        east.folder.rename(tmp_path / "lost")
        (east.config.parent / "join.token").write_text(made.json["token"])
        await stack.enter_async_context(started(east.process, east.connected))

        async def both() -> bool:
            return (
                await east.connected()
                and await west.connected()
                and await west.believes(east)
                and await east.believes(west)
            )

        everybody = (hub.process, east.process, west.process)
        await until("the others go by the new anchor", both, watch=everybody)
        await hub.process.stop()
        hub.directory.rename(tmp_path / "newest")
        (tmp_path / "copy").rename(hub.directory)
        await hub.start()
        await until("the return of both", both, watch=everybody)
        assert await west.anchors("east") == [east.anchor] != [before]
        again = await hub.ask("token", "create", "east", "--replace-authority", "-o", "json")
        assert JoinToken.decode(again.json["token"]).epoch == 3, (
            "the hub has learnt which epoch was given out"
        )
