"""What an agent recognises hub and roots by: newer only by signatures, held only when it is on disk, and never back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.clock import ManualClock
from federation.errors import FederationError
from federation.events import TrustTold
from federation.join import Membership
from federation.listen import HostPort
from federation.trust import FILE, Trust
from pki import durable
from pki.bundle import UNNUMBERED, Accepted, Bundle, Rejected
from pki.certificate import subject_key_id
from pki.errors import WriteError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root_lineage import RootLineage
from pki.rotation import Phase, advance
from pki.spiffe import TrustDomain
from pki.succession import Succession
from tests.federation.world import NOW
from tests.pki.world import BASE, StoppedClock

CLOCK = ManualClock(NOW)


@dataclass
class World:
    folder: Path
    root: RootLineage
    hub: Lineage

    def member(self) -> Membership:
        """As it joins now."""
        return Membership(
            BASE,
            HostPort("127.0.0.1:1"),
            NOW,
            self.root.certificate,
            self.hub.bundle(),
            "",
            "https://127.0.0.1:1",
        )

    def told(self) -> TrustTold:
        return TrustTold(self.root.bundle(), subject_key_id(self.root.certificate))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = StoppedClock()
    root = await RootLineage.open(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    domain = TrustDomain.of_hub(BASE)
    hub = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), domain, clock)
    (tmp_path / "agent").mkdir(mode=0o700)
    yield World(tmp_path / "agent", root, hub)
    await hub.close()
    await root.close()


async def on(lineage: Succession[Any], until: Phase) -> None:
    if lineage.rotation is None or lineage.rotation.over:
        await lineage.begin("ada", "")
    while lineage.rotation is not None and lineage.rotation.phase is not until:
        await lineage.enter(advance(lineage.rotation, frozenset(), {}))


async def test_what_a_hub_tells_is_used_at_once_and_held_when_it_is_on_disk(world: World) -> None:
    member = world.member()
    trust = Trust.open(world.folder, member, CLOCK)
    assert trust.roots.sequence == UNNUMBERED
    assert set(trust.held()) == {f"hub.{BASE}"}, "what has no number is not told to be held"
    await on(world.root, Phase.ACTIVE)
    await on(world.hub, Phase.PUBLISHED)
    trust.hear(world.told())
    trust.hear(TrustTold(world.hub.bundle()))
    assert (len(trust.roots.anchors), len(trust.hub.anchors)) == (2, 2)
    assert trust.root == world.root.certificate, "the one that signs now"
    assert trust.held() == {f"hub.{BASE}": (1, 1)}
    await trust.write()
    assert trust.held() == {f"hub.{BASE}": (1, 2), BASE: (1, 2)}
    again = Trust.open(world.folder, member, CLOCK)
    assert (again.hub, again.roots) == (trust.hub, trust.roots)


async def test_other_roots_are_not_believed_and_change_nothing(world: World, tmp_path: Path) -> None:
    trust = Trust.open(world.folder, world.member(), CLOCK)
    trust.hear(world.told())
    evil = await RootLineage.open(
        tmp_path / "evil", FileKeyStore(tmp_path / "evil-keys"), BASE, StoppedClock()
    )
    try:
        await on(evil, Phase.ACTIVE)
        before = trust.roots, trust.issuing
        trust.hear(TrustTold(evil.bundle(), subject_key_id(evil.certificate)))
        assert (trust.roots, trust.issuing) == before
        assert isinstance(trust.accept(None, evil.bundle()), Rejected)
        (problem,) = trust.problems()
        assert f"other anchors of {BASE}" in problem
        trust.hear(world.told())
        assert not trust.problems(), "it goes by ours again"
    finally:
        await evil.close()


async def test_nothing_leads_back(world: World) -> None:
    member, first = world.member(), world.told()
    trust = Trust.open(world.folder, member, CLOCK)
    await on(world.root, Phase.DONE)
    trust.hear(world.told())
    await trust.write()
    trust.hear(first)
    assert trust.roots == world.root.bundle()
    assert Trust.open(world.folder, member, CLOCK).roots == world.root.bundle()


async def test_a_join_that_pins_a_later_root_begins_with_that_one(world: World) -> None:
    trust = Trust.open(world.folder, world.member(), CLOCK)
    trust.hear(world.told())
    await trust.write()
    await on(world.root, Phase.DONE)
    await on(world.hub, Phase.DONE)
    later = Trust.open(world.folder, world.member(), CLOCK)
    assert later.roots == Bundle(TrustDomain.parse(BASE), UNNUMBERED, (world.root.certificate,))
    assert later.hub == world.hub.bundle()
    assert isinstance(later.accept(None, world.root.bundle()), Accepted)


async def test_what_cannot_be_written_is_said_and_not_held(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust.open(world.folder, world.member(), CLOCK)
    trust.hear(world.told())

    def full(path: Path, data: bytes, **_: Any) -> None:
        raise WriteError(path, "ENOSPC")

    monkeypatch.setattr(durable, "write", full)
    with pytest.raises(WriteError):
        await trust.write()
    assert BASE not in trust.held()


async def test_a_damaged_file_is_said(world: World) -> None:
    durable.write(world.folder / FILE, b"{")
    with pytest.raises(FederationError, match=r"trust\.json cannot be read"):
        Trust.open(world.folder, world.member(), CLOCK)
