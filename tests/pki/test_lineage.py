"""A lineage goes through every rotation, there and back, and converges wherever it was interrupted."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pki import csr, durable
from pki.algorithms import spki_hash
from pki.authority import Order
from pki.bundle import Accepted, Bundle, accept
from pki.errors import JournalError, KeyMissing, PkiError, Refused, WriteError
from pki.journal import records, verify
from pki.keys.file import FileKeyStore
from pki.ledger import Intent
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.rotation import Phase, Rotation, Side, Token, abort, advance
from pki.spiffe import SpiffeId, TrustDomain
from pki.validate import verify_peer
from tests.pki.rotations import (
    BACK,
    EARLY,
    NOBODY,
    THERE,
    Step,
    When,
    die_at_every_write,
    go_on,
    phase,
    turn_back,
)
from tests.pki.world import BASE, NOW, StoppedClock, granted, new_key

EAST = TrustDomain.of_cluster("east", BASE)
GATEWAY = SpiffeId.gateway(EAST, "eastwest")
OTHER = SpiffeId.agent(EAST)
FORWARD = [Phase.PREPARED, Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING, Phase.DONE]


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def keys(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "keys")


Opener = Callable[[], Awaitable[Lineage]]


@pytest.fixture
async def opened(tmp_path: Path, keys: FileKeyStore, clock: StoppedClock) -> AsyncIterator[Opener]:
    """Opens the same lineage again, as after a crash: whatever was open before is let go of first."""
    held: list[Lineage] = []

    async def again() -> Lineage:
        while held:
            await held.pop().close()
        held.append(await Lineage.open(tmp_path / "authority", keys, EAST, clock))
        return held[0]

    yield again
    while held:
        await held.pop().close()


@pytest.fixture
async def lineage(opened: Opener) -> Lineage:
    return await opened()


async def leaf(lineage: Lineage, **more: Any) -> x509.Certificate:
    issued = await lineage.issue(csr.request(new_key()), granted(GATEWAY), who="test", why="test", **more)
    return issued.certificate


def believes(bundle: Bundle, certificate: x509.Certificate) -> bool:
    try:
        return verify_peer((certificate,), {EAST: bundle}, NOW) == GATEWAY
    except PkiError:
        return False


def taken(held: Bundle, offered: Bundle) -> Bundle:
    outcome = accept(held, offered)
    assert isinstance(outcome, Accepted), outcome
    return outcome.bundle


async def test_a_rotation_replaces_the_authority_and_nobody_is_ever_without_an_anchor(
    lineage: Lineage, keys: FileKeyStore, tmp_path: Path
) -> None:
    first, old = lineage.bundle(), await leaf(lineage)
    follower = first
    assert lineage.rotation is None
    await lineage.begin("ada", "its time has come")
    seen = [phase(lineage)]
    expected = {
        Phase.PREPARED: (1, 1, True, False),
        Phase.PUBLISHED: (2, 2, True, True),
        Phase.ACTIVE: (2, 2, True, True),
        Phase.RETIRING: (3, 1, False, True),
        Phase.DONE: (3, 1, False, True),
    }
    new = None
    while True:
        follower = taken(follower, lineage.bundle())
        made = await leaf(lineage)
        assert believes(follower, made)
        by_new = made.issuer != old.issuer
        assert by_new is (phase(lineage) in (Phase.ACTIVE, Phase.RETIRING, Phase.DONE))
        new = made if by_new else new
        sequence, anchors, of_old, _ = expected[phase(lineage)]
        assert (follower.sequence, len(follower.anchors)) == (sequence, anchors)
        assert believes(follower, old) is of_old
        if phase(lineage) is Phase.DONE:
            break
        seen.append(await go_on(lineage))
    assert seen == FORWARD
    assert new is not None
    assert believes(follower, new)
    assert await keys.names() == {"ca-2"}
    with pytest.raises(KeyMissing):
        await keys.load("ca-1")
    assert verify(tmp_path / "authority/journal").lines > 1
    assert taken(first, lineage.bundle()) == lineage.bundle(), "whoever slept through it all gets there"


@pytest.mark.parametrize("until", [Phase.PREPARED, Phase.PUBLISHED, Phase.ACTIVE])
async def test_a_rotation_is_turned_back(lineage: Lineage, keys: FileKeyStore, until: Phase) -> None:
    first = follower = lineage.bundle()
    await lineage.begin("ada", "")
    while phase(lineage) is not until:
        await go_on(lineage)
        follower = taken(follower, lineage.bundle())
    by_the_one_that_follows = await leaf(lineage)
    await turn_back(lineage)
    while phase(lineage) is not Phase.ABORTED:
        follower = taken(follower, lineage.bundle())
        assert (await leaf(lineage)).issuer == first.anchors[0].subject
        await go_on(lineage)
    follower = taken(follower, lineage.bundle())
    assert follower.anchors == first.anchors
    assert believes(follower, by_the_one_that_follows) is (until is not Phase.ACTIVE)
    assert await keys.names() == {"ca-1"}
    await lineage.begin("ada", "another attempt")
    assert lineage.authorities[Side.NEW].epoch == 3, "an epoch is never given out again"


async def test_who_turns_back_publishes_the_same_anchors_under_a_new_number_once(
    lineage: Lineage, opened: Opener
) -> None:
    """What is said of that number was said by somebody who knows who issues again."""
    await lineage.begin("ada", "")
    await go_on(lineage)
    await go_on(lineage)
    before = lineage.bundle()
    await turn_back(lineage)
    after = lineage.bundle()
    assert (after.anchors, after.sequence) == (before.anchors, before.sequence + 1)
    assert taken(before, after) == after
    await lineage.realise()
    assert lineage.bundle() == after
    assert (await opened()).bundle() == after


async def test_there_is_no_way_back_once_the_old_anchor_is_being_let_go(lineage: Lineage) -> None:
    await lineage.begin("ada", "")
    while await go_on(lineage) is not Phase.RETIRING:
        pass
    assert lineage.rotation is not None
    assert abort(lineage.rotation) is None


async def test_one_rotation_at_a_time_and_only_forward(lineage: Lineage) -> None:
    started = await lineage.begin("ada", "")
    with pytest.raises(Refused, match="one is running already"):
        await lineage.begin("bob", "")
    await go_on(lineage)
    await lineage.enter(started)
    assert phase(lineage) is Phase.PUBLISHED, "an older word changes nothing"
    with pytest.raises(Refused, match="not the one that runs"):
        await lineage.enter(Rotation(Token(7)))
    assert lineage.rotation is not None
    step = lineage.rotation.token.step + 1
    for skipped in (Phase.RETIRING, Phase.PREPARED, Phase.PUBLISHED):
        with pytest.raises(Refused, match="it has moved on to the phase published"):
            await lineage.enter(Rotation(Token(1, step), skipped))
    with pytest.raises(Refused, match="it has moved on"):
        await lineage.enter(Rotation(Token(1, step + 1), Phase.ACTIVE))
    assert phase(lineage) is Phase.PUBLISHED


@pytest.mark.parametrize("path", [THERE, BACK, EARLY], ids=["there", "back", "early"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_s4_interrupted_at_any_write_it_converges(
    opened: Opener,
    keys: FileKeyStore,
    path: tuple[Step, ...],
    when: When,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each write, and each removal of a key, the process dies just before it or just after it."""
    follower: Bundle | None = None

    async def look(lineage: Lineage) -> None:
        nonlocal follower
        follower = lineage.bundle() if follower is None else taken(follower, lineage.bundle())
        assert believes(follower, await leaf(lineage))

    await die_at_every_write(opened, keys, path, when, monkeypatch, look)


