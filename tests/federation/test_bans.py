"""The hub's bans: on disk before anybody is told, the same after a restart, one change after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from federation.access import AgentAccess, HubAccess, OperatorStore
from federation.api.ban_routes import BanRoutes, EndBan, NewBan, at_an_agent
from federation.api.routes import Access, ApiProblem, Call, Principal
from federation.banned import MOST_BANS, Ban, BanKind, ban_key
from federation.bans import BanStore
from federation.clock import ManualClock
from federation.errors import FederationError, InvalidValue
from federation.revocation_list import RevocationList
from federation.store import Change, MemoryStore, SqliteStore, Store
from pki.algorithms import spki_hash
from pki.certificate import der, public_key
from pki.errors import JournalError
from pki.ledger import Banned, Unbanned
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import BASE, NOW, make_world

WEST = TrustDomain.of_cluster("west", BASE)
KEY = "ab" * 32
KEY_BAN = Ban(BanKind.KEY, KEY, "lost", NOW)
WORLD = make_world()


def bans(store: Store) -> BanStore:
    return BanStore(store, BASE, ManualClock(NOW).now)


async def test_a_ban_is_on_disk_before_anybody_is_told_and_survives_a_restart(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        held = bans(store)
        await held.load()
        told: list[tuple[str, bool]] = []

        def listen(ban: Ban, in_force: bool) -> None:
            assert (ban.key in held.bans) == in_force
            told.append((ban.subject, in_force))

        held.on_change(listen)
        made = await held.ban(BanKind.CLUSTER, "west", "stolen")
        assert made == Ban(BanKind.CLUSTER, "west", "stolen", NOW)
        await held.ban(BanKind.KEY, KEY, "copied")
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        again = bans(store)
        await again.load()
        assert again.bans == held.bans
        assert again.why_banned(SpiffeId.agent(WEST), "cd" * 32) == "cluster west is banned: stolen"
        assert await again.unban(BanKind.CLUSTER, "west")
        assert not await again.unban(BanKind.CLUSTER, "west")
        assert again.why_banned(SpiffeId.agent(WEST), "cd" * 32) is None
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        last = bans(store)
        await last.load()
        assert set(last.bans) == {f"ban/key/{KEY}"}
    assert told == [("west", True), (KEY, True)]


async def test_changes_at_once_leave_memory_and_store_the_same() -> None:
    store = MemoryStore()
    held = bans(store)
    names = [f"c{number}" for number in range(20)]
    await asyncio.gather(*(held.ban(BanKind.CLUSTER, name, "test") for name in names))
    await asyncio.gather(*(held.unban(BanKind.CLUSTER, name) for name in names[::2]))
    again = bans(store)
    await again.load()
    assert again.bans == held.bans
    assert {ban.subject for ban in held.bans.values()} == set(names[1::2])


async def test_a_caller_who_leaves_does_not_undo_half_a_ban() -> None:
    held = bans(MemoryStore())
    asked = asyncio.create_task(held.ban(BanKind.CLUSTER, "west", "stolen"))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await held.ban(BanKind.CLUSTER, "east", "the next change waits for the one before")
    assert {ban.subject for ban in held.bans.values()} == {"east", "west"}


async def test_what_cannot_be_banned_and_too_much_is_refused() -> None:
    held = bans(MemoryStore())
    with pytest.raises(InvalidValue, match="name"):
        await held.ban(BanKind.CLUSTER, "We st", "x")
    for number in range(MOST_BANS):
        await held.ban(BanKind.CLUSTER, f"c{number}", "x")
    with pytest.raises(FederationError, match=f"{MOST_BANS} bans already"):
        await held.ban(BanKind.CLUSTER, "one-more", "x")
    await held.ban(BanKind.CLUSTER, "c1", "another reason takes no more room")


async def test_a_row_of_another_version_is_told(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        held = bans(store)
        await held.ban(BanKind.CLUSTER, "west", "x")
        await store.commit(Change("1", put={"ban/cluster/east": b"{"}))
        with pytest.raises(FederationError, match="stored ban cannot be read"):
            await bans(store).load()


class Notebook:
    """A journal as far as bans go; one that is full takes nothing."""

    def __init__(self) -> None:
        self.records: list[Banned | Unbanned] = []
        self.full = False

    async def note(self, record: Banned | Unbanned) -> None:
        if self.full:
            raise JournalError(Path("journal"), 1, "cannot be written")
        self.records.append(record)

    async def bans(self) -> tuple[Banned | Unbanned, ...]:
        return tuple({(one.kind, one.subject): one for one in self.records}.values())


async def test_s7_a_database_from_a_backup_takes_no_ban_back_and_brings_none_back() -> None:
    clock, notes = ManualClock(NOW), Notebook()
    store, backup = MemoryStore(), MemoryStore()
    held, before = BanStore(store, BASE, clock.now), BanStore(backup, BASE, clock.now)
    await held.compare(notes)
    for one in (held, before):
        await one.ban(BanKind.CLUSTER, "east", "in the backup")
    clock.advance(60)
    await held.ban(BanKind.CLUSTER, "west", "after the backup")
    await held.unban(BanKind.CLUSTER, "east")
    restored = BanStore(backup, BASE, clock.now)
    await restored.load()
    assert {ban.subject for ban in restored.bans.values()} == {"east"}
    await restored.compare(notes)
    assert restored.bans == held.bans
    again = BanStore(backup, BASE, clock.now)
    await again.load()
    assert again.bans == held.bans
    clock.advance(60)
    await again.ban(BanKind.CLUSTER, "east", "while nothing was noted")
    await again.compare(notes)
    assert {ban.subject for ban in again.bans.values()} == {"east", "west"}


async def test_s2_a_ban_that_cannot_be_noted_is_none() -> None:
    held, notes = bans(MemoryStore()), Notebook()
    await held.compare(notes)
    await held.ban(BanKind.CLUSTER, "west", "x")
    notes.full = True
    with pytest.raises(JournalError):
        await held.ban(BanKind.CLUSTER, "east", "x")
    with pytest.raises(JournalError):
        await held.unban(BanKind.CLUSTER, "west")
    assert {ban.subject for ban in held.bans.values()} == {"west"}


# ---- who calls ---------------------------------------------------------------------------------------------------


async def test_a_banned_gateway_is_told_so_at_each_call_and_nobody_else_is_known_by_it() -> None:
    held, identity = bans(MemoryStore()), SpiffeId.gateway(WEST, "eastwest")
    gateway, stranger = WORLD.west.leaf(identity), make_world().west.leaf(identity)
    access = AgentAccess(lambda: WORLD.west.bundle, lambda: NOW, held.why_banned)
    known = await access.certificate(der(gateway))
    assert known is not None
    key = spki_hash(public_key(gateway))
    await held.ban(BanKind.KEY, key, "its disk was copied")
    with pytest.raises(ApiProblem, match=f"key {key} is banned: its disk was copied") as refused:
        await access.certificate(der(gateway))
    assert (refused.value.status, refused.value.code) == (403, "banned")
    assert await access.certificate(der(stranger)) is None
    await held.unban(BanKind.KEY, key)
    assert await access.certificate(der(gateway)) == known


async def test_a_banned_operator_is_refused_whatever_his_role() -> None:
    held, operators = bans(MemoryStore()), OperatorStore(MemoryStore())
    hub = WORLD.hub.trust_domain
    ada, eve = (WORLD.hub.leaf(SpiffeId.operator(hub, name)) for name in ("ada", "eve"))
    for name, certificate in (("ada", ada), ("eve", eve)):
        await operators.create(name, "operator", key=spki_hash(public_key(certificate)))
    access = HubAccess(operators, lambda: WORLD.hub.bundle, lambda: NOW, held.why_banned)
    await held.ban(BanKind.IDENTITY, str(SpiffeId.operator(hub, "eve")), "left")
    known = await access.certificate(der(ada))
    assert known is not None
    assert known.access is Access.OPERATOR
    with pytest.raises(ApiProblem, match="is banned: left"):
        await access.certificate(der(eve))
    secrets = {name: await operators.create(f"{name}-2", "viewer") for name in ("ada", "eve")}
    await held.ban(BanKind.IDENTITY, str(SpiffeId.operator(hub, "eve-2")), "left")
    assert await access.bearer(secrets["ada"] or "")
    with pytest.raises(ApiProblem, match="is banned: left"):
        await access.bearer(secrets["eve"] or "")


async def test_routes_ban_list_and_take_back() -> None:
    held = bans(MemoryStore())
    routes = BanRoutes(
        held,
        RevocationList(None, Path("/nowhere"), ManualClock(NOW)),
        BASE,
        {"west"}.__contains__,
        lambda _: frozenset(),
        lambda: {"cd" * 32: "the root"},
    )
    ada = Principal("ada", Access.OPERATOR)
    made = await routes.ban(Call(ada, body=NewBan(kind="cluster", subject="west", reason="stolen")))
    assert (made.kind, made.subject, made.reason, made.since) == ("cluster", "west", "stolen", NOW)
    (listing,) = (route for route in routes.routes() if (route.method, route.path) == ("GET", "/v1/ca/bans"))
    assert listing.access is Access.VIEWER
    assert await listing.handler(Call(ada)) == (made,)
    for kind, subject in (("cluster", "wset"), ("identity", f"spiffe://wset.{BASE}/agent")):
        slip = NewBan(kind=kind, subject=subject, reason="stolen")  # type: ignore[arg-type]
        with pytest.raises(ApiProblem, match="there is no cluster 'wset'"):
            await routes.ban(Call(ada, body=slip))
        await routes.ban(Call(ada, body=msgspec.structs.replace(slip, unknown=True)))
    await routes.ban(Call(ada, body=NewBan(kind="key", subject="ab" * 32, reason="stolen")))
    with pytest.raises(InvalidValue, match="this is the key of the root: without it nobody would hear"):
        await routes.ban(Call(ada, body=NewBan(kind="key", subject="CD:" * 31 + "CD", reason="stolen")))
    with pytest.raises(InvalidValue, match="hub is no cluster"):
        await routes.ban(Call(ada, body=NewBan(kind="cluster", subject="hub", reason="stolen")))
    await routes.ban(Call(ada, body=NewBan(kind="key", subject="EF:" * 31 + "EF", reason="stolen")))
    assert ban_key(BanKind.KEY, "ef" * 32) in held.bans
    await routes.unban(Call(ada, body=EndBan(kind="key", subject="EF" * 32)))
    assert ban_key(BanKind.KEY, "ef" * 32) not in held.bans
    await routes.unban(Call(ada, body=EndBan(kind="cluster", subject="west")))
    with pytest.raises(ApiProblem) as refused:
        await routes.unban(Call(ada, body=EndBan(kind="cluster", subject="west")))
    assert refused.value.status == 404
    changes = [route for route in routes.routes() if route.method == "POST"]
    assert all(route.access is Access.OPERATOR and route.told for route in changes), (
        "each leaves a line in the log"
    )
    with pytest.raises(FederationError, match="the key of the root is not in this hub"):
        await routes.crl(Call(ada))


async def test_an_agent_says_that_bans_and_revocations_are_made_at_the_hub() -> None:
    heard = {KEY_BAN.key: KEY_BAN}
    routes = at_an_agent("east", lambda: heard)
    ada = Principal("ada", Access.OPERATOR)
    listing, *elsewhere = routes
    assert [one.subject for one in await listing.handler(Call(ada))] == [KEY_BAN.subject]
    assert {(route.method, route.path) for route in elsewhere} == {
        ("POST", "/v1/ca/bans"),
        ("POST", "/v1/ca/bans/end"),
        ("GET", "/v1/ca/crl"),
        ("POST", "/v1/ca/revocations"),
    }
    for route in elsewhere:
        with pytest.raises(ApiProblem, match="made at the hub, and this is the agent of east") as refused:
            await route.handler(Call(ada))
        assert "--hub" in refused.value.hint
