"""The hub's list of what its root has revoked: on disk, current, and never older than what was signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from federation.api.ban_routes import BanRoutes, Revoke
from federation.api.routes import Access, ApiProblem, Call, Principal
from federation.bans import BanStore
from federation.clock import ManualClock
from federation.errors import FederationError, InvalidValue
from federation.revocation_list import FILE, LIST_TYPE, LOOK_EVERY, RevocationList
from federation.store import MemoryStore
from pki import durable, revocation
from pki.algorithms import spki_hash
from pki.certificate import public_key
from pki.errors import WriteError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.revocation import DUE_AFTER, Reason
from pki.root import RootAuthority
from pki.spiffe import TrustDomain
from tests.pki.world import BASE, NOW

ADA = Principal("ada", Access.OPERATOR)


class Hub:
    def __init__(self, folder: Path, root: RootAuthority, clock: ManualClock) -> None:
        self.folder, self.root, self.clock = folder, root, clock
        self.in_use: frozenset[str] = frozenset()
        self.restart()

    def restart(self) -> None:
        self.list = RevocationList(
            lambda: self.root.revocations(self.clock), self.folder / "root", self.clock
        )
        self.routes = BanRoutes(
            BanStore(MemoryStore(), BASE, self.clock.now),
            self.list,
            BASE,
            lambda _: True,
            lambda _: self.in_use,
            dict,
        )

    @property
    def current(self) -> x509.CertificateRevocationList:
        assert self.list.current is not None
        return self.list.current

    @property
    def number(self) -> int:
        return revocation.number_of(self.current)

    async def join(self, name: str, times: int = 1, epoch: int = 1) -> list[x509.Certificate]:
        domain = TrustDomain.of_cluster(name, BASE)
        home = f"{name}-{epoch}"
        keys = FileKeyStore(self.folder / f"{home}-keys")
        authority = await Lineage.open(self.folder / home, keys, domain, self.clock, epoch)
        try:
            request = await authority.csr()
            return [
                await self.root.sign_cluster_ca(request, domain, who=name, why="test") for _ in range(times)
            ]
        finally:
            await authority.close()

    async def revoke(self, cluster: str, serial: str | None = None, *, every: bool = False) -> str:
        body = Revoke(cluster=cluster, serial=serial, all=every, reason="key-compromise", why="stolen")
        return (await self.routes.revoke(Call(ADA, body=body))).done


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    clock = ManualClock(NOW)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    made = Hub(tmp_path, root, clock)
    yield made
    await root.close()


async def test_there_is_a_list_from_the_first_start_and_a_restart_makes_no_new_one(hub: Hub) -> None:
    assert hub.list.file() is None
    await hub.list.start()
    assert (hub.number, len(hub.current)) == (1, 0)
    kind, data = hub.list.file() or pytest.fail("there is no list")
    assert (kind, data) == (LIST_TYPE, (hub.folder / "root" / FILE).read_bytes())
    hub.restart()
    await hub.list.start()
    assert hub.number == 1


@pytest.mark.parametrize("kind", ["gone", "damaged", "older"])
async def test_a_list_on_disk_that_is_not_the_newest_is_not_published(hub: Hub, kind: str) -> None:
    await hub.list.start()
    path = hub.folder / "root" / FILE
    before = path.read_bytes()
    await hub.join("west")
    await hub.revoke("west")
    match kind:
        case "gone":
            path.unlink()
        case "damaged":
            durable.write(path, b"nonsense")
        case _:
            durable.write(path, before)
    hub.restart()
    await hub.list.start()
    assert hub.number == 3
    assert len(hub.current) == 1


async def test_the_next_list_is_made_ahead_of_time(hub: Hub) -> None:
    await hub.list.start()
    running = asyncio.create_task(hub.list.run())
    try:
        for _ in range(int(DUE_AFTER.total_seconds() / LOOK_EVERY) + 1):
            assert hub.number == 1
            await asyncio.sleep(0)
            hub.clock.advance(LOOK_EVERY)
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while hub.number == 1:
                await asyncio.sleep(0.005)
    finally:
        running.cancel()
    assert hub.number == 2


async def test_a_list_that_cannot_be_made_is_told_and_the_revocation_stands(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hub.list.start()
    (west,) = await hub.join("west")

    def failing(path: Path, data: bytes, mode: int = 0o600) -> None:
        raise WriteError(path, "No space left on device")

    monkeypatch.setattr(durable, "write", failing)
    with pytest.raises(FederationError, match="No space left"):
        await hub.revoke("west")
    assert len(hub.current) == 0
    hub.restart()
    await hub.list.start()
    assert "No space left" in (hub.list.problem or "")
    monkeypatch.undo()
    hub.restart()
    await hub.list.start()
    assert [one.serial_number for one in hub.current] == [west.serial_number]
    assert hub.list.problem is None


async def test_the_authority_of_a_cluster_is_revoked_once_and_by_its_number_if_it_has_several(
    hub: Hub,
) -> None:
    await hub.list.start()
    first, second = await hub.join("west", times=2)
    with pytest.raises(ApiProblem, match=f"{first.serial_number:x}") as refused:
        await hub.revoke("west")
    assert refused.value.status == 400
    assert f"({', '.join(('epoch 1', f'until {first.not_valid_after_utc:%Y-%m-%d}'))})" in str(refused.value)
    number = f"{first.serial_number:040X}"
    done = await hub.revoke("west", ":".join(number[at : at + 2] for at in range(0, 40, 2)))
    assert f"{first.serial_number:x} of west is revoked" in done
    await hub.revoke("west")
    assert {one.serial_number for one in hub.current} == {first.serial_number, second.serial_number}
    for cluster in ("west", "east"):
        with pytest.raises(ApiProblem) as missing:
            await hub.revoke(cluster)
        assert missing.value.status == 404
    told = await hub.routes.crl(Call(ADA))
    assert {(one.reason, one.who, one.why) for one in told.revoked} == {("key-compromise", "ada", "stolen")}
    assert {one.identity for one in told.revoked} == {TrustDomain.of_cluster("west", BASE).uri}
    with pytest.raises(ApiProblem, match="cluster"):
        await hub.revoke("We st")


async def test_all_living_authorities_of_a_cluster_are_revoked_at_once_each_with_a_line_of_its_own(
    hub: Hub,
) -> None:
    await hub.list.start()
    (east,), west = await hub.join("east"), {one.serial_number for one in await hub.join("west", times=3)}
    before = hub.root.head.lines
    done = await hub.revoke("west", every=True)
    assert all(f"{serial:x}" in done for serial in west)
    assert {one.serial_number for one in hub.current} == west
    assert {int(one.serial, 16) for one in hub.list.revocations.revoked()} == west
    assert hub.root.head.lines == before + len(west) + len(("the list that says so",))
    with pytest.raises(ApiProblem) as missing:
        await hub.revoke("west", every=True)
    assert missing.value.status == 404
    assert [one.serial for one in hub.list.revocations.living()] == [east.serial_number]


async def test_who_is_to_choose_is_told_which_are_in_use_and_how_to_name_one_or_all(hub: Hub) -> None:
    await hub.list.start()
    (first,), (second,) = await hub.join("west"), await hub.join("west", epoch=2)
    hub.in_use = frozenset({spki_hash(public_key(second))})
    with pytest.raises(ApiProblem) as refused:
        await hub.revoke("west")
    until = f"{first.not_valid_after_utc:%Y-%m-%d}"
    assert f"{first.serial_number:x} (epoch 1, until {until})" in str(refused.value)
    assert f"{second.serial_number:x} (epoch 2, until {until}, in use)" in str(refused.value)
    assert "--serial" in refused.value.hint
    assert "--all" in refused.value.hint
    with pytest.raises(InvalidValue, match="all: "):
        await hub.revoke("west", f"{first.serial_number:x}", every=True)
    assert len(hub.current) == 0


async def test_whose_certificate_was_revoked_is_known_after_it_has_ended_and_a_restart(
    hub: Hub, tmp_path: Path
) -> None:
    await hub.list.start()
    await hub.join("west")
    await hub.revoke("west")
    hub.clock.advance(timedelta(days=800).total_seconds())
    assert [one.profile for one in hub.root.ledger(hub.clock.now())] == ["root"]
    for _ in range(2):
        (told,) = (await hub.routes.crl(Call(ADA))).revoked
        assert told.identity == TrustDomain.of_cluster("west", BASE).uri
        await hub.root.close()
        hub.root = await RootAuthority.load(
            tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, hub.clock
        )
        hub.restart()
        await hub.list.start()


async def test_a_reason_that_would_steer_a_terminal_is_refused_before_anything_is_revoked(hub: Hub) -> None:
    await hub.list.start()
    await hub.join("west")
    for why in ("x" * 201, "a\x1b[2J", "two\nlines"):
        with pytest.raises(InvalidValue, match="why: it "):
            await hub.routes.revoke(Call(ADA, body=Revoke(cluster="west", reason="superseded", why=why)))
    assert (await hub.routes.crl(Call(ADA))).revoked == ()


async def test_a_root_whose_key_is_elsewhere_says_so(tmp_path: Path) -> None:
    elsewhere = RevocationList(None, tmp_path, ManualClock(NOW))
    await elsewhere.start()
    assert elsewhere.file() is None
    with pytest.raises(FederationError, match="not in this hub") as refused:
        await elsewhere.revoke([1], Reason.UNSPECIFIED, who="ada", why="x")
    assert "Vault" in refused.value.hint
