"""Whose certificates hold the rotation of the hub's authority up: those of operators who may still use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.access import OperatorStore
from federation.banned import BanKind
from federation.clock import ManualClock
from federation.hub import Hub
from federation.hub_realm import HubRealm
from federation.identity import Identity
from federation.registry import Registry
from federation.rotating import Rotating
from federation.store import MemoryStore
from federation.telemetry import HubMetrics
from pki.algorithms import spki_hash
from pki.authority import Issued
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.root_lineage import RootLineage
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.world import BASE, NOW

HUB = TrustDomain.of_hub(BASE)


class Site:
    """A hub without members, whose own authority is replaced."""

    def __init__(
        self, lineage: Lineage, root: RootLineage, hub: Hub, identity: Identity, clock: ManualClock
    ) -> None:
        self.lineage = lineage
        self.hub = hub
        self.operators = OperatorStore(hub.registry.store)
        self.realm = HubRealm(lineage, identity, hub, self.operators, root, clock)
        self.rotating = Rotating(self.realm, clock)

    async def operator(self, name: str) -> tuple[ec.EllipticCurvePublicKey, Issued]:
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        await self.operators.create(name, "operator", key=spki_hash(key))
        return key, await self.issue(name, key)

    async def issue(
        self, name: str, key: ec.EllipticCurvePublicKey, replaces: Issued | None = None
    ) -> Issued:
        by = Attestation.ADMINISTRATOR if replaces is None else Attestation.RENEWAL
        grant = decide(Attested(SpiffeId.operator(HUB, name), by), HUB)
        assert isinstance(grant, Grant)
        old = None if replaces is None else replaces.certificate
        return await self.lineage.issue(key, grant, who=name, why="test", replaces=old)

    async def phase_after(self, looks: int = 6) -> str | None:
        for _ in range(looks):
            await self.rotating.look()
        return self.rotating.status().phase

    def waits_for(self) -> list[str]:
        return [who for each in self.rotating.status().blocking for who in each.who]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    clock = ManualClock(NOW)
    root = await RootLineage.open(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    lineage = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), HUB, clock)
    rooted = await root.sign_cluster_ca(await lineage.csr(), HUB, who="hub", why="test")
    await lineage.accept_root_signed(rooted, root.certificate)
    day = timedelta(days=1)
    identity = Identity(lineage, SpiffeId.federation(HUB), tmp_path / "leaf.pem", day, clock)
    await identity.start()
    hub = Hub(Registry(MemoryStore()), lambda: (root.certificate,), BASE, clock, HubMetrics())
    await hub.start()
    yield Site(lineage, root, hub, identity, clock)
    await lineage.close()
    await root.close()


async def test_an_operator_is_waited_for_until_the_renewal(site: Site) -> None:
    key, old = await site.operator("ada")
    await site.rotating.start("test", "", manual=False)
    assert await site.phase_after() == "active"
    assert ["/operator/ada until" in who for who in site.waits_for()] == [True]
    (waits,) = site.rotating.status().blocking
    assert "federation operator remove" in waits.todo
    await site.issue("ada", key, old)
    assert await site.phase_after() == "done"


async def test_one_who_was_removed_is_not_waited_for(site: Site) -> None:
    await site.operator("ada")
    await site.operators.remove("ada")
    await site.rotating.start("test", "", manual=False)
    assert await site.phase_after() == "done"


async def test_to_remove_one_ends_the_wait_also_when_a_namesake_comes(site: Site) -> None:
    await site.operator("ada")
    await site.rotating.start("test", "", manual=False)
    assert await site.phase_after() == "active"
    await site.operators.remove("ada")
    await site.operator("ada")
    assert await site.phase_after() == "done"


@pytest.mark.parametrize("kind", [BanKind.KEY, BanKind.IDENTITY])
async def test_one_who_is_banned_is_not_waited_for(site: Site, kind: BanKind) -> None:
    key, _ = await site.operator("ada")
    await site.rotating.start("test", "", manual=False)
    assert await site.phase_after() == "active"
    subject = spki_hash(key) if kind is BanKind.KEY else str(SpiffeId.operator(HUB, "ada"))
    await site.hub.bans.ban(kind, subject, "a lost laptop")
    assert await site.phase_after() == "done"


async def test_a_renewal_that_was_lost_on_the_way_is_not_waited_for_once_there_is_another(site: Site) -> None:
    """Its answer never came, so the certificate before it was shown once more."""
    key, first = await site.operator("ada")
    await site.issue("ada", key, first)
    second = await site.issue("ada", key, first)
    await site.rotating.start("test", "", manual=False)
    assert await site.phase_after() == "active"
    await site.issue("ada", key, second)
    assert await site.phase_after() == "done"


async def test_before_the_operators_are_known_all_of_them_count(site: Site) -> None:
    """As right after a start: a step that an operator asks for then must not let go of anybody."""
    await site.operator("ada")
    await site.rotating.start("test", "", manual=True)
    for phase in ("prepared", "published"):
        await site.rotating.go_on(1, phase)
    assert site.waits_for()
