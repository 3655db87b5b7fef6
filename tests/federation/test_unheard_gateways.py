"""A rotation waits for the gateways of its own cluster also where the agent has not heard them: they come back with
the certificate and the bundle that they have, and nobody would believe them if it had gone on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from federation.events import HeldTold
from federation.gateways import Gateways, Report
from federation.held import Held, digest
from federation.model import HUB
from gateway.xds.server import Client
from pki.algorithms import spki_hash
from pki.certificate import subject_key_id
from pki.spiffe import SpiffeId
from tests.federation.east import EAST, East
from tests.federation.world import gateway
from tests.pki.world import granted, make_world, new_key

GATEWAY = SpiffeId.gateway(EAST, "eastwest")


class Unheard(East):
    async def attested(self, name: str) -> Client:
        """A gateway that has its certificate, and has not come with it."""
        key = new_key().public_key()
        await self.lineage.issue(key, granted(GATEWAY), who=name, why="one-time token")
        await self.instances.bind(spki_hash(key), name)
        return Client(str(GATEWAY), "eastwest", name, spki_hash(key))

    def reports(self, by: Client, *, draining: bool = False) -> None:
        """It goes by the newest bundle, and presents a certificate of who issues now."""
        issuer, ends = subject_key_id(self.lineage.self_signed), self.clock.now() + timedelta(hours=24)
        version = self.lineage.bundle().version
        report = Report(self.clock.now(), "1.40", ends, draining, issuer, version)
        self.gateways.reported(by, gateway(by.instance), report, {}, {})
        self.life.agent.catch_up()

    def falls_silent(self, by: Client) -> None:
        self.gateways.fell_silent(by)
        self.life.agent.catch_up()

    async def look(self) -> str:
        """The phase, after as many looks as a whole rotation takes; the hub holds all that is published."""
        for _ in range(10):
            newest = self.lineage.bundle()
            said = Held(HUB, ((str(EAST), *newest.version),), (), ((str(EAST), digest(newest)),), (1, 1))
            self.life.agent.step([HeldTold(said)])
            await self.rotating.look()
        assert self.lineage.rotation is not None
        return self.lineage.rotation.phase.value

    @property
    def held_up_by(self) -> str:
        """Who is named, and the way out."""
        [blocking] = self.rotating.status().blocking
        assert blocking.member == "east"
        assert "DELETE /v1/gateways/NAME" in blocking.todo
        return "; ".join(blocking.who)


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Unheard]:
    made = await Unheard.new(tmp_path, make_world())
    yield made
    await made.lineage.close()


async def test_a_gateway_that_has_attested_and_not_come_yet_is_waited_for_until_it_has_renewed(
    east: Unheard,
) -> None:
    by = await east.attested("gw-9")
    await east.rotating.start("ada", "yearly", manual=False)
    assert await east.look() == "published"
    assert "gw-9" in east.held_up_by
    east.reports(by)
    assert await east.look() == "active"
    assert by.key in east.held_up_by, "its certificate is the old one"
    east.reports(by)
    assert await east.look() == "retiring"
    east.reports(by)
    assert await east.look() == "done"


async def test_a_gateway_that_stopped_before_its_agent_did_is_waited_for(east: Unheard) -> None:
    """As when a host starts anew: the gateway drains first, and the agent that comes back has heard nobody."""
    by = await east.attested("gw-0")
    east.reports(by)
    east.reports(by, draining=True)
    east.falls_silent(by)
    anew = Gateways(east.life.agent, east.lineage.bundle, east.instances, east.clock, east.lineage.certified)
    await east.instances.load()
    assert anew.counted == ("gw-0",)
    assert anew.whereabouts("gw-0") == "silent since this agent started"


@pytest.mark.parametrize("how", ["it is forgotten", "its certificate ends"])
async def test_a_gateway_that_is_gone_for_good_holds_nothing_up_once(east: Unheard, how: str) -> None:
    await east.attested("gw-9")
    await east.rotating.start("ada", "yearly", manual=False)
    assert await east.look() == "published"
    if how == "it is forgotten":
        assert await east.gateways.forget("gw-9")
    else:
        east.clock.advance(timedelta(hours=24).total_seconds() + 1)
    assert await east.look() == "done"


async def test_a_gateway_that_was_forgotten_and_comes_back_is_waited_for_again(east: Unheard) -> None:
    by = await east.attested("gw-9")
    assert await east.gateways.forget("gw-9")
    back = Client(by.identity, by.gateway_class, east.instances.name_of(by.key), by.key)
    await east.rotating.start("ada", "yearly", manual=False)
    east.reports(back)
    assert await east.look() == "published"
    east.reports(back)
    assert await east.look() == "active"
    assert by.key in east.held_up_by
