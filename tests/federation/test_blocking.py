"""Who holds a rotation up is told with a reason and a way out, whoever it is and whatever is missing."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest

from federation.blocking import Kind, Seen, command, of_another, of_the_driver
from pki.rotation import Blocker, Lack
from tests.federation.world import NOW

PUBLISHED = (1, 5)
HERE = Seen(connected=True, says=True)


def told(name: str, lack: Lack, seen: Seen) -> tuple[str, str]:
    found = of_another(Blocker(name, lack), seen, PUBLISHED)
    assert found.member == name
    return found.reason, found.todo


@pytest.mark.parametrize("lack", Lack)
@pytest.mark.parametrize("connected", [True, False, None])
@pytest.mark.parametrize("name", ["west", "hub"])
def test_nobody_blocks_without_a_reason_and_a_way_out(name: str, connected: bool | None, lack: Lack) -> None:
    reason, todo = told(name, lack, Seen(connected, says=True))
    assert reason
    assert todo


@pytest.mark.parametrize("lack", Lack)
@pytest.mark.parametrize("kind", get_args(Kind))
def test_neither_does_the_driver_itself(kind: Kind, lack: Lack) -> None:
    found = of_the_driver(Blocker("west", lack), kind, ("gateway gw-0, connected",))
    assert found.reason
    assert found.todo
    assert found.who == ("gateway gw-0, connected",)


def test_one_that_is_away_is_said_to_be_away_since_when_and_how_to_go_on_without_it() -> None:
    since = NOW - timedelta(hours=1)
    found = of_another(Blocker("west", Lack.ANCHORS), Seen(False, since, True, (1, 4)), PUBLISHED)
    assert "not connected" in found.reason
    assert found.since == since
    assert "federation ca rotate quarantine west" in found.todo


def test_the_hub_has_no_gateways_and_is_never_quarantined() -> None:
    for lack in Lack:
        for connected in (True, False):
            reason, todo = told("hub", lack, Seen(connected, says=True, held=(1, 4)))
            assert "gateway" not in reason
            assert "quarantined" not in todo


def test_while_the_hub_is_away_nobody_is_blamed_for_his_silence() -> None:
    reason, todo = told("west", Lack.REPORT, Seen(None))
    assert "while the hub is not connected" in reason
    assert "quarantined" not in todo


def test_one_that_never_says_what_it_holds_is_of_an_old_version() -> None:
    reason, todo = told("west", Lack.REPORT, Seen(True, says=False))
    assert "version is too old" in reason
    assert todo == "bring the agent of west to this version"


def test_versions_are_numbers_that_people_can_compare() -> None:
    reason, todo = told("west", Lack.ANCHORS, Seen(True, None, True, (1, 4)))
    assert "version 5 of the anchors; it goes by 4" in reason
    assert "federation check" in todo
    began_anew, _ = told("west", Lack.ANCHORS, Seen(True, None, True, (0, 9)))
    assert "it goes by 0.9" in began_anew


def test_a_version_from_the_future_means_that_ours_is_an_old_copy() -> None:
    reason, todo = told("west", Lack.ANCHORS, Seen(True, None, True, (1, 6)))
    assert "old copy" in reason
    assert "newest copy" in todo


def test_who_is_there_has_held_it_up_since_the_phase_began() -> None:
    another = of_another(Blocker("west", Lack.ANCHORS), Seen(True, None, True, (1, 4)), PUBLISHED, NOW)
    own = of_the_driver(Blocker("east", Lack.ANCHORS), "cluster", ("gateway gw-0, connected",), NOW)
    away = of_another(Blocker("west", Lack.ANCHORS), Seen(False), PUBLISHED, NOW)
    assert (another.since, own.since, away.since) == (NOW, NOW, None)


def test_without_a_gateway_to_blame_the_driver_has_not_published_yet() -> None:
    nobody = of_the_driver(Blocker("west", Lack.ANCHORS), "cluster", ())
    assert "not published" in nobody.reason


@pytest.mark.parametrize(
    ("kind", "says"),
    [("cluster", "federation ca ban"), ("hub", "federation operator remove"), ("root", "signed")],
)
def test_certificates_that_live_on_can_be_let_go_of(kind: Kind, says: str) -> None:
    found = of_the_driver(Blocker("hub", Lack.LEAVES), kind, ("ada until tomorrow",))
    assert says in found.todo


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cluster", "federation ca rotate cluster status west"),
        ("hub", "federation ca rotate hub status"),
        ("root", "federation ca rotate root status"),
    ],
)
def test_a_command_is_complete(kind: Kind, said: str) -> None:
    assert command(kind, "west", "status") == said
