"""Anybody may bring a newer version of a member's bundle: only what leads on from what is known is taken."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from federation import membership
from federation.banned import BanKind
from federation.clock import ManualClock
from federation.hub import Hub
from federation.member_row import MemberRow
from federation.offers import HEARD, MOST_ADDRESSES, OF_ALL, OF_ONE, NotTaken, Offers, TooMany
from federation.registry import AuthorityRow, Registry
from federation.store import MemoryStore
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import bundle as bundles
from pki import token
from pki.algorithms import spki_hash
from pki.bundle import Bundle, content
from pki.certificate import der, public_key
from pki.errors import InvalidBundle, Untrusted
from pki.spiffe import SpiffeId, TrustDomain
from pki.validate import verify_peer
from tests.pki.world import BASE, NOW, Ca, following, make_ca, make_root

WEST = TrustDomain.of_cluster("west", BASE)
AGENT = SpiffeId.agent(WEST)
ROOT_KEY, ROOT = make_root()
FIRST, SECOND, THIRD, FOURTH = (make_ca(WEST, ROOT_KEY, ROOT, epoch) for epoch in (1, 2, 3, 4))
HERE = "127.0.0.1"
BURST = int(membership.RISES.burst)


def key(ca: Ca) -> str:
    return spki_hash(public_key(ca.self_signed))


PUBLISHED = following(FIRST.bundle, FIRST, FIRST, SECOND)
ROTATED = following(PUBLISHED, FIRST, SECOND)
REPLACED = replace(THIRD.bundle, generation=3)


@dataclass
class World:
    hub: Hub
    offers: Offers
    clock: ManualClock

    async def bring(self, offered: Bundle, address: str = HERE) -> Bundle:
        return await self.offers.hear(bundles.encode(offered), address)

    def believes(self, ca: Ca) -> bool:
        """Whether the hub would let an agent in that presents a certificate of `ca`."""
        try:
            return verify_peer((ca.leaf(AGENT),), self.hub.membership.bundles(), NOW) == AGENT
        except Untrusted:
            return False


async def world(published: Bundle | None) -> World:
    """A hub whose registry was put back from when west had just joined with its first authority."""
    clock, store = ManualClock(NOW), MemoryStore()
    hub = Hub(Registry(store), lambda: (ROOT,), BASE, clock, HubMetrics())
    await hub.start()
    _, record = token.mint(
        b"." * token.SECRET_BYTES, NOW, kind="join", url="https://hub", subject="west", pin=b""
    )
    await TokenStore(store, clock.now).add(record)
    row = MemberRow(
        name="west",
        may_export=(),
        ranges=(),
        joined_at=NOW,
        key=key(FIRST),
        rooted=der(FIRST.rooted),
        anchor=der(FIRST.self_signed),
        bundle=None if published is None else bundles.encode(published),
    )
    assert await hub.membership.add(row, record)
    return World(hub, Offers(BASE, lambda: (ROOT,), hub.membership, hub, clock), clock)


@pytest.fixture
async def restored() -> World:
    return await world(FIRST.bundle)


async def test_who_rotated_since_is_believed_by_the_versions_that_lead_there(restored: World) -> None:
    assert restored.believes(FIRST)
    assert not restored.believes(SECOND)
    assert content(await restored.bring(ROTATED)) == content(ROTATED)
    assert restored.believes(SECOND)
    assert not restored.believes(FIRST), "and the authority that has ended is not"
    row = restored.hub.registry.find("west")
    assert row is not None
    assert (row.key, row.epoch) == (key(SECOND), 2)
    assert restored.hub.registry.authority("west") == AuthorityRow(key(SECOND), 2)


async def test_who_was_given_another_authority_since_is_believed_by_the_word_of_the_root(
    restored: World,
) -> None:
    await restored.bring(REPLACED)
    assert restored.believes(THIRD)
    assert not restored.believes(FIRST)
    assert (await restored.bring(following(PUBLISHED, SECOND, SECOND))).version == (3, 1)


async def test_nothing_leads_back_and_nothing_comes_in_that_nobody_signed_for(restored: World) -> None:
    assert content(await restored.bring(ROTATED)) == content(ROTATED)
    for offered in (
        FIRST.bundle,
        PUBLISHED,
        replace(FIRST.bundle, sequence=9),
        replace(SECOND.bundle, generation=2),
        replace(following(ROTATED, FIRST, FIRST), earlier=()),
        following(ROTATED, THIRD, SECOND, THIRD),
    ):
        restored.clock.advance(60)
        assert content(await restored.bring(offered)) == content(ROTATED), offered.version
    assert restored.believes(SECOND)


async def test_before_the_first_version_only_what_was_shown_at_the_join_leads_on() -> None:
    """The word of the root for an authority that ended before may be shown by whoever stole its key."""
    restored = await world(None)
    retired = make_ca(WEST, ROOT_KEY, ROOT)
    for offered in (replace(retired.bundle, sequence=5), replace(SECOND.bundle, generation=2)):
        await restored.bring(offered)
        assert not restored.believes(retired)
        assert not restored.believes(SECOND)
        row = restored.hub.registry.find("west")
        assert row is not None
        assert row.bundle is None
    await restored.bring(ROTATED)
    assert restored.believes(SECOND)


async def test_an_epoch_beyond_all_rotations_is_not_taken(restored: World) -> None:
    """The holder of a stolen key would leave no epoch to replace it with."""
    far = make_ca(WEST, ROOT_KEY, ROOT, epoch=2 + membership.MOST_EPOCHS_LEFT_OUT)
    assert (await restored.bring(following(FIRST.bundle, FIRST, FIRST, far))).version == (1, 1)
    assert restored.hub.registry.authority("west") == AuthorityRow(key(FIRST), 1)


async def test_the_holder_of_a_stolen_key_uses_epochs_up_slowly(restored: World) -> None:
    """Bundle after bundle, each with an authority that lies as far above the one before as may be."""
    hub, held, by, step = restored.hub, FIRST.bundle, FIRST, membership.MOST_EPOCHS_LEFT_OUT
    for times in range(1, BURST + 2):
        after = make_ca(WEST, ROOT_KEY, ROOT, epoch=1 + times * step)
        held, by = replace(following(held, by, after), earlier=()), after
        await hub.membership.offered("west", held)
        known = hub.registry.authority("west")
        assert known is not None
        assert known.epoch == 1 + min(times, BURST) * step
    assert not restored.believes(by)
    restored.clock.advance(1 / membership.RISES.rate)
    await hub.membership.offered("west", held)
    assert restored.believes(by)


async def test_who_has_the_root_sign_for_epoch_after_epoch_waits_as_well(restored: World) -> None:
    registry, clock = restored.hub.registry, restored.clock

    async def signed(epoch: int) -> None:
        newest = AuthorityRow("key", epoch)
        await restored.hub.membership.keep_successor("west", lambda row: row, newest)

    for epoch in range(2, BURST + 2):
        await signed(epoch)
    again = asyncio.create_task(signed(BURST + 2))
    while not (clock.sleepers or again.done()):
        await asyncio.sleep(0)
    assert registry.authority("west") == AuthorityRow("key", BURST + 1)
    await signed(2)
    assert registry.authority("west") == AuthorityRow("key", BURST + 1), "nothing leads back"
    clock.advance(1 / membership.RISES.rate)
    await again
    assert registry.authority("west") == AuthorityRow("key", BURST + 2)


async def test_it_is_of_a_member_that_is_not_banned(restored: World) -> None:
    north = make_ca(TrustDomain.of_cluster("north", BASE), ROOT_KEY, ROOT)
    hub = make_ca(TrustDomain.of_hub(BASE), ROOT_KEY, ROOT)
    for stranger in (north, hub):
        with pytest.raises(NotTaken, match="no trust domain of a member"):
            await restored.bring(stranger.bundle)
    with pytest.raises(InvalidBundle):
        await restored.offers.hear(b"{}", HERE)
    await restored.hub.bans.ban(BanKind.CLUSTER, "west", "its key was stolen")
    with pytest.raises(NotTaken, match="is banned") as caught:
        await restored.bring(ROTATED)
    assert "stolen" not in caught.value.problem, "the reason is nothing for strangers"
    assert not restored.believes(SECOND)


@pytest.mark.parametrize("asks", [bundles.encode(FIRST.bundle), b"{}"], ids=["no newer", "none"])
async def test_whoever_asks_all_the_time_is_answered_so_often(restored: World, asks: bytes) -> None:
    async def knock(address: str) -> None:
        with suppress(InvalidBundle):
            await restored.offers.hear(asks, address)

    for _ in range(int(HEARD.burst)):
        await knock(HERE)
    with pytest.raises(TooMany) as caught:
        await knock(HERE)
    assert 0 < caught.value.wait <= 1 / HEARD.rate
    await knock("127.0.0.2")
    for number in range(MOST_ADDRESSES + 10):
        await knock(f"127.1.{number // 250}.{number % 250}")
    assert len(restored.offers._heard) == MOST_ADDRESSES
    restored.clock.advance(1 / HEARD.rate)
    await knock(HERE)


async def test_an_answer_is_encoded_once(restored: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = bundles.encode, []

    def counted(bundle: Bundle) -> bytes:
        made.append(bundle)
        return real(bundle)

    offered = real(FIRST.bundle)
    monkeypatch.setattr(bundles, "encode", counted)
    for _ in range(20):
        held = await restored.offers.hear(offered, HERE)
        assert restored.offers.encoded(held) == real(held)
    assert len(made) == 1
    monkeypatch.undo()
    now = await restored.bring(ROTATED)
    assert restored.offers.encoded(now) == real(now) != offered


async def test_only_what_claims_to_be_newer_is_looked_at_and_so_many_a_time(restored: World) -> None:
    for _ in range(100):
        await restored.bring(FIRST.bundle)
    claims = replace(following(FIRST.bundle, THIRD, THIRD), sequence=50)
    for _ in range(int(OF_ONE.burst)):
        await restored.bring(claims)
    with pytest.raises(TooMany) as caught:
        await restored.bring(claims)
    assert 0 < caught.value.wait <= 1 / OF_ONE.rate
    await restored.bring(ROTATED, "127.0.0.2")
    assert restored.believes(SECOND), "whoever floods from one address keeps nobody else out"
    claims = replace(claims, sequence=60)
    left = int(OF_ALL.burst - OF_ONE.burst) - 1
    for number in range(left):
        await restored.bring(claims, f"127.0.1.{number}")
    with pytest.raises(TooMany):
        await restored.bring(claims, f"127.0.1.{left}")
    restored.clock.advance(60)
    await restored.bring(claims)
