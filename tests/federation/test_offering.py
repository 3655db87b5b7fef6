"""An agent brings its bundle to a hub that has an old registry, and says when what is old is its own folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from federation.api.client import Refusal, Target, connect
from federation.api.doors import TcpDoor, serving
from federation.api.messages import OfferedBundle
from federation.api.offer_routes import LONGEST_BODY, PATH, OfferRoutes
from federation.api.server import MAX_BODY, api_application
from federation.api.tls import client_context, served
from federation.held import Held
from federation.held import content as held_content
from federation.join import Membership
from federation.model import HUB, Me, View
from federation.offering import Offering, disbelieved, outdone
from federation.offers import Offers
from federation.sync.codec import BUNDLE
from federation.trust import Trust
from pki import bundle as bundles
from pki import statement
from pki.algorithms import spki_hash
from pki.bundle import Bundle, Proof
from pki.certificate import public_key
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.rotation import Phase, advance
from pki.spiffe import TrustDomain
from pki.statement import Kind
from tests.federation.sync.world import (
    ANYWHERE,
    BASE,
    CLOCK,
    Agent,
    HubWorld,
    Member,
    eventually,
    hub_world,
    running,
)
from tests.pki.world import Ca, following, make_ca, make_root

WEST = TrustDomain.of_cluster("west", BASE)
ROOT_KEY, ROOT = make_root()
FIRST, SECOND, THIRD = (make_ca(WEST, ROOT_KEY, ROOT, epoch) for epoch in (1, 2, 3))


def why(ours: Bundle, theirs: Bundle, issuer: Ca) -> str | None:
    return disbelieved(ours, theirs, spki_hash(public_key(issuer.self_signed)), (ROOT,))


PUBLISHED = following(FIRST.bundle, FIRST, FIRST, SECOND)
ROTATED = following(PUBLISHED, FIRST, SECOND)


def test_a_later_version_than_ours_proves_that_we_are_a_copy() -> None:
    assert why(FIRST.bundle, FIRST.bundle, FIRST) is None
    for theirs in (PUBLISHED, ROTATED, replace(THIRD.bundle, generation=3)):
        assert "old copy" in (why(FIRST.bundle, theirs, FIRST) or ""), theirs.version
    made_up = replace(following(FIRST.bundle, THIRD, FIRST, THIRD), sequence=9)
    assert why(FIRST.bundle, made_up, FIRST) is None, "nobody is called a copy for what we have not signed"


def test_whoever_is_behind_will_follow_and_is_no_problem() -> None:
    assert why(PUBLISHED, FIRST.bundle, FIRST) is None
    assert why(ROTATED, FIRST.bundle, SECOND) is None
    shown = replace(FIRST.bundle, anchors=(FIRST.rooted,), proof=Proof())
    assert why(FIRST.bundle, shown, FIRST) is None, (
        "before the first version the hub knows us by what we showed"
    )


def test_an_authority_that_does_not_follow_is_said() -> None:
    other = replace(FIRST.bundle, anchors=(THIRD.self_signed,), generation=3)
    assert "not believed" in (why(FIRST.bundle, other, FIRST) or "")


def test_the_others_tell_that_we_are_a_copy_where_hub_and_agent_are() -> None:
    """Of others their signed word counts; a hub can show what it goes by."""
    east = make_ca(TrustDomain.of_cluster("east", BASE), ROOT_KEY, ROOT)
    said = Held("east", ((WEST.name, 1, 3),))
    signed = replace(
        said, signature=statement.sign(Kind.HELD, held_content(said, east.trust_domain), east.key)
    )
    bundles_held = {"east": east.bundle, HUB: east.bundle}

    def why_not(ours: Bundle, *told: Held) -> str | None:
        return outdone(ours, {each.owner: each for each in told}, bundles_held.get)

    assert "east holds generation 1, sequence 3" in (why_not(FIRST.bundle, signed, Held("central")) or "")
    for unproved in (said, replace(signed, owner="central"), replace(signed, owner=HUB)):
        assert why_not(FIRST.bundle, unproved) is None
    assert why_not(ROTATED, signed) is None
    assert why_not(replace(THIRD.bundle, generation=3), signed) is None


@dataclass
class Federation:
    world: HubWorld
    url: str
    west: Member

    async def rotate(self) -> None:
        lineage = self.west.authority
        await lineage.begin("ada", "")
        while lineage.rotation is not None and lineage.rotation.phase is not Phase.DONE:
            await lineage.enter(advance(lineage.rotation, frozenset(), {}))
            await self.published()
        await self.west.identity.renew()

    def offering(self, lineage: Lineage, folder: Path) -> Offering:
        world = self.world
        (folder / "trust").mkdir(mode=0o700)
        member = Membership(
            BASE, world.address, CLOCK.now(), world.root.certificate, world.authority.bundle(), "", self.url
        )
        return Offering(
            self.url,
            lineage,
            folder,
            Trust.open(folder / "trust", member, CLOCK),
            lambda: View(me=Me("west", BASE, "eu", ""), now=CLOCK.now()),
            CLOCK,
        )

    def held(self) -> Bundle | None:
        row = self.world.hub.registry.find("west")
        return None if row is None or row.bundle is None else bundles.decode(row.bundle)

    async def published(self) -> None:
        """West publishes its newest bundle over its stream."""
        await self.world.hub.membership.offered("west", self.west.authority.bundle())
        assert self.held() == self.west.authority.bundle()


@asynccontextmanager
async def door(world: HubWorld) -> AsyncIterator[str]:
    offers = Offers(BASE, lambda: (world.root.certificate,), world.hub.membership, world.hub, CLOCK)

    class Nobody:
        async def certificate(self, der: bytes) -> None: ...

        async def bearer(self, secret: str) -> None: ...

    app = api_application("hub", "1", OfferRoutes(offers).routes(), Nobody())
    async with serving(app, TcpDoor(ANYWHERE, served(world.identity, world.authority.bundle))) as (at,):
        yield f"https://{at}"


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    async with hub_world(tmp_path) as world, door(world) as url:
        west = await world.join("west")
        try:
            yield Federation(world, url, west)
        finally:
            await west.authority.close()


@pytest.mark.live
async def test_a_hub_that_was_put_back_from_before_a_rotation_lets_the_agent_in_again(
    federation: Federation, tmp_path: Path
) -> None:
    world, west = federation.world, federation.west
    await federation.published()
    backup = copy.deepcopy(world.store)
    for _ in range(8):
        await federation.rotate()
    await world.stop()
    world.store = backup
    await world.start()
    agent = Agent(west)
    agent.publish()
    async with running(agent), door(world) as federation.url:
        await eventually(lambda: "UNAVAILABLE" in (agent.client.problem or ""))
        assert len(bundles.encode(west.authority.bundle())) < LONGEST_BODY
        offering = federation.offering(west.authority, tmp_path / "west")
        await offering.look(welcome=False)
        assert offering.problem is None
        await eventually(lambda: agent.client.connected)
    assert federation.held() == west.authority.bundle()


@pytest.mark.live
async def test_an_agent_that_was_put_back_from_before_a_rotation_says_so(
    federation: Federation, tmp_path: Path
) -> None:
    await federation.published()
    copied = tmp_path / "copy"
    shutil.copytree(tmp_path / "west", copied)
    await federation.rotate()
    before = federation.held()
    restored = await Lineage.open(copied / "authority", FileKeyStore(copied / "keys"), WEST, CLOCK)
    try:
        offering = federation.offering(restored, copied)
        await offering.look(welcome=False)
        assert offering.problem is not None
        assert offering.problem.startswith(f"{copied}: "), "its keys are not in the authority's folder"
        assert "federation token create west --replace-authority" in offering.problem
        assert federation.held() == before, "and nobody was led back"
    finally:
        await restored.close()
    offering = federation.offering(federation.west.authority, tmp_path / "west")
    await offering.look(welcome=False)
    assert offering.problem is None


@pytest.mark.live
async def test_a_copy_that_is_let_in_still_hears_that_its_bundle_is_refused(
    federation: Federation, tmp_path: Path
) -> None:
    """In the middle of a rotation its authority is believed yet, and it cannot go on with the next one."""
    west = federation.west
    await federation.published()
    copied = tmp_path / "copy"
    shutil.copytree(tmp_path / "west", copied)
    await west.authority.begin("ada", "")
    rotation = west.authority.rotation
    assert rotation is not None
    await west.authority.enter(advance(rotation, frozenset(), {}))
    await federation.published()
    restored = await Lineage.open(copied / "authority", FileKeyStore(copied / "keys"), WEST, CLOCK)
    agent = Agent(replace(west, authority=restored))
    agent.publish()
    try:
        async with running(agent):
            await eventually(lambda: BUNDLE in agent.publisher.refused)
            assert agent.client.connected
            offering = federation.offering(restored, copied)
            await offering.look(welcome=False)
            assert "old copy" in (offering.problem or "")
    finally:
        await restored.close()


@pytest.mark.live
async def test_a_hub_that_does_not_answer_changes_nothing(federation: Federation, tmp_path: Path) -> None:
    federation.url = "https://127.0.0.1:1"
    offering = federation.offering(federation.west.authority, tmp_path / "west")
    offering.problem = "as before"
    await offering.look(welcome=False)
    assert offering.problem == "as before"
    await offering.look(welcome=True)
    assert offering.problem is None


@pytest.mark.live
async def test_a_bundle_may_be_longer_than_what_else_is_sent_and_no_longer(federation: Federation) -> None:
    world = federation.world
    tls = client_context(world.authority.bundle().anchors)
    async with connect(Target(federation.url, tls, f"federation.{TrustDomain.of_hub(BASE)}")) as client:
        for length, status in ((MAX_BODY + 1, 400), (LONGEST_BODY - 16, 400), (LONGEST_BODY, 413)):
            with pytest.raises(Refusal) as caught:
                await client.call("POST", PATH, body=OfferedBundle(bundle="A" * length))
            assert caught.value.status == status, length
