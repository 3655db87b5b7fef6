"""The root's word for authorities that follow: what is signed, what is not, and what waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import ManualClock
from federation.member_row import MemberRow
from federation.registry import AuthorityRow, Registry
from federation.root_request import RootRequest
from federation.store import MemoryStore
from federation.successors import LONGEST, Successors
from pki import issue
from pki.algorithms import spki_hash
from pki.certificate import der, load_der, public_key
from pki.errors import KeyFileError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.rooted import is_rooted
from pki.rotation import Side, abort
from pki.spiffe import TrustDomain
from tests.federation.world import NOW
from tests.pki.world import BASE, new_key, serial

EAST = TrustDomain.of_cluster("east", BASE)


@dataclass
class Hub:
    """What `Successors` is joined to: a row of `east`, and a root that may be away, or offline."""

    root: RootAuthority
    registry: Registry
    clock: ManualClock
    row: MemberRow
    newest: AuthorityRow
    away: bool = False
    offline: bool = False
    kept: int = 0
    successors: Successors = field(init=False)

    def __post_init__(self) -> None:
        self.registry._rows["east"] = (self.row, 1)
        self.registry._authorities["east"] = self.newest
        self.successors = Successors(BASE, self.registry, self, self.keep, self.clock)

    @property
    def base(self) -> str:
        return BASE

    @property
    def certificate(self) -> x509.Certificate:
        return self.root.certificate

    async def ready(self) -> None: ...

    async def check_cluster_ca(self, request: bytes, trust_domain: TrustDomain) -> ec.EllipticCurvePublicKey:
        return await self.root.check_cluster_ca(request, trust_domain)

    async def close(self) -> None: ...

    async def sign_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str
    ) -> x509.Certificate | None:
        if self.away:
            raise KeyFileError(Path("root"), "is away")
        if self.offline:
            return None
        return await self.root.sign_cluster_ca(request, trust_domain, who=who, why=why)

    async def keep(
        self, name: str, changed: Callable[[MemberRow], MemberRow | None], newest: AuthorityRow
    ) -> None:
        after = changed(self.registry.rows[name])
        if after is not None:
            self.kept += 1
            self.registry._rows[name] = (after, 1)
            self.registry._authorities[name] = newest

    @property
    def east(self) -> MemberRow:
        return self.registry.rows["east"]


@pytest.fixture
async def lineage(tmp_path: Path) -> AsyncIterator[Lineage]:
    """East's, with an authority that is to follow."""
    made = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "east-keys"), EAST, ManualClock(NOW))
    await made.begin("ada", "")
    yield made
    await made.close()


@pytest.fixture
async def hub(tmp_path: Path, lineage: Lineage) -> AsyncIterator[Hub]:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    old = lineage.authorities[Side.OLD].self_signed
    key = spki_hash(public_key(old))
    row = MemberRow(
        name="east", may_export=(), ranges=(), joined_at=NOW, key=key, epoch=1, anchor=der(old), rooted=b""
    )
    made = Hub(root, Registry(MemoryStore()), clock, row, AuthorityRow(key, 1))
    yield made
    await made.successors.close()
    await root.close()


async def request(lineage: Lineage, side: Side = Side.NEW, owner: str = "east") -> RootRequest:
    authority = lineage.authorities[side]
    return RootRequest(owner, await authority.csr(), der(authority.self_signed))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_next_authority_is_signed_once(hub: Hub, lineage: Lineage) -> None:
    asked = await request(lineage)
    hub.successors.hear(asked)
    hub.successors.hear(asked)
    await eventually(lambda: hub.kept == 1)
    anchor = lineage.authorities[Side.NEW].self_signed
    assert is_rooted(anchor, load_der(hub.east.next_rooted), hub.root.certificate)
    assert (hub.east.next_anchor, hub.east.waits) == (der(anchor), False)
    assert (hub.east.anchor, hub.east.rooted) == (hub.row.anchor, hub.row.rooted), "what counts now stays"
    newest = hub.registry.authority("east")
    assert newest is not None
    assert newest.epoch == 2
    hub.successors.hear(asked)
    await asyncio.sleep(0)
    assert hub.kept == 1


async def test_while_the_root_is_away_it_is_tried_again(hub: Hub, lineage: Lineage) -> None:
    hub.away = True
    hub.successors.hear(await request(lineage))
    await eventually(lambda: bool(hub.clock.sleepers))
    assert hub.kept == 0
    hub.away = False
    hub.clock.advance(LONGEST)
    await eventually(lambda: hub.kept == 1)


