"""Many at once ask the hub to change its registry, over a real store: memory and disk agree, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import structlog

from federation.clock import SystemClock
from federation.held import digest
from federation.hub import Hub
from federation.member_row import MemberRow
from federation.model import HUB, MemberState, Position
from federation.registry import AuthorityRow, Registry
from federation.root_request import RootRequest
from federation.store import Change, SqliteStore
from federation.sync import codec, wire
from federation.sync import sync_pb2 as pb
from federation.sync.codec import REQUEST
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Item
from federation.sync.protocol import Batch, next_epoch
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki import bundle as bundles
from pki import token
from pki.certificate import der
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.rotation import advance
from pki.spiffe import TrustDomain

BASE = "mesh.example"
CLOCK = SystemClock()


class Installation:
    """A hub without streams or doors; its store is a file."""

    def __init__(self, root: RootAuthority, store: SqliteStore) -> None:
        self.root, self.store = root, store
        self.tokens = TokenStore(store, CLOCK.now)

    async def start(self) -> Hub:
        """The hub as it is after a restart: what it knows comes from the store."""
        hub = Hub(Registry(self.store), lambda: (self.root.certificate,), BASE, CLOCK, HubMetrics())
        await hub.start()
        return hub

    async def add(self, hub: Hub, name: str) -> bool:
        """Make `name` a member, as a join does once its token is used and the root has signed."""
        secret = name.encode().ljust(token.SECRET_BYTES, b".")
        _, record = token.mint(secret, CLOCK.now(), kind="join", url="https://hub", subject=name, pin=b"")
        await self.tokens.add(record)
        row = MemberRow(
            name=name,
            may_export=("default/*",),
            ranges=("10.1.0.0/16",),
            joined_at=datetime(2026, 1, 1, tzinfo=UTC),
            key="00",
            rooted=der(self.root.certificate),
        )
        return await hub.membership.add(row, record)


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "keys"), BASE, CLOCK)
    async with await SqliteStore.open(tmp_path / "hub.db") as store:
        yield Installation(root, store)
    await root.close()


async def test_many_hellos_at_once_never_take_the_epoch_back(installation: Installation) -> None:
    """Each of them remembers more than the hub, as after a backup was put back; the furthest is overtaken."""
    hub = await installation.start()
    claims = [Position(epoch, 7) for epoch in (3, 90, 12, 90, 41, 2, 77, 89)]
    for number in range(len(claims)):
        await installation.add(hub, f"c{number}")
    with structlog.testing.capture_logs() as logs:
        sessions = await asyncio.gather(
            *(hub.open(f"c{number}", {HUB: at}, lambda: None) for number, at in enumerate(claims))
        )
    assert all(session.closed is None for session in sessions)
    said = [entry for entry in logs if "remembers more of this hub" in entry["event"]]
    assert {"3.7", "90.7"} <= {entry["remembers"] for entry in said}
    epochs = [entry["epoch"] for entry in said]
    assert epochs == sorted(set(epochs))
    assert hub.registry.epoch(HUB) == epochs[-1] == 91
    assert (await installation.start()).registry.epoch(HUB) == 92


async def test_an_epoch_never_falls(installation: Installation) -> None:
    registry = Registry(installation.store)
    for epoch in (5, 9, 4, 9, 1):
        await registry.raise_epoch("east", epoch)
    again = Registry(installation.store)
    await again.load()
    assert again.epoch("east") == 9


async def test_the_epoch_of_the_newest_authority_of_a_name_never_falls(installation: Installation) -> None:
    """A token that replaces an authority is for a higher one than any that others may remember."""
    hub = await installation.start()
    await installation.add(hub, "east")
    for epoch, key, expected in ((3, "33", (3, "33")), (2, "22", (3, "33")), (3, "44", (3, "44"))):
        await hub.registry.put(hub.registry.rows["east"], AuthorityRow(key, epoch))
        assert hub.registry.authority("east") == AuthorityRow(expected[1], expected[0])
    assert await hub.remove_member("east")
    await installation.add(hub, "east")
    assert hub.registry.authority("east") == AuthorityRow("00", 3), "it came back with its first authority"
    hub = await installation.start()
    assert hub.registry.authority("east") == AuthorityRow("00", 3)


async def test_whoever_joins_under_a_name_that_was_removed_begins_beyond_all_that_was_counted_under_it(
    installation: Installation,
) -> None:
    """A hostile member may count beats of the epoch after the one that it is in, as high as it likes."""
    hub = await installation.start()
    await installation.add(hub, "east")
    await hub.registry.raise_epoch("east", 7)
    hub = await installation.start()
    assert await hub.remove_member("east")
    await installation.add(hub, "east")
    session = await hub.open("east", {}, lambda: None)
    welcome = pb.FromHub.FromString(session.take() or b"").welcome
    assert next_epoch("east", 0, wire.read_position(welcome.highest_of_you, "hub")) == 9


async def test_nobody_may_claim_what_nobody_could_have_seen(installation: Installation) -> None:
    hub = await installation.start()
    await installation.add(hub, "east")
    with pytest.raises(ProtocolViolation, match="is claimed"):
        await hub.open("east", {HUB: Position(2**40, 1)}, lambda: None)
    assert hub.registry.epoch(HUB) == 1


async def test_changes_of_one_cluster_at_once_all_count(installation: Installation) -> None:
    """Two operators change different settings, a third drains it: none undoes what another did."""
    hub = await installation.start()
    await installation.add(hub, "east")
    for number in range(20):
        exports, ranges = (f"n{number}/*",), (f"10.{number}.0.0/16",)
        state = MemberState.DRAINING if number % 2 else MemberState.ACTIVE
        await asyncio.gather(
            hub.membership.set("east", may_export=exports),
            hub.membership.set("east", ranges=ranges),
            hub.membership.set("east", state=state),
        )
        row = hub.registry.rows["east"]
        assert (row.may_export, row.ranges, row.state) == (exports, ranges, state)
    assert (await installation.start()).registry.rows == hub.registry.rows


async def test_sets_and_removals_at_once_leave_memory_and_disk_the_same(installation: Installation) -> None:
    hub = await installation.start()
    names = [f"c{number}" for number in range(6)]
    for name in names:
        await installation.add(hub, name)
    removed = await asyncio.gather(
        *(hub.remove_member(name) for name in names[:3] for _ in range(3)),
        *(hub.membership.set(name, may_export=(f"{name}/*",)) for name in names for _ in range(2)),
        *(hub.remove_member(name) for name in names[3:5]),
    )
    assert removed[:9] == [True, False, False] * 3
    assert removed[-2:] == [True, True]
    assert list(hub.registry.rows) == ["c5"]
    assert hub.registry.rows["c5"].may_export == ("c5/*",)
    assert (await installation.start()).registry.rows == hub.registry.rows


async def test_whoever_asks_for_a_change_and_leaves_does_not_stop_it_halfway(
    installation: Installation,
) -> None:
    """A stream that ends takes its task with it; the store writes on, so the registry must hear of it."""
    hub = await installation.start()
    await installation.add(hub, "east")
    for turns in range(6):
        asked = asyncio.create_task(hub.membership.set("east", may_export=(f"t{turns}/*",)), name="asked")
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        changed = await hub.membership.set("east", ranges=(f"10.{turns}.0.0/16",))
        assert changed is not None
        assert changed.may_export == (f"t{turns}/*",)
    assert (await installation.start()).registry.rows == hub.registry.rows


async def test_a_cluster_with_more_tokens_than_fit_into_one_change_is_removed_all_the_same(
    installation: Installation,
) -> None:
    hub = await installation.start()
    for number in range(230):
        secret = b"%032d" % number
        _, record = token.mint(
            secret,
            CLOCK.now(),
            kind="join",
            url="https://hub",
            subject="east",
            pin=b"",
            lifetime=timedelta(minutes=1),
        )
        await installation.tokens.add(record)
    await installation.add(hub, "east")
    assert await hub.remove_member("east")
    assert await installation.tokens.listed() == ()
    assert hub.members() == ()


async def test_an_anchor_is_held_here_when_those_outside_who_fetch_it_have_had_time(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the hub waits for them, too; the version before is what it says until then."""
    hub = await installation.start()
    await installation.add(hub, "east")
    east = TrustDomain.of_cluster("east", BASE)
    lineage = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "east-keys"), east, CLOCK)
    rooted = await installation.root.sign_cluster_ca(await lineage.csr(), east, who="test", why="test")
    await lineage.accept_root_signed(rooted, installation.root.certificate)
    waiting = {2: True, 3: False}
    hub.membership.until = lambda bundle: CLOCK.now() if waiting.get(bundle.sequence) else None

    def held() -> tuple[int, int] | None:
        told = hub.held_by(HUB)
        if told is None:
            return None
        bundle = lineage.bundle()
        known = {digest(each): each.version for each in (*bundle.earlier, bundle)}
        assert known[told.digest(str(east)) or b""] == told.version(str(east)), (
            "what it says is of that version"
        )
        return told.version(str(east))

    await hub.membership.offered("east", lineage.bundle())
    assert (held(), hub.membership.is_early) == ((1, 1), False)
    await lineage.begin("ada", "")
    assert lineage.rotation is not None
    await lineage.enter(advance(lineage.rotation, frozenset(), {}))
    await hub.membership.offered("east", lineage.bundle())
    assert (held(), hub.membership.is_early) == ((1, 1), True)
    with monkeypatch.context() as watched:
        watched.setattr(bundles, "decode", None)  # which verifies signatures, and takes its time
        hub.membership.tell_held()
    assert held() == (1, 1)
    waiting[2] = False
    hub.membership.tell_held()
    assert (held(), hub.membership.is_early) == ((1, 2), False)
    await lineage.close()


async def test_a_request_ends_with_the_first_complete_listing_without_it(installation: Installation) -> None:
    """The agent withdrew it while the hub was down: nobody is left to say so."""
    hub = await installation.start()
    assert await installation.add(hub, "west")
    west = hub.registry.rows["west"]
    await installation.store.commit(
        Change(
            "wait", put={"member/west": msgspec.json.encode(msgspec.structs.replace(west, request=b"csr"))}
        )
    )
    hub = await installation.start()
    forgotten: list[str] = []
    hub.on_withdrawn = forgotten.append

    async def waits_after(last: bool, *items: Item) -> bool:
        session = await hub.open("west", {}, lambda: None)
        batch = Batch("west", 1, 7, full=True, last=last, items=items)
        await hub.receive(session, pb.FromAgent.FromString(wire.publish(batch)))
        return hub.registry.rows["west"].waits

    asking = Item(REQUEST, 5, codec.encode(REQUEST, 5, RootRequest("west", b"csr", b"anchor")))
    assert await waits_after(True, asking)
    assert await waits_after(False), "a listing of which there is more deletes nothing"
    assert forgotten == []
    assert not await waits_after(True)
    assert forgotten == ["west"]
    assert not (await installation.start()).registry.rows["west"].waits
