"""Workloads, and trust domains outside, hold up a new authority until they can believe it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from federation.clock import ManualClock
from federation.onlookers import OUTSIDERS, WORKLOADS, behind, of_outsiders, of_workloads, report
from federation.svid.demand import Demand, Given
from federation.turning import survivors
from pki import bundle as bundles
from pki.algorithms import spki, spki_hash
from pki.certificate import load_der
from pki.keys.file import FileKeyStore
from pki.ledger import Entry
from pki.lineage import Lineage
from pki.names import is_dns_label
from pki.rotation import Phase, Report, Rotation, Side, Token, abort, advance, blockers
from pki.spiffe import SpiffeId
from tests.federation.svid.world import CART, EAST, Cluster, cluster, given, held, new_key, wish
from tests.federation.world import NOW

WORKLOAD = str(CART)


def entry(serial: int = 1, *, bundle: int = 1, hours: float = 1.0, profile: str = "svid") -> Entry:
    ends = NOW + timedelta(hours=hours)
    return Entry(serial, profile, WORKLOAD, f"key {serial}", ends, bundle=bundle)


def waited_for(*entries: Entry, gone: frozenset[int] = frozenset(), banned: str = "") -> list[int]:
    found = behind(entries, 2, gone, lambda one: one.spki == banned, NOW)
    return [one.serial for one in found]


def test_a_certificate_that_came_with_a_bundle_from_before_is_waited_for_until_it_ends() -> None:
    assert waited_for(entry(1, hours=2), entry(2, hours=1)) == [1, 2]
    assert waited_for(entry(bundle=2), entry(bundle=3)) == []
    assert waited_for(entry(bundle=0)) == [1], "given before anybody counted"
    assert waited_for(entry(hours=0)) == []


def test_not_waited_for_is_who_came_with_a_later_one_or_is_banned_or_no_workload() -> None:
    assert waited_for(entry(), gone=frozenset({1})) == []
    assert waited_for(entry(), banned="key 1") == []
    assert waited_for(entry(profile="gateway"), entry(profile="agent"), entry(profile="cluster-ca")) == []


def test_that_it_was_replaced_does_not_say_that_its_holder_has_the_next_one() -> None:
    replaced = Entry(1, "svid", WORKLOAD, "a", NOW + timedelta(hours=1), frozenset({"b"}), bundle=1)
    assert waited_for(replaced) == [1]
    assert list(survivors((replaced,), "", False, {}, NOW, frozenset())) == [replaced]
    assert list(survivors((replaced,), "", False, {}, NOW, frozenset({1}))) == []


@pytest.mark.parametrize("phase", Phase)
def test_who_is_not_ready_holds_up_the_phase_that_adds_an_anchor_and_no_other(phase: Phase) -> None:
    rotation = Rotation(Token(1, 2), phase)
    reports: dict[str, Report] = {name: report(rotation, lambda: False) for name in (WORKLOADS, OUTSIDERS)}
    held_up = {each.member for each in blockers(rotation, frozenset(reports), reports)}
    assert held_up == ({WORKLOADS, OUTSIDERS} if phase is Phase.PUBLISHED else set())
    reports = {name: report(rotation, lambda: True) for name in (WORKLOADS, OUTSIDERS)}
    assert not blockers(rotation, frozenset(reports), reports)


def test_a_way_back_waits_for_nobody_who_only_looks_on() -> None:
    rotation = Rotation(Token(1, 2), Phase.PUBLISHED)
    back = abort(rotation)
    assert back is not None
    assert (
        advance(back, frozenset({WORKLOADS}), {WORKLOADS: report(back, lambda: False)}).phase is Phase.ABORTED
    )


def test_their_names_are_those_of_no_cluster() -> None:
    assert not any(is_dns_label(name) for name in (WORKLOADS, OUTSIDERS))


def test_operators_are_told_how_many_who_until_when_and_what_to_do() -> None:
    told = of_workloads([entry(serial, hours=9 - serial) for serial in range(1, 9)])
    assert told.member == WORKLOADS
    last = (NOW + timedelta(hours=8)).isoformat(timespec="minutes")
    assert told.reason.startswith("8 workloads have a certificate that came with the anchors from before")
    assert last in told.reason
    assert len(told.who) == 6
    assert WORKLOAD in told.who[0]
    assert [line.split()[-1] for line in told.who[:5]] == ["8", "7", "6", "5", "4"], "who ends first"
    assert told.who[-1] == "and 3 more"
    assert "federation ca renew" in told.todo
    assert "federation ca ban" in told.todo
    assert of_workloads((entry(),)).reason.startswith("1 workload has")
    outside = of_outsiders(NOW + timedelta(minutes=25))
    assert (NOW + timedelta(minutes=25)).isoformat(timespec="minutes") in outside.reason
    assert "25 minutes" in outside.todo


# ---- a real authority, and workloads that ask it --------------------------------------------------------------------


@pytest.fixture
async def east(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as made:
        yield made


def unready(east: Cluster) -> set[int]:
    now = east.clock.now()
    found = behind(
        east.authority.ledger(now), east.authority.bundle().sequence, east.issuer.gone, lambda _: False, now
    )
    return {one.serial for one in found}


def serial(made: Given) -> int:
    return load_der(made.chain[0]).serial_number


async def step(lineage: Lineage) -> Phase:
    """To the next phase, which nobody holds up."""
    assert lineage.rotation is not None
    await lineage.enter(advance(lineage.rotation, frozenset(), {}))
    return lineage.rotation.phase


async def published(east: Cluster) -> None:
    await east.authority.begin("ada", "")
    assert await step(east.authority) is Phase.PUBLISHED


async def comes_with(east: Cluster, made: Given) -> int:
    """Somebody connects with a certificate and asks for the bundle; gives its sequence."""
    leaf = load_der(made.chain[0])
    answer = await east.issuer.issue(Demand(WORKLOAD, "00" * 32, b"", (), serial=f"{leaf.serial_number:x}"))
    assert answer.outcomes == ()
    return bundles.decode(answer.bundle).sequence


async def test_one_look_with_a_wrong_clock_lets_go_of_no_workload_and_takes_no_renewal_from_it(
    east: Cluster,
) -> None:
    key = new_key()
    first = await east.first(key)
    await east.authority.begin("ada", "")
    await step(east.authority)
    now, sequence = east.clock.now(), east.authority.bundle().sequence
    ahead = now + timedelta(days=2)
    assert not list(behind(east.authority.ledger(ahead), sequence, east.issuer.gone, lambda _: False, ahead))
    assert unready(east) == {serial(first)}
    given(await east.ask(wish(new_key(), held(first, key))))


async def test_a_workload_is_waited_for_until_it_comes_with_what_it_was_given_since(east: Cluster) -> None:
    keys = [new_key() for _ in range(2)]
    first = await east.first(keys[0])
    assert unready(east) == set()
    await published(east)
    assert unready(east) == {serial(first)}
    second = given(await east.ask(wish(keys[1], held(first, keys[0]))))
    assert unready(east) == {serial(first)}, "the answer may be lost"
    assert await comes_with(east, second) == 2
    assert unready(east) == set()


async def test_an_answer_that_was_lost_is_waited_for_and_then_repeated_with_the_newest_bundle(
    east: Cluster,
) -> None:
    """It was given before the new anchor was published: what is repeated is the certificate, not the bundle."""
    keys, number = [new_key() for _ in range(2)], bytes(16)
    first = await east.first(keys[0])
    asked = wish(keys[1], held(first, keys[0]))
    lost = given(await east.ask(asked, request_id=number))
    await published(east)
    assert unready(east) == {serial(first), serial(lost)}
    answer = await east.ask(asked, request_id=number)
    assert given(answer) == lost
    assert len(bundles.decode(answer.bundle).anchors) == 2
    again = await east.ask(asked)
    assert serial(given(again)) != serial(lost)
    await comes_with(east, given(again))
    assert unready(east) == set(), "of the two the other one was never taken"


async def test_a_line_that_goes_on_is_done_with_what_was_before(east: Cluster) -> None:
    """Programs that never say that a certificate has come say so when they renew it."""
    keys = [new_key() for _ in range(3)]
    first = await east.first(keys[0])
    await published(east)
    second = given(await east.ask(wish(keys[1], held(first, keys[0]))))
    given(await east.ask(wish(keys[2], held(second, keys[1]))))
    assert unready(east) == set()


async def test_the_same_key_all_the_time(east: Cluster) -> None:
    key = new_key()
    first = await east.first(key)
    await published(east)
    second = given(await east.ask(wish(key, held(first, key))))
    assert unready(east) == {serial(first)}
    given(await east.ask(wish(key, held(second, key))))
    assert unready(east) == set()


async def test_who_gets_a_first_certificate_meanwhile_is_not_waited_for(east: Cluster) -> None:
    await published(east)
    await east.first(new_key())
    await east.issuer.give("unix:0", CART, spki(new_key().public_key()), None)
    assert unready(east) == set()


async def test_a_restart_forgets_no_workload_and_only_waits_longer(tmp_path: Path) -> None:
    keys = [new_key() for _ in range(2)]
    async with cluster(tmp_path) as east:
        first = await east.first(keys[0])
        await published(east)
        second = given(await east.ask(wish(keys[1], held(first, keys[0]))))
        await comes_with(east, second)
        assert unready(east) == set()
    clock = ManualClock(east.clock.now())
    lineage = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), EAST, clock)
    noted = {one.serial: one.bundle for one in lineage.ledger(clock.now()) if one.profile == "svid"}
    assert noted == {serial(first): 1, serial(second): 2}
    found = behind(lineage.ledger(clock.now()), 2, frozenset(), lambda _: False, clock.now())
    assert [one.serial for one in found] == [serial(first)]
    await lineage.close()


async def test_a_renewal_whose_answer_is_lost_does_not_end_the_old_authority(east: Cluster) -> None:
    keys = [new_key() for _ in range(2)]
    await published(east)
    first = await east.first(keys[0])
    assert await step(east.authority) is Phase.ACTIVE
    second = given(await east.ask(wish(keys[1], held(first, keys[0]))))
    now = east.clock.now()

    def left() -> set[int]:
        old = east.authority.authorities[Side.OLD].ledger(now)
        return {one.serial for one in survivors(old, "", False, {}, now, east.issuer.gone)}

    assert left() == {serial(first)}
    await comes_with(east, second)
    assert left() == set()


async def test_only_the_holder_of_a_certificate_says_that_it_has_come(east: Cluster) -> None:
    """A wish that names somebody else's certificate proves nothing."""
    keys = [new_key() for _ in range(3)]
    first = await east.first(keys[0])
    await published(east)
    second = given(await east.ask(wish(keys[1], held(first, keys[0]))))
    stolen = held(second, keys[2])
    assert stolen.spki == spki_hash(keys[2].public_key())
    await east.ask(wish(keys[2], stolen))
    assert unready(east) == {serial(first)}
    await comes_with(east, await east.first(new_key(), SpiffeId.workload(EAST, "shop", "payment")))
    assert serial(first) in unready(east)
