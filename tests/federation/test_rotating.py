"""The driver of a rotation over a real lineage: what an operator may ask of it, and what it then does by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from federation.api.messages import Rotate, RotationStatus
from federation.api.rotation_routes import RotationRoutes
from federation.api.routes import Access, ApiProblem, Call, Principal
from federation.clock import ManualClock
from federation.errors import FederationError
from federation.reason import ALLOWED
from federation.rotating import Rotating
from pki.errors import ClockError, WriteError
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.rotation import Side
from pki.skew import HOLD
from pki.spiffe import TrustDomain
from tests.federation.lives import eventually
from tests.federation.realms import Realm
from tests.federation.world import BASE, NOW

ADA = Principal("ada", Access.OPERATOR)


class SetClock(ManualClock):
    """Somebody sets its wall clock; `ahead` says by how much."""

    ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class Site:
    def __init__(self, lineage: Lineage) -> None:
        self.realm = Realm(lineage)
        self.clock = SetClock(NOW)
        self.rotating = Rotating(self.realm, self.clock)
        self.routes = RotationRoutes(self.rotating, cluster="west").routes()

    async def ask(self, wanted: Rotate, path: str = "/v1/ca/rotation", **params: str) -> RotationStatus:
        (route,) = [each for each in self.routes if (each.method, each.path) == ("POST", path)]
        found: RotationStatus = await route.handler(Call(ADA, params, body=wanted))
        return found

    async def step(self, action: str, number: int, phase: str) -> str | None:
        asked = Rotate(action=action, number=number, phase=phase)  # type: ignore[arg-type]
        return (await self.ask(asked)).phase

    async def look(self, times: int = 1) -> str | None:
        for _ in range(times):
            await self.rotating.look()
        return self.rotating.status().phase


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    domain = TrustDomain.of_cluster("west", BASE)
    keys = FileKeyStore(tmp_path / "keys")
    lineage = await Lineage.open(tmp_path / "ca", keys, domain, ManualClock(NOW))
    yield Site(lineage)
    await lineage.close()


async def test_a_manual_rotation_waits_for_each_step_and_says_that_it_is_ready(site: Site) -> None:
    begun = await site.ask(Rotate(action="start", manual=True, why="a trial"))
    assert (begun.kind, begun.cluster, begun.number, begun.phase) == ("cluster", "west", 1, "prepared")
    assert await site.look(5) == "prepared"
    assert site.rotating.status().ready
    assert await site.step("advance", 1, "prepared") == "published"
    site.realm.away = True
    assert not site.rotating.status().ready


@pytest.mark.parametrize(
    "steps", [("prepared",), ("prepared", "published"), ("prepared", "published", "active")]
)
async def test_a_manual_rotation_that_is_turned_back_runs_to_its_end_by_itself(
    site: Site, steps: tuple[str, ...]
) -> None:
    await site.ask(Rotate(action="start", manual=True))
    for phase in steps[:-1]:
        await site.step("advance", 1, phase)
    await site.step("abort", 1, steps[-1])
    assert not site.rotating.status().ready
    assert await site.look(len(steps)) == "aborted"
    assert not site.rotating.status().running
    assert len(site.realm.lineage.authorities) == 1


async def test_turning_back_waits_for_everybody_all_the_same(site: Site) -> None:
    await site.ask(Rotate(action="start", manual=True))
    await site.step("advance", 1, "prepared")
    site.realm.away = True
    assert await site.step("abort", 1, "published") == "withdrawing"
    assert await site.look(5) == "withdrawing"
    site.realm.away = False
    assert await site.look() == "aborted"


async def test_a_step_whose_answer_was_lost_is_taken_once(site: Site) -> None:
    await site.ask(Rotate(action="start", manual=True))
    assert await site.step("advance", 1, "prepared") == "published"
    with pytest.raises(FederationError, match="rotation 1 is in the phase published now") as refused:
        await site.step("advance", 1, "prepared")
    assert "federation ca rotate cluster status west" in refused.value.hint
    assert site.rotating.status().phase == "published"


async def test_what_is_said_of_one_rotation_does_not_concern_the_next(site: Site) -> None:
    await site.ask(Rotate(action="start", manual=True))
    await site.step("abort", 1, "prepared")
    with pytest.raises(FederationError, match="no rotation is running: rotation 1 is in the phase aborted"):
        await site.step("abort", 1, "prepared")
    await site.ask(Rotate(action="start", manual=True))
    for action in ("advance", "abort"):
        with pytest.raises(FederationError, match="rotation 2 is in the phase prepared now"):
            await site.step(action, 1, "prepared")
    assert site.rotating.status().phase == "prepared"


@pytest.mark.parametrize("action", ["advance", "abort"])
async def test_nobody_steps_without_having_seen_what_is_there(site: Site, action: str) -> None:
    await site.ask(Rotate(action="start", manual=True))
    for said in ({}, {"number": 1}, {"phase": "prepared"}):
        with pytest.raises(ApiProblem, match="number and phase") as refused:
            await site.ask(Rotate(action=action, **said))  # type: ignore[arg-type]
        assert refused.value.status == 400
    assert site.rotating.status().phase == "prepared"


async def test_who_holds_a_step_up_is_named_with_what_to_do(site: Site) -> None:
    await site.ask(Rotate(action="start", manual=True))
    await site.step("advance", 1, "prepared")
    site.realm.away = True
    with pytest.raises(FederationError, match="central: its agent is not connected") as refused:
        await site.step("advance", 1, "published")
    assert "federation ca rotate quarantine central" in refused.value.hint
    found = site.rotating.status()
    (waits,) = found.blocking
    assert (waits.member, waits.since) == ("central", NOW - timedelta(hours=1))
    assert found.unawaited == ("north: it is quarantined",)


async def test_a_second_rotation_is_refused_with_a_command_that_can_be_copied(site: Site) -> None:
    await site.ask(Rotate(action="start"))
    with pytest.raises(ApiProblem, match="running already") as refused:
        await site.ask(Rotate(action="start"))
    assert "federation ca rotate cluster status west" in refused.value.hint


async def test_there_is_no_way_back_once_the_old_anchor_is_let_go_of(site: Site) -> None:
    await site.ask(Rotate(action="start", manual=True))
    for phase in ("prepared", "published", "active"):
        await site.step("advance", 1, phase)
    with pytest.raises(FederationError, match="no way back"):
        await site.step("abort", 1, "retiring")
    assert site.realm.lineage.issuer is site.realm.lineage.authorities[Side.NEW]


async def test_an_agent_answers_by_the_name_of_its_cluster_and_by_no_other(site: Site) -> None:
    path = "/v1/clusters/{name}/rotation"
    assert (await site.ask(Rotate(action="start"), path, name="west")).number == 1
    with pytest.raises(ApiProblem, match="'central'") as refused:
        await site.ask(Rotate(action="start"), path, name="central")
    assert (refused.value.status, "agent of west" in refused.value.hint) == (404, True)


@pytest.mark.parametrize("why", ["x" * 201, "two\nlines", "a\x1b[2J"])
async def test_a_reason_that_could_not_be_told_is_refused_before_anything_begins(
    site: Site, why: str
) -> None:
    with pytest.raises(ApiProblem, match="why: it ") as refused:
        await site.ask(Rotate(action="start", why=why))
    assert (refused.value.status, refused.value.hint) == (400, f"allowed: {ALLOWED}")
    assert not site.rotating.status().running


@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(days=-2)])
async def test_no_step_is_taken_while_the_clock_is_wrong(site: Site, ahead: timedelta) -> None:
    await site.ask(Rotate(action="start"))
    assert await site.look() == "published"
    site.clock.ahead = ahead
    for _ in range(3):
        with pytest.raises(ClockError):
            await site.rotating.look()
        with pytest.raises(FederationError, match="our clock"):
            await site.rotating.go_on(1, "published")
        site.clock.advance(1)
    assert site.rotating.status().phase == "published"
    site.clock.ahead = timedelta()
    assert await site.look() == "active"


async def test_a_clock_that_stays_where_it_was_set_is_believed_after_a_while(site: Site) -> None:
    await site.ask(Rotate(action="start"))
    assert await site.look() == "published"
    site.clock.ahead = timedelta(days=2)
    with pytest.raises(ClockError):
        await site.rotating.look()
    site.clock.advance(HOLD)
    assert await site.look() == "active"


async def test_a_clock_that_is_wrong_for_a_moment_begins_no_rotation(site: Site) -> None:
    site.realm.automatic = True
    assert await site.look() is None
    site.clock.ahead = site.rotating.status().due - site.clock.now()
    with pytest.raises(ClockError):
        await site.rotating.look()
    assert site.rotating.status().phase is None
    site.clock.ahead = timedelta()
    assert await site.look() is None


async def replaced(site: Site) -> None:
    await site.ask(Rotate(action="start"))
    await site.look(5)


@pytest.mark.parametrize(("method", "phase"), [("create", "prepared"), ("remove", "done")])
async def test_a_step_that_could_not_be_taken_before_a_restart_is_taken_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, phase: str
) -> None:
    """The process starts all the same, says what is wrong, begins nothing else, and goes on by itself."""
    keys, domain = FileKeyStore(tmp_path / "keys"), TrustDomain.of_cluster("west", BASE)

    async def away(*_: object) -> None:
        raise WriteError(Path("vault"), "does not answer")

    async def opened() -> Site:
        return Site(await Lineage.open(tmp_path / "ca", keys, domain, ManualClock(NOW)))

    site = await opened()
    with monkeypatch.context() as patch:
        patch.setattr(keys, method, away)
        with pytest.raises(WriteError, match="does not answer"):
            await replaced(site)
        await site.realm.lineage.close()
        site = await opened()
        running = asyncio.create_task(site.rotating.run())
        await eventually(lambda: site.rotating.problem is not None)
        status = site.rotating.status()
        assert (status.phase, status.problem) == (phase, "cannot write vault: does not answer")
        with pytest.raises(ApiProblem) as refused:
            await site.ask(Rotate(action="start"))
        assert refused.value.status == 409
    running.cancel()
    await asyncio.wait([running])
    assert await site.look(5) == "done"
    assert await keys.names() == {f"ca-{site.rotating.status().issuing}"} == {"ca-2"}
    await site.realm.lineage.close()
