"""Each thing that can be wrong has its line, says how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import msgspec
import pytest

from federation.api.messages import (
    AgentStatus,
    Check,
    CheckGroup,
    ClusterInfo,
    GatewayStatus,
    HubStatus,
    PeerStatus,
    RejectedResource,
)
from federation.checks import agent_checks, hub_checks
from tests.federation.world import JOINED, NOW

LIFE = timedelta(hours=24)
GATEWAY = GatewayStatus(
    name="gw-0",
    address="10.1.0.1:15443",
    connected=True,
    state="serving",
    snapshot=7,
    acknowledged=7,
    envoy="1.40",
    certificate_expires_at=NOW + LIFE,
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
    hub="hub.example:9443",
    services=1,
    exports=1,
    gateways=(GATEWAY,),
    peers=(PEER,),
    problems=(),
    certificate_expires_at=NOW + LIFE,
    authority_expires_at=NOW + timedelta(days=300),
)
EAST = ClusterInfo(
    name="east",
    trust_domain="east.mesh.example",
    state="active",
    region="eu",
    connected=True,
    silence=0.5,
    joined_at=JOINED,
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
    clusters=(EAST,),
    problems=(),
    certificate_expires_at=NOW + LIFE,
    root_expires_at=NOW + timedelta(days=3000),
)


def of_agent(status: AgentStatus) -> list[Check]:
    return wrong(agent_checks(status, NOW, LIFE))


def of_hub(status: HubStatus) -> list[Check]:
    return wrong(hub_checks(status, NOW, LIFE))


def wrong(groups: Iterable[CheckGroup]) -> list[Check]:
    return [check for group in groups for check in group.checks if check.result != "ok"]


def test_where_all_is_well_every_line_is_ok_and_needs_no_hint() -> None:
    groups = [*agent_checks(AGENT, NOW, LIFE), *hub_checks(HUB, NOW, LIFE)]
    assert [group.name for group in groups] == [
        "agent east",
        "gateways of east",
        "peers of east",
        "hub",
        "clusters",
    ]
    checks = [check for group in groups for check in group.checks]
    assert {check.result for check in checks} == {"ok"}
    assert {check.hint for check in checks} == {""}
    assert [check.name for check in checks] == [
        "connected to the hub hub.example:9443",
        "own certificate is valid",
        "authority is valid",
        "gw-0 at 10.1.0.1:15443 is connected",
        "gw-0 at 10.1.0.1:15443 has the newest configuration",
        "certificate of gw-0 is valid",
        "west is reached",
        "own certificate is valid",
        "root is valid",
        "east's agent is connected",
    ]


def gateway(**changes: object) -> AgentStatus:
    return msgspec.structs.replace(AGENT, gateways=(msgspec.structs.replace(GATEWAY, **changes),))


def peer(**changes: object) -> AgentStatus:
    return msgspec.structs.replace(AGENT, peers=(msgspec.structs.replace(PEER, **changes),))


def agent(**changes: object) -> AgentStatus:
    return msgspec.structs.replace(AGENT, **changes)


REFUSED = RejectedResource(type="Listener", name="default/echo:80", error="bad port")


@pytest.mark.parametrize(
    ("status", "result", "says", "hint"),
    [
        (agent(hub_connected=False), "warning", "connected to the hub", "goes on being served"),
        (agent(problems=("echo.yaml:3: no",)), "failure", "echo.yaml:3: no", "mend this"),
        (agent(certificate_expires_at=NOW + LIFE / 5), "warning", "own certificate is valid", "failing"),
        (agent(certificate_expires_at=NOW), "failure", "own certificate has ended", "failing"),
        (
            agent(authority_expires_at=NOW + timedelta(days=29)),
            "warning",
            "authority is valid",
            "plan for a new one",
        ),
        (agent(authority_expires_at=NOW - LIFE), "failure", "authority has ended", "not renewed by itself"),
        (agent(gateways=()), "failure", "there is no gateway", "token create --gateway"),
        (gateway(connected=False, state="silent"), "failure", "gw-0 at 10.1.0.1:15443", "from its disk"),
        (gateway(acknowledged=6), "warning", "has the newest configuration", "look again"),
        (gateway(rejected=(REFUSED,)), "failure", "refused Listener default/echo:80", "last good version"),
        (gateway(certificate_expires_at=NOW), "failure", "certificate of gw-0 has ended", "failing"),
        (peer(trusted=False), "warning", "west cannot be verified yet", "published its bundle"),
        (peer(path="down"), "failure", "west is not reached", "traffic has moved"),
        (peer(lease="suspect"), "warning", "west is reached", "still used"),
        (peer(lease="expired"), "warning", "west is reached", "still used"),
    ],
)
def test_what_is_wrong_at_an_agent(status: AgentStatus, result: str, says: str, hint: str) -> None:
    [found] = of_agent(status)
    assert found.result == result
    assert says in found.name
    assert hint in found.hint


def test_details_say_how_much() -> None:
    assert of_agent(gateway(acknowledged=6))[0].detail == "snapshot 6 of 7"
    assert of_agent(gateway(rejected=(REFUSED,)))[0].detail == "bad port"
    assert of_agent(peer(path="down", lease="expired"))[0].detail == "lease expired, path down"
    assert of_agent(agent(certificate_expires_at=NOW + timedelta(minutes=30)))[0].detail == "0.5 hours left"
    assert of_agent(agent(authority_expires_at=NOW + timedelta(days=29)))[0].detail == "29 days left"


def test_a_gateway_that_is_gone_is_said_once_and_one_that_never_had_a_certificate_not_to_lose_it() -> None:
    [found] = of_agent(gateway(connected=False, state="silent", acknowledged=0, certificate_expires_at=None))
    assert found.detail == "silent"


def test_the_end_of_a_certificate_is_near_by_the_share_of_its_life() -> None:
    soon = agent(certificate_expires_at=NOW + timedelta(minutes=20), gateways=(), peers=())
    own = [check for group in agent_checks(soon, NOW, timedelta(hours=1)) for check in group.checks][1]
    assert (own.name, own.result) == ("own certificate is valid", "ok")


def cluster(**changes: object) -> HubStatus:
    return msgspec.structs.replace(HUB, clusters=(msgspec.structs.replace(EAST, **changes),))


def hub(**changes: object) -> HubStatus:
    return msgspec.structs.replace(HUB, **changes)


@pytest.mark.parametrize(
    ("status", "result", "says", "hint"),
    [
        (hub(problems=("the store is full",)), "failure", "the store is full", "mend this"),
        (hub(certificate_expires_at=NOW + LIFE / 5), "warning", "own certificate is valid", "failing"),
        (hub(root_expires_at=NOW + timedelta(days=179)), "warning", "root is valid", "plan for a new one"),
        (hub(root_expires_at=NOW), "failure", "root has ended", "not renewed by itself"),
        (cluster(connected=False), "failure", "east's agent is connected", "others go on"),
        (
            cluster(refused=("spec/a/b: may-export",)),
            "warning",
            "east: spec/a/b",
            "federation cluster set east",
        ),
    ],
)
def test_what_is_wrong_at_a_hub(status: HubStatus, result: str, says: str, hint: str) -> None:
    [found] = of_hub(status)
    assert found.result == result
    assert says in found.name
    assert hint in found.hint
