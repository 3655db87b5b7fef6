"""What `federation check` says of each state: every failure has a hint, and what is fine has none."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from federation.api.messages import (
    AgentStatus,
    Blocking,
    Check,
    CheckGroup,
    ClusterInfo,
    GatewayStatus,
    HubStatus,
    PeerStatus,
    RejectedResource,
    RotationStatus,
)
from federation.checks import DEADLINE_SOON, HELD_UP_FOR, agent_checks, hub_checks
from federation.sync.protocol import REMOVED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

GATEWAY = GatewayStatus(
    name="gw-0",
    address="10.1.0.1:15443",
    connected=True,
    state="serving",
    snapshot=7,
    acknowledged=7,
    envoy="1.40",
    certificate_expires_at=NOW + DAY / 2,
)
PEER = PeerStatus(
    name="west", region="eu", state="active", lease="fresh", silence=1.0, path="up", trusted=True
)
AGENT = AgentStatus(
    version="1",
    pid=1,
    cluster="east",
    region="eu",
    hub_connected=True,
    hub="10.0.0.1:8444",
    hub_problem="",
    services=1,
    exports=1,
    gateways=(GATEWAY,),
    peers=(PEER,),
    problems=(),
    certificate_expires_at=NOW + DAY / 2,
    authority_expires_at=NOW + 300 * DAY,
)
CLUSTER = ClusterInfo(
    name="east",
    trust_domain="east.mesh.example",
    state="active",
    region="eu",
    connected=True,
    silence=1.0,
    joined_at=NOW,
    may_export=("*/*",),
    ranges=("10.1.0.0/16",),
    gateways=(),
    exports=1,
)
HUB = HubStatus(
    version="1",
    pid=1,
    base="mesh.example",
    root="online",
    clusters=(CLUSTER,),
    problems=(),
    certificate_expires_at=NOW + DAY / 2,
    root_expires_at=NOW + 3000 * DAY,
)


def agent(**changes: object) -> tuple[CheckGroup, ...]:
    return agent_checks(replace(AGENT, **changes), NOW, DAY)


def hub(**changes: object) -> tuple[CheckGroup, ...]:
    return hub_checks(replace(HUB, **changes), NOW, DAY)


def gateway(**changes: object) -> tuple[CheckGroup, ...]:
    return agent(gateways=(replace(GATEWAY, **changes),))


def peer(**changes: object) -> tuple[CheckGroup, ...]:
    return agent(peers=(replace(PEER, **changes),))


def cluster(**changes: object) -> tuple[CheckGroup, ...]:
    return hub(clusters=(replace(CLUSTER, **changes),))


ROTATION = RotationStatus(
    kind="cluster",
    cluster="east",
    trust_domain="east.mesh.example",
    number=3,
    phase="published",
    running=True,
    manual=False,
    epochs=(1, 2),
    issuing=1,
    sequence=2,
    begun_at=NOW,
    who="ada",
    why="",
    entered_at=NOW - HELD_UP_FOR,
    reversible=True,
    ready=False,
    blocking=(Blocking(member="west", reason="its agent is not connected", todo="start it"),),
    unawaited=(),
    deadline=NOW + 60 * DAY,
    due=NOW + 90 * DAY,
    ends=NOW + 120 * DAY,
    problem=None,
)
MOMENT = timedelta(seconds=1)
BANNED = "cluster west is banned: its nodes were broken into"


def rotation(**changes: object) -> list[Check]:
    """What is wrong with one, at the agent; the hub says the same of its own."""
    found = (replace(ROTATION, **changes),)
    at_agent, at_hub = unwell(agent(rotations=found)), unwell(hub(rotations=found))
    assert at_agent == at_hub
    return at_agent


def test_a_rotation_that_goes_on_is_fine() -> None:
    assert rotation() == []
    assert rotation(ready=True, blocking=()) == []
    [shown] = [check for check in agent(rotations=(ROTATION,))[0].checks if "rotation" in check.name]
    assert shown.detail == "published since 10 minutes, waits for 1"


def test_a_rotation_that_is_held_up_for_long_says_by_whom_and_what_to_do() -> None:
    first, second = rotation(entered_at=NOW - HELD_UP_FOR - MOMENT)
    assert {first.result, second.result} == {"warning"}
    assert first.hint == "federation ca rotate cluster status east"
    assert (second.name, second.detail, second.hint) == (
        "the rotation waits for west",
        "its agent is not connected",
        "start it",
    )


def test_a_rotation_that_waits_for_an_operator_for_long_says_so() -> None:
    [found] = rotation(entered_at=NOW - HELD_UP_FOR - MOMENT, ready=True, blocking=(), kind="hub", cluster="")
    assert "waits for an operator" in found.detail
    assert found.hint == "federation ca rotate hub advance"


@pytest.mark.parametrize(
    ("left", "result"),
    [(DEADLINE_SOON, "warning"), (MOMENT, "warning"), (timedelta(0), "failure"), (-DAY, "failure")],
)
def test_a_deadline_that_comes_near_warns_and_one_that_is_over_fails(left: timedelta, result: str) -> None:
    [found] = rotation(deadline=NOW + left)
    assert found.result == result
    assert "may wait until" in found.name
    assert rotation(deadline=NOW + DEADLINE_SOON + MOMENT) == []


def test_a_rotation_that_cannot_go_on_fails() -> None:
    [found] = rotation(problem="no space left on device")
    assert (found.result, "no space left" in found.detail) == ("failure", True)


def test_an_authority_that_should_have_been_replaced_says_where_to_look() -> None:
    [found] = unwell(agent(authority_expires_at=NOW + DAY))
    assert found.hint == "its rotation is held up: federation ca rotate cluster status east"


def test_a_gateway_that_others_may_wait_for_is_named() -> None:
    [found] = unwell(agent(behind=("gateway gw-0, connected, has not acknowledged the anchors of west",)))
    assert (found.result, "gw-0" in found.name) == ("warning", True)
    assert "/v1/gateways/NAME" in found.hint


def unwell(groups: Iterable[CheckGroup]) -> list[Check]:
    return [check for group in groups for check in group.checks if check.result != "ok"]


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    for groups in (agent(), hub()):
        assert unwell(groups) == []
        assert all(not check.hint for group in groups for check in group.checks)
    assert [group.name for group in agent()] == ["agent east", "gateways of east", "peers of east"]
    assert [group.name for group in hub()] == ["hub", "clusters"]


@pytest.mark.parametrize(
    ("groups", "result", "says"),
    [
        (agent(hub_connected=False), "warning", "connected to the hub 10.0.0.1:8444"),
        (agent(problems=("echo.yaml:3: bad",)), "failure", "echo.yaml:3: bad"),
        (agent(certificate_expires_at=NOW + DAY / 5), "warning", "own certificate is valid"),
        (agent(certificate_expires_at=NOW), "failure", "own certificate has ended"),
        (agent(authority_expires_at=NOW + 29 * DAY), "warning", "authority is valid"),
        (agent(gateways=()), "failure", "there is no gateway"),
        (gateway(connected=False, state="silent"), "failure", "gw-0 at 10.1.0.1:15443 is connected"),
        (
            gateway(connected=False, state="serving"),
            "warning",
            "gw-0 at 10.1.0.1:15443 reports, and has not asked for its configuration yet",
        ),
        (gateway(acknowledged=6), "warning", "gw-0 at 10.1.0.1:15443 has the newest configuration"),
        (
            gateway(rejected=(RejectedResource(type="Listener", name="x", error="no"),)),
            "failure",
            "gw-0 at 10.1.0.1:15443: its Envoy refused Listener x",
        ),
        (gateway(certificate_expires_at=NOW - DAY), "failure", "certificate of gw-0 has ended"),
        (gateway(certificate_expires_at=NOW + DAY / 5), "warning", "certificate of gw-0 is valid"),
        (peer(trusted=False), "warning", "west cannot be verified yet"),
        (peer(path="down"), "failure", "west is not reached"),
        (peer(path="down", lease="expired"), "failure", "west is not reached"),
        (peer(lease="suspect"), "warning", "west is reached"),
        (hub(problems=("disk full",)), "failure", "disk full"),
        (hub(root_expires_at=NOW + 179 * DAY), "warning", "root is valid"),
        (cluster(connected=False), "failure", "east's agent is connected"),
        (cluster(refused=("load/x: too many",)), "warning", "east: load/x: too many"),
        (peer(trusted=False, banned=BANNED), "warning", BANNED),
        (cluster(connected=False, waits_for_root=True, banned=BANNED), "warning", BANNED),
    ],
)
def test_what_is_wrong_is_one_line_with_a_hint(
    groups: tuple[CheckGroup, ...], result: str, says: str
) -> None:
    (found,) = unwell(groups)
    assert (found.result, found.name) == (result, says)
    assert found.hint


def test_a_ban_is_told_with_how_it_is_taken_back() -> None:
    for (found,) in (unwell(peer(trusted=False, banned=BANNED)), unwell(cluster(banned=BANNED))):
        assert "federation ca unban" in found.hint


def test_a_cluster_that_was_removed_is_told_how_it_comes_back() -> None:
    (found,) = unwell(agent(hub_connected=False, hub_problem=f"ABORTED: {REMOVED}"))
    assert found.result == "failure"
    assert REMOVED in found.detail
    assert "token create east" in found.hint
    assert "join_token" in found.hint


def test_how_long_a_certificate_lives_is_said_in_hours_and_then_in_days() -> None:
    detail = {check.name: check.detail for group in agent() for check in group.checks}
    assert detail["own certificate is valid"] == "12.0 hours left"
    assert detail["authority is valid"] == "300 days left"


def test_a_day_that_is_not_whole_does_not_count() -> None:
    """As in `ca tree`, or one of the two would be doubted."""
    almost = agent(authority_expires_at=NOW + 300 * DAY - timedelta(hours=1))
    detail = {check.name: check.detail for group in almost for check in group.checks}
    assert detail["authority is valid"] == "299 days left"


def test_a_gateway_that_is_not_connected_is_not_asked_about_its_configuration() -> None:
    names = [check.name for group in gateway(connected=False, acknowledged=0) for check in group.checks]
    assert not [name for name in names if "newest configuration" in name]
