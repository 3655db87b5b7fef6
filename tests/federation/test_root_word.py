"""What the registry knows of the root's word for a member, while its authority is replaced and after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from federation import root_word
from federation.clock import ManualClock
from federation.member_row import MemberRow
from pki import bundle as bundles
from pki.algorithms import spki_hash
from pki.bundle import Accepted, accept
from pki.certificate import der, load_der, public_key
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.rotation import Side, abort, advance
from pki.spiffe import TrustDomain
from tests.federation.world import NOW
from tests.pki.world import BASE

EAST = TrustDomain.of_cluster("east", BASE)
NOBODY: frozenset[str] = frozenset()


class Member:
    """East's authorities, and its row at the hub."""

    def __init__(self, root: RootAuthority, lineage: Lineage, row: MemberRow) -> None:
        self.root, self.lineage, self.row = root, lineage, row

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return (self.root.certificate,)

    def key(self, side: Side) -> str:
        return spki_hash(public_key(self.lineage.authorities[side].self_signed))

    async def sign(self, side: Side) -> bytes:
        made = await self.root.sign_cluster_ca(await self.lineage.csr(side), EAST, who="", why="")
        return der(made)

    async def asks(self, side: Side, offline: bool = False) -> bytes:
        """The root's word, kept in the row; with the root `offline` it has yet to come."""
        rooted = b"" if offline else await self.sign(side)
        anchor = der(self.lineage.authorities[side].self_signed)
        self.row = root_word.asked(self.row, self.key(side), anchor, await self.lineage.csr(side), rooted)
        return rooted

    def publishes(self) -> bool:
        """Whether the hub believes the newest version; then the row goes by it."""
        before = None if self.row.bundle is None else bundles.decode(self.row.bundle)
        offered = bundles.decode(bundles.encode(self.lineage.bundle()))
        outcome = accept(before, offered, *self.roots)
        if isinstance(outcome, Accepted):
            row = root_word.published(self.row, before, offered, self.roots)
            self.row = msgspec.structs.replace(row, bundle=bundles.encode(offered))
        return isinstance(outcome, Accepted)

    async def goes_on(self) -> bool:
        assert self.lineage.rotation is not None
        await self.lineage.enter(advance(self.lineage.rotation, NOBODY, {}))
        return self.publishes()

    async def turns_back(self) -> bool:
        assert self.lineage.rotation is not None
        back = abort(self.lineage.rotation)
        assert back is not None
        await self.lineage.enter(back)
        return self.publishes()


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Member]:
    """Joined, and nothing was signed yet."""
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    lineage = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "east-keys"), EAST, clock)
    anchor = lineage.authorities[Side.OLD].self_signed
    row = MemberRow(
        name="east",
        may_export=(),
        ranges=(),
        joined_at=NOW,
        key=spki_hash(public_key(anchor)),
        anchor=der(anchor),
        request=await lineage.csr(),
    )
    yield Member(root, lineage, row)
    await lineage.close()
    await root.close()


async def rooted(east: Member) -> bytes:
    """The root has signed the first authority, and the member published it."""
    found = await east.asks(Side.OLD)
    form = east.row.rooted
    await east.lineage.accept_root_signed(load_der(form), *east.roots)
    assert east.publishes()
    return found


async def test_what_is_to_follow_leaves_what_counts_as_it_is(east: Member) -> None:
    word = await rooted(east)
    await east.lineage.begin("ada", "")
    following = await east.asks(Side.NEW)
    assert (east.row.rooted, east.row.next_rooted) == (word, following)
    assert east.row.anchor == der(east.lineage.authorities[Side.OLD].self_signed)
    assert east.row.member(BASE).rooted == following, "its agent asked for that"


@pytest.mark.parametrize("steps", [1, 2])
async def test_after_a_rotation_that_was_given_up_the_living_one_is_known(east: Member, steps: int) -> None:
    word = await rooted(east)
    key = east.row.key
    await east.lineage.begin("ada", "")
    await east.asks(Side.NEW)
    for _ in range(steps):
        assert await east.goes_on()
    assert await east.turns_back()
    while east.lineage.rotation is not None and not east.lineage.rotation.over:
        assert await east.goes_on()
    assert (east.row.key, east.row.rooted) == (key, word)
    assert (east.row.next_rooted, east.row.next_anchor, east.row.next_request) == (b"", b"", b"")
    assert east.row.member(BASE).rooted == word


