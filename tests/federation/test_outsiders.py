"""Who fetches bundles from outside gets time before a new anchor is used, and nobody waits where nobody fetches."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from federation.clock import ManualClock
from federation.onlookers import TIME_TO_LOOK
from federation.outsiders import Outsiders
from pki import durable
from pki.bundle import Bundle
from pki.errors import KeyFileError, WriteError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.rotation import Phase, abort, advance
from pki.spiffe import TrustDomain
from tests.pki.world import BASE

EAST, WEST = (TrustDomain.of_cluster(name, BASE) for name in ("east", "west"))
DAY, HINT = timedelta(days=1).total_seconds(), timedelta(minutes=5).total_seconds()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))


@pytest.fixture
async def versions(tmp_path: Path, clock: ManualClock) -> dict[Phase, Bundle]:
    """The newest bundle of a trust domain in each phase of a rotation."""
    lineage = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), EAST, clock)
    found = {}
    await lineage.begin("ada", "")
    while True:
        assert lineage.rotation is not None
        found[lineage.rotation.phase] = lineage.bundle()
        if lineage.rotation.over:
            break
        await lineage.enter(advance(lineage.rotation, frozenset(), {}))
    await lineage.close()
    return found


def opened(tmp_path: Path, clock: ManualClock) -> Outsiders:
    made = Outsiders(tmp_path / "fetched.json", clock)
    made.load()
    return made


async def test_who_looked_within_a_day_gets_five_hints_from_when_the_new_anchor_is_there(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle]
) -> None:
    outsiders, new = opened(tmp_path, clock), versions[Phase.PUBLISHED]
    await outsiders.looked(EAST)
    assert outsiders.until(versions[Phase.PREPARED]) is None
    clock.advance(DAY - 60)
    began = clock.now()
    assert outsiders.until(new) == began + TIME_TO_LOOK == began + timedelta(seconds=5 * HINT)
    clock.advance(30)
    assert outsiders.until(new) == began + TIME_TO_LOOK
    await outsiders.looked(EAST)
    assert outsiders.until(new) == began + TIME_TO_LOOK, "another look makes it no longer"
    clock.advance(5 * HINT - 31)
    assert outsiders.until(new) is not None
    clock.advance(1)
    assert outsiders.until(new) is None


async def test_nobody_waits_where_nobody_looked_for_a_day_or_only_at_somebody_else(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle]
) -> None:
    outsiders = opened(tmp_path, clock)
    await outsiders.looked(WEST)
    assert outsiders.until(versions[Phase.PUBLISHED]) is None
    await outsiders.looked(EAST)
    assert outsiders.until(versions[Phase.PUBLISHED]) is not None
    clock.advance(DAY)
    assert outsiders.until(versions[Phase.PUBLISHED]) is None


async def test_an_anchor_that_goes_or_was_there_before_takes_no_time(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle]
) -> None:
    outsiders = opened(tmp_path, clock)
    await outsiders.looked(EAST)
    waits = {phase: outsiders.until(each) is not None for phase, each in versions.items()}
    assert [phase for phase, each in waits.items() if each] == [Phase.PUBLISHED, Phase.ACTIVE]
    assert versions[Phase.ACTIVE] == versions[Phase.PUBLISHED]


async def test_a_restart_forgets_no_look_and_begins_the_time_anew(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle]
) -> None:
    first, new = opened(tmp_path, clock), versions[Phase.PUBLISHED]
    await first.looked(EAST)
    assert first.until(new) is not None
    assert stat.S_IMODE((tmp_path / "fetched.json").stat().st_mode) == 0o600
    clock.advance(4 * HINT)
    again = opened(tmp_path, clock)
    assert again.until(new) == clock.now() + TIME_TO_LOOK
    clock.advance(DAY + 3600)
    assert opened(tmp_path, clock).until(new) is None


async def test_one_who_looks_all_the_time_costs_one_write_an_hour(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, real = 0, durable.write

    def counted(path: Path, data: bytes, mode: int = 0o600) -> None:
        nonlocal writes
        writes += 1
        real(path, data, mode)

    monkeypatch.setattr(durable, "write", counted)
    outsiders = opened(tmp_path, clock)
    for _ in range(3 * 60):
        await outsiders.looked(EAST)
        clock.advance(60)
    assert writes == 3


async def test_a_jump_of_the_wall_clock_makes_nobody_forgotten(
    tmp_path: Path, versions: dict[Phase, Bundle]
) -> None:
    class Jumping(ManualClock):
        ahead = timedelta()

        def now(self) -> datetime:
            return super().now() + self.ahead

    clock = Jumping(datetime(2026, 11, 21, 12, tzinfo=UTC))
    outsiders = opened(tmp_path, clock)
    await outsiders.looked(EAST)
    for days in (400, -400):
        clock.ahead = timedelta(days=days)
        assert outsiders.until(versions[Phase.PUBLISHED]) == clock.now() + TIME_TO_LOOK
    assert opened(tmp_path, clock).until(versions[Phase.PUBLISHED]) is not None, "the clock was set back"


async def test_s2_a_note_that_cannot_be_written_or_read_costs_time_alone(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    outsiders, new = opened(tmp_path, clock), versions[Phase.PUBLISHED]

    def full(path: Path, *_: object) -> None:
        raise WriteError(path, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    await outsiders.looked(EAST)
    monkeypatch.undo()
    assert outsiders.until(new) is not None
    durable.write(tmp_path / "fetched.json", b"[nonsense")
    assert opened(tmp_path, clock).until(new) is not None, "somebody may have looked"


async def test_s2_a_note_that_could_not_be_written_is_written_soon(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def full(path: Path, *_: object) -> None:
        nonlocal tried
        tried += 1
        raise WriteError(path, "No space left on device")

    outsiders = opened(tmp_path, clock)
    monkeypatch.setattr(durable, "write", full)
    for _ in range(120):
        await outsiders.looked(EAST)
        clock.advance(1)
    assert tried == 2, "whoever looks all the time costs no more than a write a minute"
    monkeypatch.undo()
    await outsiders.looked(EAST)
    assert opened(tmp_path, clock).until(versions[Phase.PUBLISHED]) is not None


def test_s3_a_note_that_others_may_write_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    durable.write(tmp_path / "fetched.json", b"{}")
    (tmp_path / "fetched.json").chmod(0o666)
    with pytest.raises(KeyFileError):
        opened(tmp_path, clock)


async def test_an_authority_that_takes_the_place_of_a_stolen_one_waits_for_nobody(
    tmp_path: Path, clock: ManualClock, versions: dict[Phase, Bundle]
) -> None:
    """It begins a new generation, with nothing before it."""
    keys = FileKeyStore(tmp_path / "other-keys")
    lineage = await Lineage.open(tmp_path / "other", keys, EAST, clock, epoch=7)
    outsiders = opened(tmp_path, clock)
    await outsiders.looked(EAST)
    assert outsiders.until(versions[Phase.DONE]) is None
    assert outsiders.until(lineage.bundle()) is None
    await lineage.close()


async def test_who_turns_back_takes_away_what_was_added(tmp_path: Path, clock: ManualClock) -> None:
    lineage = await Lineage.open(tmp_path / "authority", FileKeyStore(tmp_path / "keys"), EAST, clock)
    outsiders = opened(tmp_path, clock)
    await outsiders.looked(EAST)
    for _ in range(2):
        await lineage.begin("ada", "")
        assert lineage.rotation is not None
        await lineage.enter(advance(lineage.rotation, frozenset(), {}))
        assert outsiders.until(lineage.bundle()) is not None
        back = abort(lineage.rotation)
        assert back is not None
        await lineage.enter(back)
        assert outsiders.until(lineage.bundle()) is None
        await lineage.enter(advance(lineage.rotation, frozenset(), {}))
    await lineage.close()
