"""Everything sleeps until every certificate has ended, as on a laptop that was closed: it recovers by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.demo.asking import until
from federation.demo.clusters import Cluster, Gateway
from federation.demo.load import request, running
from federation.demo.world import World
from pki.certificate import load_pem
from tests.scenarios.changes import planned, reach, settled
from tests.scenarios.command import federation as command
from tests.scenarios.conftest import LIFE
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


def ends(chain: Path) -> datetime:
    return load_pem(chain.read_bytes())[0].not_valid_after_utc


async def everything(world: World) -> list[int]:
    """The processes of the product, Envoys included; the backends are somebody else's."""
    found = [world.hub.pid]
    for cluster in world.clusters.values():
        found.append(cluster.agent.pid)
        for gateway in cluster.gateways:
            found += [gateway.process.pid, (await gateway.status())["envoy_pid"]]
    return found


async def asks_for_a_token(gateway: Gateway) -> bool:
    return any("token" in problem for problem in (await gateway.status())["problems"])


async def give_token(cluster: Cluster, gateway: Gateway) -> None:
    at = f"unix://{cluster.socket}"
    made = await command("--hub", at, "token", "create", "--gateway", "--out", gateway.folder / "token")
    assert made.code == 0, made.said


async def test_s5_everything_sleeps_for_three_lives_of_its_certificates_and_recovers(hasty: World) -> None:
    """Where there is a token that is good, nobody does anything; where there is none, the gateway asks for it, and is
    reached by others once it has one: until then by those alone whose connection to it outlived the sleep.
    """
    east, central = hasty.clusters["east"], hasty.clusters["central"]
    (lost,) = central.gateways
    to = await reach(hasty, "east", "remote")
    assert (await request(to)).who == "west"
    pids = await everything(hasty)
    for cluster in hasty.clusters.values():
        for gateway in cluster.gateways:
            (gateway.folder / "token").unlink(missing_ok=True)
            if gateway is not lost:
                await give_token(cluster, gateway)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(3 * LIFE)
        chains = [
            gateway.socket.parent / "chain.pem" for one in hasty.clusters.values() for gateway in one.gateways
        ]
        assert all(ends(chain) < datetime.now(UTC) for chain in chains)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await until("an answer of west", answered_by(to, "west"))

    async def asked() -> bool:
        return await asks_for_a_token(lost)

    await until("central's gateway asking for a token", asked, watch=(lost.process,))
    await lost.process.kill()
    await lost.process.start()
    await until("the same after a start", asked, watch=(lost.process,))
    own = await reach(hasty, "central", "echo")
    await until("an answer of central to itself", answered_by(own, "central"), watch=(lost.process,))
    await give_token(central, lost)
    await until("the clusters' meeting", hasty.connected, watch=hasty.processes)
    await planned(hasty, "east", "remote", {"west", "central"})
    await settled(hasty)
    others = set(await everything(hasty)) - {lost.process.pid, (await lost.status())["envoy_pid"]}
    assert others < set(pids), "nobody else was started anew"
    async with running(to) as load:
        await asyncio.sleep(2)
    assert (load.failed, set(load.clusters)) == (0, {"west"})
    assert (await command("--hub", f"unix://{east.socket}", "check")).code == 0
