"""What a cluster says that it holds goes out signed, once for each change, by whoever issues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import ManualClock
from federation.evidence import lack
from federation.held import Held, Version, digest
from federation.holding import SIGN_AGAIN_AFTER, Holding
from federation.sync import codec
from federation.sync.publisher import Publisher
from pki.bundle import Bundle
from pki.errors import KeyFileError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.rotation import Lack, Phase, advance
from pki.spiffe import TrustDomain
from tests.federation.world import BASE, NOW
from tests.pki.world import make_world

EAST = TrustDomain.of_cluster("east", BASE)
WEST: dict[str, Version] = {"west.mesh.example": (1, 2)}
NEWEST = Bundle(TrustDomain.of_cluster("west", BASE), 3, (make_world().west.self_signed,))


@dataclass
class Cluster:
    lineage: Lineage
    publisher: Publisher
    holding: Holding
    clock: ManualClock

    async def tell(self, **versions: Version) -> None:
        named = {f"{name}.mesh.example": version for name, version in versions.items()}
        await self.holding.tell(named, (NEWEST,), (b"root",))

    def said(self) -> Held:
        item = self.publisher.feed.items[codec.HELD]
        found = codec.decode("east", self.publisher.feed.epoch, item.body, BASE)
        assert isinstance(found, Held)
        return found

    def lack(self, bundle: Bundle | None = None) -> Lack | None:
        return lack(self.said(), bundle or self.lineage.bundle())

    async def go_on(self) -> Phase:
        assert self.lineage.rotation is not None
        await self.lineage.enter(advance(self.lineage.rotation, frozenset(), {}))
        return self.lineage.rotation.phase


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Cluster]:
    clock = ManualClock(NOW)
    lineage = await Lineage.open(tmp_path / "ca", FileKeyStore(tmp_path / "keys"), EAST, clock)
    publisher = Publisher("east", 1)
    publisher.begin(2)
    yield Cluster(lineage, publisher, Holding(lineage, publisher, clock), clock)
    await lineage.close()


async def test_what_changed_is_signed_and_said_once(east: Cluster) -> None:
    await east.tell(west=(1, 2))
    assert east.lack() is None
    first, seq = east.said(), east.publisher.feed.seq
    assert first.bundles == (("west.mesh.example", 1, 2),)
    assert first.roots == (b"root",)
    assert first.digests == (), "what it holds is not the newest that it knows"
    await east.tell(west=(1, 2))
    assert east.publisher.feed.seq == seq, "saying the same again is no news"
    await east.tell(west=(1, 3), central=(1, 1))
    assert east.said().stamp > first.stamp
    assert east.said().digests == (("west.mesh.example", digest(NEWEST)),)
    assert east.said().digest("west.mesh.example") == digest(NEWEST)
    assert east.lack() is None
    await east.tell(central=(1, 1))
    assert east.said().bundles == (("central.mesh.example", 1, 1),), "it may hold less than before, too"
    assert east.lack() is None


async def test_what_is_said_in_a_new_epoch_is_newer_than_all_before(east: Cluster) -> None:
    await east.tell(west=(1, 2))
    await east.tell(west=(1, 3))
    before = east.said().stamp
    east.publisher.begin(3)
    await east.tell(west=(1, 3))
    assert east.said().stamp[0] == 3
    assert east.said().stamp > before
    assert east.lack() is None


async def test_nothing_is_said_to_nobody(east: Cluster) -> None:
    silent = Publisher("east", 1)
    await Holding(east.lineage, silent, east.clock).tell(WEST, (), ())
    assert codec.HELD not in silent.feed.items


async def test_in_each_phase_whoever_holds_its_anchors_can_verify_it(east: Cluster) -> None:
    await east.lineage.begin("ada", "yearly")
    before = east.lineage.bundle()
    await east.tell(west=(1, 2))
    while east.lineage.rotation is not None and not east.lineage.rotation.over:
        phase = await east.go_on()
        await east.tell(west=(1, 2))
        assert east.lack() is None, phase
        if phase is Phase.PUBLISHED:
            assert east.lack(before) is None, (
                "who has not heard of the next one yet holds this phase up by name"
            )
        before = east.lineage.bundle() if phase is not Phase.RETIRING else before
        if phase is Phase.RETIRING:
            assert east.lack(before) is None, "and who has not let go of the one before"


async def test_a_key_that_cannot_sign_takes_the_word_before_back(
    east: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that came without the anchors makes the word before untrue, whether or not that can be signed."""
    await east.tell(west=(1, 2))
    authority = east.lineage.issuer
    honest = authority.sign_statement

    async def away(*_: object) -> bytes:
        raise KeyFileError(Path("vault"), "does not answer")

    monkeypatch.setattr(authority, "sign_statement", away)
    await east.tell()
    assert east.lack() is Lack.SIGNATURE
    assert east.said().bundles == ()
    assert east.holding.problem is not None
    assert "does not answer" in east.holding.problem
    monkeypatch.setattr(authority, "sign_statement", honest)
    await east.tell()
    assert east.lack() is Lack.SIGNATURE, "the key is left alone for a while"
    east.clock.advance(SIGN_AGAIN_AFTER / timedelta(seconds=1))
    await east.tell()
    assert east.lack() is None
    assert east.holding.problem is None


async def test_what_was_signed_before_is_signed_again_if_something_else_could_not_be_in_between(
    east: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await east.tell(west=(1, 2))
    authority = east.lineage.issuer

    async def away(*_: object) -> bytes:
        raise KeyFileError(Path("vault"), "does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(authority, "sign_statement", away)
        await east.tell()
    east.clock.advance(SIGN_AGAIN_AFTER / timedelta(seconds=1))
    await east.tell(west=(1, 2))
    assert east.said().bundles == (("west.mesh.example", 1, 2),)
    assert east.lack() is None
    assert east.holding.problem is None


async def test_a_key_is_left_alone_no_longer_because_the_clock_was_wrong(
    east: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = east.lineage.issuer

    async def away(*_: object) -> bytes:
        raise KeyFileError(Path("vault"), "does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(authority, "sign_statement", away)
        broken.setattr(east.clock, "now", lambda: NOW + timedelta(days=2))
        await east.tell(west=(1, 2))
    assert east.lack() is Lack.SIGNATURE
    east.clock.advance(SIGN_AGAIN_AFTER / timedelta(seconds=1))
    await east.tell(west=(1, 2))
    assert east.lack() is None


async def test_the_signature_is_by_the_key_of_the_authority_over_all_of_it(east: Cluster) -> None:
    await east.tell(west=(1, 2))
    key = east.lineage.self_signed.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for forged in (
        replace(east.said(), bundles=(("west.mesh.example", 1, 3),)),
        replace(east.said(), roots=()),
        replace(east.said(), digests=(("west.mesh.example", digest(NEWEST)),)),
        replace(east.said(), stamp=(99, 1)),
    ):
        assert lack(forged, east.lineage.bundle()) is Lack.PROOF