async def test_a_full_disk_stops_a_rotation_where_it_is(
    lineage: Lineage, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lineage.begin("ada", "")

    def full(path: Path, data: bytes, **more: Any) -> None:
        raise WriteError(path, errno.errorcode[errno.ENOSPC])

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        with pytest.raises(WriteError):
            await go_on(lineage)
        assert phase(lineage) is Phase.PREPARED
        assert lineage.bundle().sequence == 1
    assert await go_on(lineage) is Phase.PUBLISHED
    assert (await opened()).bundle().sequence == 2


async def test_a_certificate_of_the_authority_before_is_renewed_once(lineage: Lineage) -> None:
    old, key = await leaf(lineage), new_key()
    await lineage.begin("ada", "")
    await go_on(lineage)
    await go_on(lineage)
    renewed = await lineage.issue(csr.request(key), granted(GATEWAY), who="t", why="t", replaces=old)
    assert renewed.certificate.issuer != old.issuer
    again = await lineage.issue(csr.request(key), granted(GATEWAY), who="t", why="t", replaces=old)
    assert again.certificate.public_key() == renewed.certificate.public_key(), "the answer was lost"
    with pytest.raises(Refused, match="replaced already"):
        await leaf(lineage, replaces=old)
    (entry,) = [one for one in lineage.ledger(NOW) if one.serial == old.serial_number]
    assert entry.successors == {spki_hash(key.public_key())}


async def test_a_key_has_one_identity_in_both_authorities(lineage: Lineage) -> None:
    key = new_key()
    await lineage.issue(csr.request(key), granted(GATEWAY), who="t", why="t")
    await lineage.begin("ada", "")
    await go_on(lineage)
    await go_on(lineage)
    with pytest.raises(Refused, match="belongs to"):
        await lineage.issue(csr.request(key), granted(OTHER), who="t", why="t")
    refused, made = await lineage.issue_all(
        [
            Order(key.public_key(), granted(OTHER), "t", "t"),
            Order(key.public_key(), granted(GATEWAY), "t", "t"),
        ]
    )
    assert isinstance(refused, Refused)
    assert not isinstance(made, PkiError)


async def test_everything_is_there_after_a_restart_in_each_phase(lineage: Lineage, opened: Opener) -> None:
    await lineage.begin("ada", "its time has come")
    while True:
        made = await leaf(lineage)
        before = (lineage.rotation, lineage.bundle(), lineage.begun, lineage.issuer.self_signed)
        lineage = await opened()
        assert (lineage.rotation, lineage.bundle(), lineage.begun, lineage.issuer.self_signed) == before
        assert made.serial_number in {one.serial for one in lineage.ledger(NOW)}
        if phase(lineage) is Phase.DONE:
            break
        await go_on(lineage)


async def test_the_roots_word_is_kept_for_either_authority(
    lineage: Lineage, tmp_path: Path, clock: StoppedClock
) -> None:
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    for side in (Side.OLD, Side.NEW):
        if side is Side.NEW:
            await lineage.begin("ada", "")
            await go_on(lineage)
        rooted = await root.sign_cluster_ca(await lineage.csr(side), EAST, who="test", why="test")
        await lineage.accept_root_signed(rooted, root.certificate)
    assert len(lineage.bundle().proof.rooted) == 2
    newcomer = accept(None, lineage.bundle(), root.certificate)
    assert isinstance(newcomer, Accepted), newcomer
    await root.close()


async def test_many_rotations_leave_a_bundle_that_leads_there(lineage: Lineage, clock: StoppedClock) -> None:
    slept = lineage.bundle()
    for _ in range(5):
        await lineage.begin("ada", "")
        while await go_on(lineage) is not Phase.DONE:
            pass
        clock.time += timedelta(seconds=1)
    assert taken(slept, lineage.bundle()).anchors == lineage.bundle().anchors


async def test_what_was_decided_of_one_phase_at_once_there_and_back_happens_once(lineage: Lineage) -> None:
    """An operator turns back while the driver goes on: whoever comes second has decided on what is no more."""
    await lineage.begin("ada", "")
    await go_on(lineage)
    await go_on(lineage)
    now = lineage.rotation
    assert now is not None
    on, back = advance(now, NOBODY, {}), abort(now)
    assert back is not None
    assert on.token == back.token
    await lineage.enter(on)
    with pytest.raises(Refused, match="it has moved on to the phase retiring"):
        await lineage.enter(back)
    assert phase(lineage) is Phase.RETIRING


async def test_a_renewal_that_failed_has_replaced_nothing(
    lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await leaf(lineage)
    await lineage.begin("ada", "")
    await go_on(lineage)
    await go_on(lineage)

    async def full(*_: Any) -> Any:
        raise JournalError(Path("journal"), 0, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(lineage.authorities[Side.NEW], "issue_all", full)
        with pytest.raises(JournalError):
            await leaf(lineage, replaces=old)
    (entry,) = [one for one in lineage.ledger(NOW) if one.serial == old.serial_number]
    assert entry.successors == frozenset()
    assert await leaf(lineage, replaces=old), "with another key, too"


async def test_an_authority_that_still_signs_is_known_to(
    lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lineage.begin("ada", "")
    await go_on(lineage)
    old, go = lineage.authorities[Side.OLD], asyncio.Event()
    issue_all = old.issue_all

    async def slow(orders: Any) -> Any:
        await go.wait()
        return await issue_all(orders)

    monkeypatch.setattr(old, "issue_all", slow)
    signing = asyncio.create_task(leaf(lineage))
    await asyncio.sleep(0)
    await go_on(lineage)
    assert (phase(lineage), lineage.is_signing(Side.OLD)) == (Phase.ACTIVE, True)
    go.set()
    assert (await signing).issuer == old.self_signed.subject
    assert not lineage.is_signing(Side.OLD)


async def test_who_joins_while_the_root_is_away_believes_by_the_version_that_it_signed(
    lineage: Lineage, tmp_path: Path, clock: StoppedClock
) -> None:
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    rooted = await root.sign_cluster_ca(await lineage.csr(), EAST, who="test", why="test")
    await lineage.accept_root_signed(rooted, root.certificate)
    await lineage.begin("ada", "")
    while True:
        newcomer = accept(None, lineage.bundle(), root.certificate)
        assert isinstance(newcomer, Accepted), newcomer
        if await go_on(lineage) is Phase.DONE:
            break
    assert isinstance(accept(None, lineage.bundle(), root.certificate), Accepted)
    await root.close()


async def test_the_journal_of_an_authority_that_follows_begins_with_who_wanted_it_and_why(
    opened: Opener,
) -> None:
    lineage = await opened()
    first = lineage.journals[0]
    await lineage.begin("ada (at the hub)", "yearly", ordered=True)
    made = {
        journal.path: next(record for record in records(journal.path) if isinstance(record, Intent))
        for journal in lineage.journals
    }
    assert [(one.who, one.why) for path, one in made.items() if path == first.path] == [
        (EAST.uri, "a new authority")
    ]
    assert [(one.who, one.why) for path, one in made.items() if path != first.path] == [
        ("ada (at the hub)", "a new authority: yearly")
    ]
    again = await opened()
    assert again.begun is not None
    assert again.begun.ordered, "also after a restart"


async def test_a_generation_has_an_end_which_whoever_begins_is_told(
    tmp_path: Path, keys: FileKeyStore, clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pki.succession.MOST_EPOCHS", 2)
    lineage = await Lineage.open(tmp_path / "authority", keys, EAST, clock, epoch=7)
    await lineage.begin("ada", "")
    while phase(lineage) is not Phase.DONE:
        await go_on(lineage)
    before = lineage.bundle()
    with pytest.raises(Refused, match="epoch 8 is the last one"):
        await lineage.begin("ada", "")
    assert lineage.bundle() == before
    await lineage.close()
