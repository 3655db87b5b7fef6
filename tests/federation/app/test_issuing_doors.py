"""Doors as real processes in front of one issuer: they share an address, come back when killed, and leave nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from federation.app.issuing_doors import IssuingDoors
from federation.clock import SystemClock
from federation.errors import FederationError
from federation.svid import svid_pb2 as pb
from federation.svid.client import Agent, believed, issue, newest_bundle, renewal, request
from federation.svid.demand import Answer, Refusal
from federation.svid.doors import Served
from pki import bundle
from pki.algorithms import spki_hash
from pki.certificate import load_der
from pki.certificate import pem as certificates
from pki.policy import Attestation
from pki.spiffe import SpiffeId
from tests.federation.svid.test_server import AGENT, GATEWAY, free_port, leaf, pem
from tests.federation.svid.world import CART, EAST, Cluster, cluster, given, new_key

pytestmark = pytest.mark.live
WITHIN = 60.0


class World:
    def __init__(self, east: Cluster, doors: IssuingDoors, agent: Agent, path: Path) -> None:
        self.east, self.doors, self.agent, self.path = east, doors, agent, path
        self.key = new_key()
        self.chain = b""

    async def ask(self, *wishes: pb.Wish) -> Answer:
        """Over a connection of its own, which some door takes."""
        async with self.agent.channel(self.chain, pem(self.key)) as channel:
            return await issue(channel, wishes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with cluster(folder) as east:
        key, address, path = new_key(), free_port(), folder / "doors.sock"
        own = await leaf(east, key, SpiffeId.agent(EAST), Attestation.SELF)

        def served() -> Served:
            return Served(own, pem(key), bundle.encode(east.authority.bundle()))

        doors = IssuingDoors(path, address, 2, east.issuer.issue, served, SystemClock())
        agent = Agent(str(address), AGENT, east.authority.bundle().pem())
        made = World(east, doors, agent, path)
        made.chain = await leaf(east, made.key, GATEWAY, Attestation.TOKEN)
        running = asyncio.create_task(doors.run(), name="doors")
        try:
            await until(lambda: doors.connected == 2)
            yield made
        finally:
            pids = doors.pids
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def served_by_somebody(found: World, *wishes: pb.Wish) -> Answer:
    """A door that has just started may not listen yet."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                return await found.ask(*wishes)
            except FederationError:
                await asyncio.sleep(0.05)


async def test_two_doors_share_an_address_and_one_issuer(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
        assert len(set(found.doors.pids)) == 2
        keys = [new_key() for _ in range(24)]
        names = [SpiffeId.workload(EAST, "shop", f"n{number}") for number in range(len(keys))]
        first = pb.Wish(csr=request(new_key()), token=await found.east.token())
        given(await served_by_somebody(found, first))
        wishes = [
            pb.Wish(csr=request(key), token=await found.east.token(name))
            for key, name in zip(keys, names, strict=True)
        ]
        answers = await asyncio.gather(*(found.ask(wish) for wish in wishes))
        trusted, now = found.east.authority.bundle(), found.east.clock.now()
        for answer, key, name in zip(answers, keys, names, strict=True):
            believed(given(answer), key, name, trusted, now)
        held = {entry.spki for entry in found.east.authority.ledger(now)}
        assert {spki_hash(key.public_key()) for key in keys} <= held, "all of them are in the one ledger"


async def test_a6_one_line_has_one_end_whichever_door_is_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        key = new_key()
        serial = load_der((await found.east.first(key, CART)).chain[0]).serial_number
        await served_by_somebody(found, renewal(request(key), serial))
        wishes = [renewal(request(new_key()), serial, key) for _ in range(16)]
        answers = await asyncio.gather(*(found.ask(wish) for wish in wishes))
        outcomes = [answer.outcomes[0] for answer in answers]
        assert sum(not isinstance(outcome, Refusal) for outcome in outcomes) <= 1


async def test_at_whichever_door_somebody_comes_with_a_new_certificate_the_one_before_is_done_with(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as found:
        key = new_key()
        first = load_der((await found.east.first(key, CART)).chain[0])
        answer = await served_by_somebody(found, renewal(request(key), first.serial_number))
        assert not found.east.issuer.gone
        second = certificates(map(load_der, given(answer).chain))
        async with found.agent.channel(second, pem(key)) as channel:
            assert bundle.decode(await newest_bundle(channel)) == found.east.authority.bundle()
        assert found.east.issuer.gone == {first.serial_number}


async def test_a_door_that_dies_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        before = found.doors.pids
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: before[0] not in found.doors.pids and found.doors.connected == 2)
        assert before[1] in found.doors.pids
        await served_by_somebody(found, pb.Wish(csr=request(new_key()), token=await found.east.token()))