async def test_what_followed_takes_the_place_of_the_one_before(east: Member) -> None:
    await rooted(east)
    await east.lineage.begin("ada", "")
    following = await east.asks(Side.NEW)
    key = east.key(Side.NEW)
    for _ in range(3):
        assert await east.goes_on()
    assert (east.row.key, east.row.epoch, east.row.rooted) == (key, 2, following)
    assert (east.row.next_rooted, east.row.waits) == (b"", False)


async def test_a_first_word_is_waited_for_before_that_for_what_follows(east: Member) -> None:
    """The rotation begins before a ceremony was held: others can believe it by the first authority alone."""
    await east.lineage.begin("ada", "")
    assert not await east.goes_on(), "nobody vouches for anything of it yet"
    await east.asks(Side.NEW, offline=True)
    assert east.row.wanted == east.row.request != b""
    first = load_der(await east.sign(Side.OLD))
    signed = root_word.signed(east.row, first, east.roots)
    assert signed is not None
    east.row = signed
    assert (east.row.rooted, east.row.wanted) == (der(first), east.row.next_request)
    await east.lineage.accept_root_signed(first, *east.roots)
    assert east.publishes(), "the first version is vouched for, and the second follows from it"
    second = load_der(await east.sign(Side.NEW))
    signed = root_word.signed(east.row, second, east.roots)
    assert signed is not None
    assert (signed.next_rooted, signed.waits) == (der(second), False)
    assert root_word.signed(signed, second, east.roots) is None, "nobody waits for that any more"


async def test_a_request_outlives_the_rotation_that_it_came_from(east: Member) -> None:
    await rooted(east)
    await east.lineage.begin("ada", "")
    await east.asks(Side.NEW, offline=True)
    request = east.row.next_request
    for _ in range(3):
        assert await east.goes_on()
    assert (east.row.request, east.row.rooted, east.row.waits) == (request, b"", True)
    assert root_word.withdrawn(east.row).waits is False


async def test_whoever_asks_for_the_one_of_now_has_given_the_next_one_up(east: Member) -> None:
    """It was given up before anybody heard of it in a bundle."""
    word = await rooted(east)
    await east.lineage.begin("ada", "")
    await east.asks(Side.NEW)
    assert await east.turns_back()
    assert east.row.next_rooted, "nobody has said anything yet"
    await east.asks(Side.OLD, offline=True)
    assert (east.row.rooted, east.row.next_rooted, east.row.next_anchor) == (word, b"", b"")
    assert east.row.waits


async def test_a_word_that_came_at_the_agent_is_known_from_its_bundle(east: Member) -> None:
    first = load_der(await east.sign(Side.OLD))
    await east.lineage.accept_root_signed(first, *east.roots)
    assert east.publishes()
    assert (east.row.rooted, east.row.waits) == (der(first), False)


async def test_the_word_of_somebody_elses_root_is_not_kept(east: Member, tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    evil = await RootAuthority.create(tmp_path / "evil", FileKeyStore(tmp_path / "evil-keys"), BASE, clock)
    forged = await evil.sign_cluster_ca(await east.lineage.csr(), EAST, who="", why="")
    assert root_word.signed(east.row, forged, east.roots) is None
    shown = east.lineage.bundle()
    shown = replace(shown, proof=replace(shown.proof, rooted=(forged,)))
    assert root_word.published(east.row, None, shown, east.roots) == east.row
    await evil.close()


async def test_a_row_that_had_one_place_for_both_is_put_in_order(east: Member) -> None:
    """As an older version wrote it in the middle of a rotation."""
    word = await rooted(east)
    await east.lineage.begin("ada", "")
    await east.goes_on()
    following = await east.sign(Side.NEW)
    new = der(east.lineage.authorities[Side.NEW].self_signed)
    old_row = msgspec.structs.replace(east.row, rooted=following, anchor=new, request=b"")
    found = root_word.in_place(old_row, east.roots)
    assert (found.rooted, found.next_rooted, found.next_anchor) == (word, following, new)
    assert root_word.in_place(found, east.roots) == found
    stored: dict[str, object] = msgspec.json.decode(msgspec.json.encode(east.row))
    for name in ("next_rooted", "next_anchor", "next_request"):
        del stored[name]
    assert msgspec.json.decode(msgspec.json.encode(stored), type=MemberRow) == east.row
