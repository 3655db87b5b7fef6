"""What an agent says of itself, from real parts that nobody has connected to a hub yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from federation.api.messages import AgentStatus
from federation.api.routes import encode
from federation.app.agent_state import MOST_PROBLEMS, AgentState
from federation.attest import Instances
from federation.banned import Ban, BanKind
from federation.clock import ManualClock, SystemClock
from federation.discovery.files import FileDiscovery
from federation.events import (
    BanChanged,
    BanGone,
    BeatHeard,
    Event,
    GatewayReported,
    HubChanged,
    LocalChanged,
    MemberGone,
    Tick,
)
from federation.gateways import Gateways
from federation.identity import Identity
from federation.listen import HostPort
from federation.model import Path as PathSeen
from federation.model import Service
from federation.questions import Question
from federation.rotating import Rotating
from federation.store import MemoryStore
from federation.sync.client import Credentials, Ports, SyncClient
from federation.sync.importer import Importer
from federation.sync.publisher import Publisher
from federation.telemetry import AgentMetrics
from pki.bundle import Bundle, Rejected
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.discovery.objects import EXPORT, SERVICE, SLICE, joined
from tests.federation.lives import EVERYBODY, Life, eventually
from tests.federation.realms import Realm
from tests.federation.world import BASE, NOW, backend, gateway, local

EAST = TrustDomain.of_cluster("east", BASE)
HUB = HostPort("127.0.0.1:1")
DAY = timedelta(days=1)
NO_RECORD = "gateways are not served yet: waiting for its own record from the hub"


def nobody(_: Bundle | None, __: Bundle) -> Rejected:
    raise AssertionError("nobody is heard here")


class Process:
    """The parts of an agent's process, of which the folder of services alone is running."""

    def __init__(self, life: Life, authority: Lineage, identity: Identity, folder: Path) -> None:
        self.life = life
        self.services = folder / "services"
        self.services.mkdir()
        clock = ManualClock(NOW)
        publisher = Publisher("east", 0)
        self.discovery = FileDiscovery(self.services, self.emit, SystemClock(), rescan=0.05)

        async def answer(_: Question) -> tuple[int, bytes]:
            return 404, b""

        def credentials() -> Credentials:
            return Credentials(authority.bundle().pem(), identity.current.chain, identity.current.key)

        self.sync = SyncClient(
            HUB,
            TrustDomain.of_hub(BASE),
            publisher,
            Importer("east", BASE, nobody),
            Ports(credentials, life.knowledge, life.agent.submit, answer),
            clock,
        )
        self.state = AgentState(
            agent=life.agent,
            gateways=Gateways(
                life.agent, authority.bundle, Instances(MemoryStore()), clock, authority.certified
            ),
            discovery=self.discovery,
            publisher=publisher,
            knowledge=life.knowledge,
            sync=self.sync,
            identity=identity,
            authority=authority,
            hub=HUB,
            leaf_life=DAY,
            metrics=AgentMetrics(),
            clock=clock,
            rotation=lambda: self.rotating.status(),
        )
        self.realm = Realm(authority)
        self.rotating = Rotating(self.realm, clock)

    def emit(self, *events: Event) -> None:
        self.life.agent.step(events)

    def status(self) -> AgentStatus:
        return self.state.status()

    async def metric(self, name: str) -> float:
        lines = (await self.state.exposition()).decode().splitlines()
        [value] = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == name]
        return float(value)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    clock = ManualClock(NOW)
    authority = await Lineage.open(tmp_path / "ca", FileKeyStore(tmp_path / "keys"), EAST, clock)
    root = await RootAuthority.create(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    rooted = await root.sign_cluster_ca(await authority.csr(), EAST, who="east", why="a join")
    await authority.accept_root_signed(rooted, root.certificate)
    await root.close()
    identity = Identity(authority, SpiffeId.agent(EAST), tmp_path / "leaf.pem", DAY, clock)
    await identity.start()
    life = await Life.begin(MemoryStore(), ())
    process = Process(life, authority, identity, tmp_path)
    task = asyncio.create_task(process.discovery.run(), name="discovery")
    try:
        await eventually(process.discovery.listed.is_set)
        yield process
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await authority.close()


async def test_an_agent_is_ready_when_it_has_spoken_and_says_what_it_waits_for(process: Process) -> None:
    agent = process.life.agent
    assert (await process.state.healthy())[0]
    ready, detail = await process.state.ready()
    assert not ready
    assert detail["waiting_for"] == ["local services", "its own record from the hub"]
    assert NO_RECORD in process.status().problems
    agent.services_listed()
    agent.step(())
    assert (await process.state.ready())[1]["waiting_for"] == ["its own record from the hub"]
    agent.step(EVERYBODY)
    assert await process.state.ready() == (True, {"ready": True, "waiting_for": []})
    assert process.status().problems == ()


async def test_an_agent_that_no_root_has_signed_says_who_has_to(process: Process, tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    waiting = await Lineage.open(tmp_path / "waiting", FileKeyStore(tmp_path / "more"), EAST, clock)
    status = replace(process.state, authority=waiting).status()
    assert [one for one in status.problems if "has not signed our authority" in one]
    assert not [one for one in process.status().problems if "the root" in one]
    await waiting.close()


async def test_status_counts_what_there_is(process: Process) -> None:
    agent = process.life.agent
    agent.services_listed()
    west = {"west": PathSeen(0, 1)}
    agent.step([*EVERYBODY, LocalChanged(local(backend(1))), GatewayReported(gateway(), west, {})])
    agent.step([HubChanged(True), BeatHeard("west", 1), Tick(NOW, 20.0)])
    status = process.status()
    assert (status.cluster, status.region, status.services, status.exports) == ("east", "eu", 1, 1)
    assert (status.hub, status.hub_connected) == (str(HUB), False)
    assert status.certificate_expires_at == process.state.identity.current.certificate.not_valid_after_utc
    assert [one.name for one in status.gateways] == ["gw-0"]
    peers = {peer.name: (peer.lease, peer.path, peer.trusted, peer.silence) for peer in status.peers}
    assert peers == {"central": ("suspect", "unknown", True, 20.0), "west": ("suspect", "down", True, 20.0)}
    assert encode(status)
    failed = [
        check.name for group in process.state.checks() for check in group.checks if check.result == "failure"
    ]
    assert failed == ["gw-0 at 10.1.0.1:15443 is connected", "west is not reached"]


async def test_a_peer_that_is_banned_is_told_as_such(process: Process) -> None:
    agent = process.life.agent
    agent.step(EVERYBODY)
    ban = Ban(BanKind.CLUSTER, "west", "stolen", NOW)
    agent.step([BanChanged(ban)])
    assert {peer.name: peer.banned for peer in process.status().peers} == {"central": "", "west": str(ban)}
    assert str(ban) in {check.name for group in process.state.checks() for check in group.checks}
    agent.step([BanGone(ban.key)])
    assert {peer.banned for peer in process.status().peers} == {""}


async def test_everything_that_is_wrong_is_told_once(process: Process) -> None:
    agent = process.life.agent
    agent.services_listed()
    outside = replace(backend(1), address="10.9.9.9")
    agent.step([*EVERYBODY, LocalChanged(local(outside, outside)), GatewayReported(gateway(), {}, {})])
    agent.step([GatewayReported(replace(gateway("gw-1"), bind_port=20000), {}, {})])
    process.life.knowledge.problem = "the disk takes no more"
    (process.services / "bad.yaml").write_text("kind: Servce\n")
    await eventually(lambda: bool(process.discovery.problems()))
    problems = process.status().problems
    assert len(problems) == len(set(problems)) == 5
    for part in (
        "bad.yaml:1: kind",
        "10.9.9.9 is outside",
        "a snapshot is withheld",
        "the disk takes no more",
    ):
        assert any(part in problem for problem in problems), (part, problems)


async def test_a_gateway_out_of_our_ranges_is_told_with_the_way_to_mend_it(process: Process) -> None:
    process.life.agent.services_listed()
    process.life.agent.step([*EVERYBODY, GatewayReported(gateway(address="10.9.0.1"), {}, {})])
    [problem] = process.status().problems
    assert problem.startswith("gateway gw-0 is not offered to other clusters: 10.9.0.1 is outside")
    assert "federation cluster set east --range" in problem
    failed = {
        check.name for group in process.state.checks() for check in group.checks if check.result == "failure"
    }
    assert problem in failed


async def test_problems_of_files_use_the_ranges_that_the_registry_gave(process: Process) -> None:
    process.life.agent.services_listed()
    (process.services / "echo.yaml").write_text(
        joined(SERVICE, SLICE, EXPORT).replace("10.1.0.1", "10.9.0.1")
    )
    await eventually(lambda: Service("default", "echo") in process.life.agent.view.local)
    assert process.status().problems == (NO_RECORD,)
    process.life.agent.step(EVERYBODY)
    (told,) = process.status().problems
    assert "echo.yaml:18: endpoints[0].addresses[0]" in told


async def test_a_dead_hub_is_told_once(process: Process) -> None:
    process.life.agent.services_listed()
    process.life.agent.step([*EVERYBODY, GatewayReported(gateway(), {}, {})])
    assert process.status().hub_problem == "not connected yet"
    about = [each for group in process.state.checks() for each in group.checks if "hub" in str(each)]
    assert [(each.result, each.detail) for each in about] == [("warning", "not connected yet")]


async def test_no_more_is_told_than_can_be_read(process: Process) -> None:
    """And nothing is looked at for it but what is wrong."""
    process.life.agent.services_listed()
    bad = replace(backend(1), address="10.9.9.9")
    wrong = [Service("default", f"s{number}") for number in range(MOST_PROBLEMS + 1)]
    process.life.agent.step(EVERYBODY)
    process.life.agent.step([LocalChanged(local(bad, service=each)) for each in wrong[1:]])
    problems = process.status().problems
    assert len(problems) == MOST_PROBLEMS
    process.life.agent.step([LocalChanged(local(bad, service=wrong[0]))])
    assert process.status().problems[-1] == f"there are more than these {MOST_PROBLEMS}"
    process.life.agent.step([LocalChanged(local(backend(1), service=each)) for each in wrong])
    assert process.status().problems == ()


async def test_metrics_follow_the_state(process: Process) -> None:
    agent = process.life.agent
    agent.services_listed()
    agent.step(
        [*EVERYBODY, LocalChanged(local(backend(1))), HubChanged(True), BeatHeard("west", 1), Tick(NOW, 3.0)]
    )
    assert await process.metric("federation_agent_services") == 1
    assert await process.metric("federation_agent_hub_connected") == 0
    assert await process.metric('federation_agent_peer_silence_seconds{cluster="west"}') == 3
    agent.step([MemberGone("west")])
    assert 'cluster="west"' not in (await process.state.exposition()).decode()


async def test_a_rotation_is_seen_in_status_checks_and_metrics_as_long_as_it_runs(process: Process) -> None:
    label = '{authority="cluster"}'
    assert process.status().rotations == ()
    assert await process.metric(f"federation_agent_rotation_held_up_by{label}") == 0
    process.realm.away = True
    await process.rotating.start("ada", "", manual=False)
    await process.rotating.look()
    [found] = process.status().rotations
    assert (found.cluster, found.phase, [each.member for each in found.blocking]) == (
        "west",
        "published",
        ["central"],
    )
    names = [check.name for group in process.state.checks() for check in group.checks]
    assert f"rotation 1 of {EAST}" in names
    published = '{authority="cluster",phase="published"}'
    assert await process.metric(f"federation_agent_rotation_phase{published}") == 1
    assert await process.metric(f"federation_agent_rotation_held_up_by{label}") == 1
    assert await process.metric(f"federation_agent_rotation_phase_start_seconds{label}") == NOW.timestamp()
    assert (
        await process.metric(f"federation_agent_rotation_deadline_seconds{label}")
        == found.deadline.timestamp()
    )
    process.realm.away = False
    for _ in range(4):
        await process.rotating.look()
    assert process.status().rotations == ()
    assert await process.metric(f"federation_agent_rotation_phase{published}") == 0
    assert await process.metric(f"federation_agent_rotation_phase_start_seconds{label}") == 0


async def test_a_gateway_that_does_not_hold_the_anchors_of_another_cluster_is_named(process: Process) -> None:
    assert process.status().behind == ()
    process.life.agent.services_listed()
    process.emit(*EVERYBODY, GatewayReported(gateway(), {}, {}))
    [line] = process.status().behind
    assert line.startswith(
        "gateway gw-0, silent since this agent started, has not acknowledged the anchors of "
    )
    assert "west.mesh.example" in line
    warned = [check for group in process.state.checks() for check in group.checks if check.name == line]
    assert [check.result for check in warned] == ["warning"]


async def test_only_a_known_silent_gateway_is_forgotten(process: Process) -> None:
    assert not await process.state.forget_gateway("gw-0")
    process.life.agent.step([GatewayReported(gateway(), {}, {})])
    assert await process.state.forget_gateway("gw-0")
    process.life.agent.catch_up()
    assert dict(process.life.agent.view.gateways) == {}
