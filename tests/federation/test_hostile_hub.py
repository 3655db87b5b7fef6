"""A hub that wants a cluster to go on with a rotation before others believe it: it fakes, hides and removes in vain.
And one that orders rotations without end, or wants a say in those that the cluster began itself.

East rotates; west and central are the others, and everything that is heard of them comes through that hub.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from federation.api.inward import Inward
from federation.api.rotation_routes import STATUS, RotationRoutes
from federation.banned import Ban, BanKind
from federation.clock import ManualClock
from federation.events import (
    BanChanged,
    BundleChanged,
    Event,
    GatewayGone,
    GatewayReported,
    HeldTold,
    LocalChanged,
    MemberChanged,
)
from federation.held import Held, Version, content, digest
from federation.model import HUB, MemberState
from federation.orders import Allowed, Orders
from federation.questions import Question
from pki.journal import records
from pki.ledger import Intent
from pki.rotation import Lack
from pki.spiffe import SpiffeId, TrustDomain
from pki.statement import Kind, sign
from tests.federation.east import EAST, East
from tests.federation.world import BASE, NOW, backend, gateway, local, member
from tests.pki.world import Ca, granted, make_ca, make_world, new_key

WORLD = make_world()
CENTRAL = make_ca(TrustDomain.of_cluster("central", BASE), WORLD.root_key, WORLD.root)
OTHERS = {"west": WORLD.west, "central": CENTRAL}


class Beset(East):
    def hears(self, *events: Event) -> None:
        self.life.agent.step(events)

    def told_held(self, name: str, version: Version | None = None, by: Ca | None = None) -> None:
        """The hub tells that somebody holds a version of our bundle (the newest), signed `by` somebody if at all."""
        newest = self.lineage.bundle()
        digests = ((str(EAST), digest(newest)),)
        said = Held(name, ((str(EAST), *(version or newest.version)),), (), digests, (1, 1))
        if by is not None:
            said = replace(said, signature=sign(Kind.HELD, content(said, by.trust_domain), by.key))
        self.hears(HeldTold(said))

    async def look(self) -> str:
        """The phase, after as many looks as a whole rotation takes."""
        for _ in range(10):
            await self.rotating.look()
        assert self.lineage.rotation is not None
        return self.lineage.rotation.phase.value

    async def finish(self, looks: int = 20) -> None:
        """Everybody holds what this rotation publishes, and says so, until it is over or long enough looked at."""
        for _ in range(looks):
            if self.lineage.rotation is None or self.lineage.rotation.over:
                break
            self.told_held(HUB)
            for name, ca in OTHERS.items():
                self.told_held(name, by=ca)
            await self.look()

    async def order(self, action: str, **more: object) -> tuple[int, Any]:
        """What an operator of the hub, as the hub says, is answered: a status and a body."""
        body = msgspec.json.encode({"action": action, **more})
        status, answer = await self.inward.answer(Question(STATUS, "POST", body, "mallory"))
        return status, msgspec.json.decode(answer)

    def here(self) -> dict[str, object]:
        """The rotation as it is seen now, as `abort` and `advance` have to name it."""
        assert self.lineage.rotation is not None
        return {
            "number": self.lineage.rotation.token.rotation,
            "phase": self.lineage.rotation.phase.value,
        }

    def holding_up(self) -> dict[str, str]:
        return {one.member: one.reason for one in self.rotating.status().blocking}


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Beset]:
    made = await Beset.new(tmp_path, WORLD)
    made.hears(*(MemberChanged(member(name)) for name in OTHERS))
    made.hears(*(BundleChanged(name, ca.bundle) for name, ca in OTHERS.items()))
    yield made
    await made.lineage.close()


@pytest.fixture
async def published(east: Beset) -> Beset:
    """It has published its next anchor, the hub says that it holds it, and nobody else has answered."""
    await east.rotating.start("ada", "yearly", manual=False)
    assert await east.look() == "published"
    east.told_held(HUB)
    return east


async def test_what_the_others_have_signed_lets_it_go_on(published: Beset) -> None:
    for name, ca in OTHERS.items():
        assert await published.look() == "published"
        assert name in published.holding_up()
        published.told_held(name, by=ca)
    assert await published.look() == "retiring"
    published.told_held(HUB)
    for name, ca in OTHERS.items():
        published.told_held(name, by=ca)
    assert await published.look() == "done"


FAKES: dict[str, Callable[[Beset], None]] = {
    "unsigned": lambda east: east.told_held("central"),
    "signed by itself": lambda east: east.told_held(
        "central", by=replace(WORLD.hub, trust_domain=CENTRAL.trust_domain)
    ),
    "signed by another member": lambda east: east.told_held(
        "central", by=replace(WORLD.west, trust_domain=CENTRAL.trust_domain)
    ),
    "an old one": lambda east: east.told_held("central", (1, 1), by=CENTRAL),
    "one from a rotation to come": lambda east: east.told_held("central", (1, 99), by=CENTRAL),
    "one of itself, in its name": lambda east: east.hears(HeldTold(Held("central"))),
}


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES.keys())
async def test_a_hub_that_says_that_everybody_holds_the_new_anchor_is_not_believed(
    published: Beset, fake: Callable[[Beset], None]
) -> None:
    published.told_held("west", by=WORLD.west)
    fake(published)
    assert await published.look() == "published"
    assert set(published.holding_up()) == {"central"}
    assert published.lineage.issuer.epoch == 1, "the next authority issues nothing"


async def test_it_is_said_that_a_word_is_not_signed(published: Beset) -> None:
    published.told_held("central")
    published.told_held("west", by=replace(WORLD.hub, trust_domain=WORLD.west.trust_domain))
    assert published.realm.reports(published.lineage.rotation)["central"] is Lack.SIGNATURE  # type: ignore[arg-type]
    assert published.realm.reports(published.lineage.rotation)["west"] is Lack.PROOF  # type: ignore[arg-type]


async def test_whom_a_hub_quarantines_loses_the_trust_of_our_gateways_before_nobody_waits_for_it(
    published: Beset,
) -> None:
    """So it can lose no request to a rotation: there is none."""
    published.told_held("west", by=WORLD.west)
    assert await published.look() == "published"
    published.hears(MemberChanged(member("central", state=MemberState.QUARANTINED, seq=2)))
    assert [peer.name for peer in published.life.agent.compiled.fabric.peers] == ["west"]
    assert await published.look() == "retiring"
    assert any("central: it is quarantined" in one for one in published.rotating.status().unawaited)


async def test_who_is_still_trusted_by_what_our_gateways_have_is_waited_for_all_the_same(
    published: Beset,
) -> None:
    """What is decided may not be what gateways have: here it does not pass its check, and they keep what they had."""
    published.hears(LocalChanged(local(backend(1))))
    published.hears(GatewayReported(replace(gateway("gw-1"), bind_port=20000), {}, {}))
    published.hears(MemberChanged(member("central", state=MemberState.QUARANTINED, seq=2)))
    assert published.life.agent.withheld
    assert "central" in published.realm.members()
    published.hears(GatewayGone("gw-1"))
    assert "central" not in published.realm.members()


async def test_a_member_whose_anchors_are_not_known_here_is_not_waited_for(published: Beset) -> None:
    """Nobody can verify its word, and it cannot talk to us either; once its anchors are here, it counts."""
    for name, ca in OTHERS.items():
        published.told_held(name, by=ca)
    published.hears(MemberChanged(member("south")))
    assert "south" not in published.realm.members()
    south = make_ca(TrustDomain.of_cluster("south", BASE), WORLD.root_key, WORLD.root)
    published.hears(BundleChanged("south", south.bundle))
    assert "south" in published.realm.members()
    assert await published.look() == "published"
    published.told_held("south", by=south)
    assert await published.look() == "retiring"


async def test_a_hundred_orders_make_no_more_than_a_few_rotations(east: Beset) -> None:
    answers = []
    for _ in range(100):
        answers.append(await east.order("start", why="again"))
        await east.finish()
    assert [status for status, _ in answers] == [200] * 3 + [409] * 97
    assert "3 times within a day" in answers[-1][1]["message"]
    assert "socket of the agent" in answers[-1][1]["hint"]
    assert east.lineage.issuer.epoch == 4
    assert (await east.order("leaves"))[0] == 409
    await east.rotating.start("ada", "our own are not counted", manual=False)


async def test_what_is_refused_leaves_a_trace_and_no_flood_of_them(east: Beset) -> None:
    with structlog.testing.capture_logs() as logged:
        for _ in range(100):
            await east.order("abort", number=1, phase="published")
            await east.order("leaves")
    refused = [one for one in logged if one["event"] == "call refused"]
    assert 1 <= len(refused) <= 20
    assert {one["caller"] for one in refused} == {"mallory (at the hub)"}
    assert any("within a day" in one["reason"] for one in refused)


@pytest.mark.parametrize("action", ["abort", "advance"])
async def test_what_an_operator_of_the_cluster_began_is_not_the_hubs(east: Beset, action: str) -> None:
    await east.rotating.start("ada", "step by step", manual=True)
    await east.rotating.go_on(**east.here())  # type: ignore[arg-type]
    east.told_held(HUB)
    for name, ca in OTHERS.items():
        east.told_held(name, by=ca)
    before = east.lineage.rotation
    assert east.holding_up() == {}, "so that only whose it is keeps it where it is"
    status, problem = await east.order(action, **east.here())
    assert status == 409
    assert "was begun in this cluster" in problem["message"]
    assert east.lineage.rotation == before
    await east.rotating.go_on(**east.here())  # type: ignore[arg-type]
    assert east.here()["phase"] == "active"


async def test_what_began_by_itself_is_not_the_hubs_either(east: Beset) -> None:
    """Else a hub could turn back each one until the authority has ended."""
    await east.lineage.begin("the agent", "two thirds of the authority's life are over")
    status, _ = await east.order("abort", **east.here())
    assert status == 409
    assert east.here()["phase"] == "prepared"


async def test_what_a_hub_ordered_it_may_turn_back_and_the_journal_says_who_wanted_it_and_why(
    east: Beset,
) -> None:
    assert (await east.order("start", why="a trial", manual=True))[0] == 200
    assert (await east.order("start", why="another"))[0] == 409
    assert (await east.order("advance", **east.here()))[0] == 200
    assert (await east.order("abort", **east.here()))[0] == 200
    made = [
        record
        for journal in east.lineage.journals
        for record in records(journal.path)
        if isinstance(record, Intent) and record.epoch == 2
    ]
    assert [(one.who, one.why) for one in made] == [
        ("mallory (at the hub)", "a new authority: a trial"),
    ]


async def test_a_cluster_may_take_no_orders_at_all(east: Beset, tmp_path: Path) -> None:
    orders = Orders.open(tmp_path, Allowed(from_hub=False), ManualClock(NOW))
    east.inward = Inward(RotationRoutes(east.rotating, cluster="east", orders=orders).routes())
    for action in ("start", "leaves", "abort", "advance"):
        status, problem = await east.order(action, number=1, phase="prepared")
        assert status == 409
        assert "rotation.from_hub: false" in problem["message"]
    assert east.lineage.rotation is None
    status, _ = await east.inward.answer(Question(STATUS))
    assert status == 200, "it may look on"


async def test_a_rotation_that_a_hub_starts_and_leaves_does_not_keep_the_authority_from_being_replaced(
    east: Beset,
) -> None:
    """Each step of it waits for a person, and while it runs no other one begins."""
    assert (await east.order("start", manual=True))[0] == 200
    await east.finish(looks=3)
    assert east.here()["phase"] == "prepared"
    assert east.rotating.status().ready
    east.clock.advance((east.rotating.status().due - east.clock.now()).total_seconds())
    await east.finish()
    assert east.here()["phase"] == "done"


async def test_a_rotation_that_this_clusters_operator_starts_waits_for_him_however_long(east: Beset) -> None:
    await east.rotating.start("ada", "step by step", manual=True)
    east.clock.advance((east.rotating.status().due - east.clock.now()).total_seconds())
    await east.finish(looks=3)
    assert east.here()["phase"] == "prepared"


async def test_a_hub_that_turns_back_what_it_starts_day_after_day_does_not_put_off_the_next_one(
    east: Beset,
) -> None:
    """Only a person of this cluster who turns one back gets a day before the next one begins by itself."""
    east.clock.advance((east.rotating.status().due - east.clock.now()).total_seconds() - 60)
    assert (await east.order("start", manual=True))[0] == 200
    assert (await east.order("abort", **east.here()))[0] == 200
    assert east.here()["phase"] == "aborted"
    east.clock.advance(120)
    await east.look()
    assert east.lineage.begun is not None
    assert east.lineage.begun.who == "the agent"
    assert (await east.order("abort", **east.here()))[0] == 409


async def test_of_certificates_that_nobody_presents_none_is_compared_with_the_bans(
    east: Beset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one ban that a hub tells would make each look cost as much as a cluster has ever had certificates."""
    issued = [
        await east.lineage.issue(
            new_key().public_key(), granted(SpiffeId.workload(EAST, "shop", name)), who="test", why="test"
        )
        for name in ("cart", "till", "shelf")
    ]
    gone = {one.certificate.serial_number for one in issued}
    monkeypatch.setattr(east.realm, "_gone", lambda: gone)
    await east.rotating.start("ada", "", manual=True)
    for phase in ("prepared", "published"):
        east.told_held(HUB)
        for name, ca in OTHERS.items():
            east.told_held(name, by=ca)
        await east.rotating.go_on(1, phase)
    cart, till, _ = issued
    gone -= {cart.certificate.serial_number, till.certificate.serial_number}
    banned = str(SpiffeId.workload(EAST, "shop", "cart"))
    east.hears(BanChanged(Ban(BanKind.IDENTITY, banned, "a test", NOW)))
    compared = []

    def why_banned(identity: SpiffeId, key: str) -> str | None:
        compared.append(str(identity))
        return "banned" if str(identity) == banned else None

    monkeypatch.setattr(east.realm._gateways, "why_banned", why_banned)
    assert east.lineage.rotation is not None
    (waits,) = east.realm.lagging(east.lineage.rotation)
    assert "/sa/till until" in waits
    assert len(compared) == 2, "the two that somebody may still present"
