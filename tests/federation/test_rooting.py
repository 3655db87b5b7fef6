"""Which word of a root an agent keeps: of one that it goes by, for a key that it holds, and never one from before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509

from federation.clock import ManualClock
from federation.events import MemberChanged, TrustTold
from federation.rooting import Rooting
from pki.certificate import authority_key_id, der, subject_key_id
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root_lineage import RootLineage
from pki.rotation import Side
from pki.spiffe import TrustDomain
from tests.federation.lives import eventually
from tests.federation.world import BASE, NOW, member
from tests.pki.rotations import begun, go_on

EAST, WEST = (TrustDomain.of_cluster(name, BASE) for name in ("east", "west"))


@dataclass
class World:
    """East, the roots that it goes by, and the one of which it has heard that it signs."""

    root: RootLineage
    east: Lineage
    issuing: bytes = b""
    presented: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rooting = Rooting(
            "east", self.east, lambda: self.root.bundle().anchors, lambda: self.issuing, self._presents
        )

    def _presents(self) -> None:
        assert self.east.root_signed is not None
        self.presented.append(authority_key_id(self.east.root_signed) or b"")

    async def sign(self, side: Side = Side.OLD) -> x509.Certificate:
        return await self.root.sign_cluster_ca(await self.east.csr(side), EAST, who="east", why="test")

    async def following(self) -> bytes:
        """Another root signs from now on; its key identifier."""
        for step in (begun, go_on, go_on):
            await step(self.root)
        return subject_key_id(self.root.certificate) or b""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock(NOW)
    root = await RootLineage.open(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    east = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "keys"), EAST, clock)
    yield World(root, east)
    await east.close()
    await root.close()


async def test_the_first_word_is_kept_whoever_of_the_roots_it_is_and_leaves_are_to_present_it(
    world: World,
) -> None:
    form = await world.sign()
    for _ in range(2):
        await world.rooting.take(der(form))
    assert world.east.root_signed == form
    assert world.presented == [authority_key_id(form)]


async def test_the_word_of_the_root_that_signs_takes_the_place_of_another_ones_and_never_back(
    world: World,
) -> None:
    old = await world.sign()
    await world.rooting.take(der(old))
    following = await world.following()
    new = await world.sign()
    await world.rooting.take(der(new))
    assert world.east.root_signed == old, "nobody has said that this root signs"
    world.issuing = following
    await world.rooting.take(der(new))
    assert world.east.root_signed == new
    await world.rooting.take(der(old))
    assert world.east.root_signed == new
    await world.rooting.take(der(new))
    assert world.presented == [authority_key_id(old), following], "what is there already is no news"


async def test_each_authority_of_a_rotation_has_a_word_of_its_own(world: World) -> None:
    await world.rooting.take(der(await world.sign()))
    await begun(world.east)
    await go_on(world.east)
    world.presented.clear()
    second = await world.sign(Side.NEW)
    await world.rooting.take(der(second))
    assert world.east.authorities[Side.NEW].root_signed == second
    assert world.east.authorities[Side.OLD].root_signed not in (None, second)
    assert world.presented == [], "it issues nothing yet"


async def test_what_is_not_ours_or_not_the_roots_changes_nothing(world: World, tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    evil = await RootLineage.open(tmp_path / "evil", FileKeyStore(tmp_path / "evil-keys"), BASE, clock)
    west = await Lineage.open(tmp_path / "west", FileKeyStore(tmp_path / "west-keys"), WEST, clock)
    try:
        forged = await evil.sign_cluster_ca(await world.east.csr(), EAST, who="east", why="test")
        others = await world.root.sign_cluster_ca(await west.csr(), WEST, who="west", why="test")
        for told in (der(forged), der(others), der(world.east.self_signed), b"nonsense", b""):
            await world.rooting.take(told)
            assert world.east.root_signed is None
    finally:
        await evil.close()
        await west.close()


async def test_what_was_told_too_early_is_looked_at_again_when_another_root_signs(world: World) -> None:
    old = await world.sign()
    await world.rooting.take(der(old))
    following = await world.following()
    new = await world.sign()
    task = asyncio.create_task(world.rooting.run(), name="rooting")
    try:
        world.rooting.hear(MemberChanged(replace(member("west"), rooted=der(old))))
        world.rooting.hear(MemberChanged(replace(member("east"), rooted=der(new))))
        await asyncio.sleep(0)
        assert world.east.root_signed == old
        world.issuing = following
        world.rooting.hear(TrustTold(world.root.bundle(), following))
        await eventually(lambda: world.east.root_signed == new)
        assert world.presented == [authority_key_id(old), following]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