async def test_what_an_offline_root_is_to_sign_waits_in_the_registry(hub: Hub, lineage: Lineage) -> None:
    hub.offline = True
    asked = await request(lineage)
    hub.successors.hear(asked)
    await eventually(lambda: hub.kept == 1)
    assert (hub.east.next_request, hub.east.next_rooted) == (asked.csr, b"")


async def test_whoever_asks_no_more_is_forgotten(hub: Hub, lineage: Lineage) -> None:
    hub.away = True
    hub.successors.hear(await request(lineage))
    await eventually(lambda: bool(hub.clock.sleepers))
    hub.successors.forget("east")
    hub.successors.forget("nobody")
    hub.away = False
    hub.clock.advance(LONGEST)
    await asyncio.sleep(0.05)
    assert hub.kept == 0


async def test_nothing_else_is_signed(hub: Hub, lineage: Lineage, tmp_path: Path) -> None:
    good = await request(lineage)
    west = await Lineage.open(
        tmp_path / "west",
        FileKeyStore(tmp_path / "west-keys"),
        TrustDomain.of_cluster("west", BASE),
        hub.clock,
    )
    other_key = new_key()
    stolen = issue.sign(issue.cluster_authority(EAST, 2, other_key.public_key(), serial(), NOW), other_key)
    for refused in (
        RootRequest("nobody", good.csr, good.anchor),
        RootRequest("east", b"nonsense", good.anchor),
        RootRequest("east", good.csr, b"nonsense"),
        RootRequest("east", good.csr, der(stolen)),
        RootRequest("east", good.csr, der(lineage.authorities[Side.OLD].self_signed)),
        await request(west, Side.OLD),
    ):
        hub.successors.hear(refused)
    await asyncio.sleep(0.05)
    assert hub.kept == 0
    await west.close()


async def test_what_is_signed_after_somebody_else_has_the_name_is_not_kept(
    hub: Hub, lineage: Lineage
) -> None:
    hub.away = True
    hub.successors.hear(await request(lineage))
    await eventually(lambda: bool(hub.clock.sleepers))
    later = msgspec.structs.replace(hub.row, joined_at=NOW + timedelta(minutes=1), key="another")
    hub.registry._rows["east"] = (later, 2)
    hub.away = False
    hub.clock.advance(LONGEST)
    await asyncio.sleep(0.1)
    assert hub.kept == 0
    assert hub.east == later


async def test_a_name_is_not_used_up_by_one_request(hub: Hub, tmp_path: Path) -> None:
    greedy = await Lineage.open(
        tmp_path / "greedy", FileKeyStore(tmp_path / "greedy-keys"), EAST, hub.clock, epoch=999_999
    )
    hub.successors.hear(await request(greedy, Side.OLD))
    await asyncio.sleep(0.05)
    assert hub.kept == 0
    await greedy.close()


async def test_an_epoch_that_the_name_has_had_goes_to_no_other_key(
    hub: Hub, lineage: Lineage, tmp_path: Path
) -> None:
    hub.successors.hear(await request(lineage))
    await eventually(lambda: hub.kept == 1)
    thief = await Lineage.open(
        tmp_path / "thief", FileKeyStore(tmp_path / "thief-keys"), EAST, hub.clock, epoch=2
    )
    hub.successors.hear(await request(thief, Side.OLD))
    await asyncio.sleep(0.05)
    assert hub.kept == 1
    await thief.close()


async def test_a_later_request_takes_the_place_of_one_that_still_waits(hub: Hub, lineage: Lineage) -> None:
    hub.away = True
    hub.successors.hear(await request(lineage))
    await eventually(lambda: bool(hub.clock.sleepers))
    rotation = lineage.rotation
    assert rotation is not None
    back = abort(rotation)
    assert back is not None
    await lineage.enter(back)
    await lineage.begin("ada", "")
    hub.away = False
    hub.successors.hear(await request(lineage))
    await eventually(lambda: hub.kept == 1)
    newest = hub.registry.authority("east")
    assert newest is not None
    assert newest.epoch == 3
    hub.clock.advance(timedelta(minutes=5).total_seconds())
    await asyncio.sleep(0.05)
    assert hub.kept == 1
