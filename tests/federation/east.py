"""The agent of a cluster `east` as far as a rotation concerns it: its authority, its gateways and what it has heard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from federation.api.inward import Inward
from federation.api.rotation_routes import RotationRoutes
from federation.attest import Instances
from federation.clock import ManualClock
from federation.cluster_realm import ClusterRealm
from federation.gateways import Gateways
from federation.identity import Identity
from federation.orders import Allowed, Orders
from federation.rotating import Rotating
from federation.store import MemoryStore
from federation.sync.publisher import Publisher
from federation.trust import Trust
from pki.bundle import UNNUMBERED, Bundle
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.lives import Life
from tests.federation.world import BASE, NOW, joined
from tests.pki.world import World

EAST = TrustDomain.of_cluster("east", BASE)


@dataclass
class East:
    """What such an agent is made of. Of its hub's orders it takes 3 a day."""

    life: Life
    lineage: Lineage
    identity: Identity
    instances: Instances
    gateways: Gateways
    realm: ClusterRealm
    rotating: Rotating
    inward: Inward
    clock: ManualClock

    @classmethod
    async def new(cls, folder: Path, world: World) -> Self:
        """A new one in `folder`, under the root of `world`; whoever asked closes the lineage."""
        clock = ManualClock(NOW)
        lineage = await Lineage.open(folder / "ca", FileKeyStore(folder / "keys"), EAST, clock)
        identity = Identity(lineage, SpiffeId.agent(EAST), folder / "leaf.pem", timedelta(hours=1), clock)
        await identity.start()
        life = await Life.begin(MemoryStore(), joined("east"))
        life.agent.services_listed()
        instances = Instances(MemoryStore())
        gateways = Gateways(life.agent, lineage.bundle, instances, clock, lineage.certified)
        roots = Bundle(TrustDomain.parse(BASE), UNNUMBERED, (world.root,))
        trust = Trust(folder / "trust.json", world.root, world.hub.bundle, roots, clock)
        realm = ClusterRealm(lineage, identity, gateways, life.agent, Publisher("east", 1), trust, clock)
        rotating = Rotating(realm, clock)
        orders = Orders.open(folder, Allowed(a_day=3), clock)
        inward = Inward(RotationRoutes(rotating, cluster="east", orders=orders).routes())
        return cls(life, lineage, identity, instances, gateways, realm, rotating, inward, clock)
