"""What can be watched of the authorities of an agent and a hub: each number, as it is scraped, follows what happens."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from federation.app.auditing import KeptByAgent
from federation.app.figures import watch_agent, watch_hub
from federation.banned import Ban, BanKind
from federation.clock import ManualClock
from federation.events import BanChanged, BanGone, HeadsTold
from federation.heads import Heads, JournalHead
from federation.hub import Hub
from federation.identity import Identity
from federation.join import Membership
from federation.listen import HostPort
from federation.registry import Registry
from federation.store import MemoryStore
from federation.telemetry import AgentMetrics, HubMetrics
from federation.trust import Trust
from pki import csr
from pki.errors import JournalError, Refused
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root_lineage import RootLineage
from pki.rotation import advance
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.lives import EVERYBODY, Life
from tests.federation.world import BASE, NOW
from tests.pki.world import granted, new_key

EAST = TrustDomain.of_cluster("east", BASE)
GATEWAY = SpiffeId.gateway(EAST, "eastwest")
OTHER = SpiffeId.gateway(EAST, "ingress")
DAY = timedelta(days=1)


@dataclass
class World:
    """The authorities of an agent and of its hub, and what is watched of both."""

    root: RootLineage
    hub_authority: Lineage
    hub: Hub
    east: Lineage
    identity: Identity
    life: Life
    agent: AgentMetrics
    at_hub: HubMetrics

    def all(self) -> dict[str, float]:
        lines = (self.agent.render() + self.at_hub.render()).decode().splitlines()
        found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        assert len({name for name, _, _ in found}) == len(found), "each sample once"
        return {name.removeprefix("federation_"): float(value) for name, _, value in found}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock(NOW)
    root = await RootLineage.open(tmp_path / "root", FileKeyStore(tmp_path / "root-keys"), BASE, clock)
    hub_domain = TrustDomain.of_hub(BASE)
    hub_ca = await Lineage.open(tmp_path / "hub", FileKeyStore(tmp_path / "hub-keys"), hub_domain, clock)
    east = await Lineage.open(tmp_path / "east", FileKeyStore(tmp_path / "keys"), EAST, clock)
    rooted = await root.sign_cluster_ca(await east.csr(), EAST, who="east", why="a join")
    await east.accept_root_signed(rooted, root.certificate)
    identity = Identity(east, SpiffeId.agent(EAST), tmp_path / "leaf.pem", DAY, clock)
    await identity.start()
    own = Identity(hub_ca, SpiffeId.federation(hub_domain), tmp_path / "hub.pem", DAY, clock)
    await own.start()
    life = await Life.begin(MemoryStore(), EVERYBODY)
    member = Membership(
        BASE, HostPort("127.0.0.1:1"), NOW, root.certificate, hub_ca.bundle(), "", "https://127.0.0.1:1"
    )
    trust = Trust.open(tmp_path, member, clock)
    agent, at_hub = AgentMetrics(), HubMetrics()
    hub = Hub(Registry(MemoryStore()), lambda: (root.certificate,), BASE, clock, at_hub)
    await hub.start()
    watch_agent(agent, east, identity, life.agent, trust, KeptByAgent(life.agent))
    watch_hub(at_hub, root, hub_ca, own, hub)
    yield World(root, hub_ca, hub, east, identity, life, agent, at_hub)
    for each in (east, hub_ca, root):
        await each.close()


async def test_what_is_given_out_and_refused_is_counted_by_profile_and_reason(world: World) -> None:
    key = csr.request(new_key())
    for _ in range(2):
        await world.east.issue(key, granted(GATEWAY), who="t", why="t")
    with pytest.raises(Refused):
        await world.east.issue(key, granted(OTHER), who="t", why="t")
    other_domain = await world.hub_authority.csr()
    with pytest.raises(Refused):
        await world.root.sign_cluster_ca(other_domain, EAST, who="east", why="another's request")
    found = world.all()
    assert found['agent_certificates_issued_total{profile="gateway"}'] == 2
    assert found['agent_certificates_issued_total{profile="agent"}'] == 1
    assert found['agent_certificates_refused_total{profile="gateway",reason="key"}'] == 1
    assert found['hub_certificates_issued_total{profile="federation"}'] == 1
    assert found['hub_certificates_issued_total{profile="cluster-ca-rooted"}'] == 1
    assert found['hub_certificates_refused_total{profile="cluster-ca-rooted",reason="csr"}'] == 1


async def test_a_journal_that_cannot_be_written_is_told_until_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    before = world.all()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(JournalError):
            await world.identity.renew()
    found = world.all()
    assert (found["agent_journal_write_failures_total"], found["agent_journals_failing"]) == (1, 1)
    assert found['agent_certificates_refused_total{profile="agent",reason="journal"}'] == 1
    assert (found["hub_journal_write_failures_total"], found["hub_journals_failing"]) == (0, 0)
    written = "agent_journal_written_timestamp_seconds"
    assert found[written] == before[written] == NOW.timestamp()
    await world.identity.renew()
    found = world.all()
    assert (found["agent_journal_write_failures_total"], found["agent_journals_failing"]) == (1, 0)


async def test_ends_and_versions_are_those_of_now_also_in_a_rotation(world: World) -> None:
    def ends(which: str) -> float:
        return world.all()[f'agent_certificate_expiry_seconds{{which="{which}"}}']

    assert ends("own") == world.identity.current.certificate.not_valid_after_utc.timestamp()
    assert ends("authority") == world.east.self_signed.not_valid_after_utc.timestamp()
    assert world.east.root_signed is not None
    assert ends("root_signed") == world.east.root_signed.not_valid_after_utc.timestamp()
    assert ends("root") == world.root.certificate.not_valid_after_utc.timestamp()
    sequence, generation = (f'{{trust_domain="{EAST}"}}' for _ in range(2))
    before = world.all()
    assert 'agent_certificate_expiry_seconds{which="other_authority"}' not in before
    await world.east.begin("ada", "")
    assert world.east.rotation is not None
    await world.east.enter(advance(world.east.rotation, frozenset(), {}))
    after = world.all()
    assert 'agent_certificate_expiry_seconds{which="other_authority"}' in after
    name = f"agent_bundle_sequence{sequence}"
    assert (before[name], after[name]) == (1, 2)
    name = f"agent_bundle_generation{generation}"
    assert before[name] == after[name] == 1
    assert after[f'hub_bundle_sequence{{trust_domain="{BASE}"}}'] == 1


async def test_bans_and_doubted_journals_are_counted_and_let_go(world: World) -> None:
    ban = Ban(BanKind.CLUSTER, "west", "stolen", NOW)
    one, cut = JournalHead("ab" * 32, 7, "cd" * 32), JournalHead("ab" * 32, 5, "ef" * 32)
    world.life.agent.step([BanChanged(ban), HeadsTold(Heads("hub", (one,)))])
    found = world.all()
    assert [found[f'agent_bans{{kind="{kind.value}"}}'] for kind in BanKind] == [1, 0, 0]
    assert found["agent_journals_doubted"] == 0
    world.life.agent.step([BanGone(ban.key), HeadsTold(Heads("hub", (cut,)))])
    found = world.all()
    assert found['agent_bans{kind="cluster"}'] == 0
    assert found["agent_journals_doubted"] == 1
    await world.hub.bans.ban(BanKind.IDENTITY, str(GATEWAY), "stolen")
    await world.hub.witness.take(Heads("east", (one,)), frozenset({one.authority}))
    await world.hub.witness.take(Heads("east", (cut,)), frozenset({one.authority}))
    found = world.all()
    assert found['hub_bans{kind="identity"}'] == 1
    assert found["hub_journals_doubted"] == 1
