"""An issuer with a real authority and a real store of tokens, and workloads that ask it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import ManualClock
from federation.issuer import Issuer
from federation.store import MemoryStore
from federation.svid.demand import Answer, Demand, Given, Held, Secret, Vetted
from federation.svid.quota import Quota
from federation.tokens import TokenStore
from pki import token
from pki.algorithms import spki, spki_hash
from pki.certificate import load_der
from pki.keys.file import FileKeyStore
from pki.limits import UNLIMITED, Limits
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import BASE, new_key

EAST = TrustDomain.of_cluster("east", BASE)
CART = SpiffeId.workload(EAST, "shop", "cart")
AMPLE = Quota(1000.0, 1000.0)
GATEWAY = str(SpiffeId.gateway(EAST, "eastwest"))


class Cluster:
    def __init__(self, authority: Lineage, clock: ManualClock, limits: Limits, quota: Quota) -> None:
        self.authority, self.clock = authority, clock
        self.tokens = TokenStore(MemoryStore(), clock.now)
        self.issuer = Issuer(authority, self.tokens, limits, quota, clock)

    async def token(self, identity: SpiffeId = CART, kind: token.Kind = "workload") -> bytes:
        """The secret of a new token for a workload."""
        made, record = token.mint(
            os.urandom(token.SECRET_BYTES),
            self.clock.now(),
            kind=kind,
            url="https://127.0.0.1:8445",
            subject=identity.path,
            pin=bytes(32),
            lifetime=timedelta(minutes=10),
        )
        await self.tokens.add(record)
        return made.secret

    async def ask(self, *wishes: Vetted, request_id: bytes | None = None) -> Answer:
        return await self.issuer.issue(Demand(GATEWAY, "00" * 32, request_id or os.urandom(16), wishes))

    async def first(self, key: ec.EllipticCurvePrivateKey, identity: SpiffeId = CART) -> Given:
        """The first certificate of a workload."""
        answer = await self.ask(Vetted(spki(key.public_key()), Secret(await self.token(identity))))
        return given(answer)


def given(answer: Answer, place: int = 0) -> Given:
    outcome = answer.outcomes[place]
    assert isinstance(outcome, Given), outcome
    return outcome


def held(certificate: Given, key: ec.EllipticCurvePrivateKey) -> Held:
    return Held(f"{load_der(certificate.chain[0]).serial_number:x}", spki_hash(key.public_key()))


def wish(key: ec.EllipticCurvePrivateKey, proof: Held | Secret, lifetime: int | None = None) -> Vetted:
    return Vetted(spki(key.public_key()), proof, lifetime)


@asynccontextmanager
async def cluster(folder: Path, limits: Limits = UNLIMITED, quota: Quota = AMPLE) -> AsyncIterator[Cluster]:
    clock = ManualClock(datetime.now(UTC))  # real TLS has no other clock
    authority = await Lineage.open(folder / "authority", FileKeyStore(folder / "keys"), EAST, clock)
    root = await RootAuthority.create(folder / "root", FileKeyStore(folder / "root-keys"), BASE, clock)
    rooted = await root.sign_cluster_ca(await authority.csr(), EAST, who="test", why="test")
    await authority.accept_root_signed(rooted, root.certificate)
    await root.close()
    yield Cluster(authority, clock, limits, quota)
    await authority.close()


__all__ = ["CART", "EAST", "Cluster", "cluster", "given", "held", "new_key", "wish"]
