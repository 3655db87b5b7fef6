"""An agent and its own gateways: who may speak, what each gets, and what becomes of one that falls silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from federation.api.messages import RejectedResource
from federation.attest import Instances
from federation.banned import Ban, BanKind
from federation.clock import ManualClock
from federation.events import (
    BanChanged,
    BundleChanged,
    GatewayGone,
    GatewayReported,
    LocalChanged,
    MemberChanged,
)
from federation.gateways import FORGOTTEN_AFTER, Gateways, Report
from federation.model import MemberState, OwnGateway
from federation.model import Path as PathSeen
from federation.store import MemoryStore
from gateway.secrets import bundle_secret
from gateway.snapshot import CLUSTER, LISTENER, SECRET, TYPES, Resource, Snapshot
from gateway.xds.messages import EVERYTHING, Message, Published, Request, Retry
from gateway.xds.protocol import advance
from gateway.xds.server import Client, Denied, Stream, Where
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId, TrustDomain
from tests.federation.lives import EVERYBODY, Life, eventually
from tests.federation.world import BASE, ECHO, NOW, backend, bundle, gateway, local, member
from tests.gateway.certificates import ca

EAST = TrustDomain.of_cluster("east", BASE)
BIND = "127.0.0.1"
HERE = Where("gateway", BIND, 15443)
WELL = Report(NOW, "1.40", NOW + timedelta(days=1), draining=False)
LEAVING = replace(WELL, draining=True)


def client(name: str = "gw-0") -> Client:
    return Client(f"spiffe://{EAST}/gateway/eastwest", "eastwest", name)


class Site:
    def __init__(self, life: Life, authority: Lineage, instances: Instances, clock: ManualClock) -> None:
        self.life = life
        self.authority = authority
        self.instances = instances
        self.clock = clock
        self.gateways = Gateways(life.agent, authority.bundle, instances, clock, authority.certified)
        life.said.hand_on = self.gateways.publish

    def reports(self, by: Client, report: Report = WELL, own: OwnGateway | None = None) -> None:
        own = own or gateway(by.instance)
        self.gateways.reported(by, own, report, {"west": PathSeen(1, 1)}, {})
        self.life.agent.catch_up()

    def falls_silent(self, by: Client) -> None:
        self.gateways.fell_silent(by)
        self.life.agent.catch_up()

    @property
    def listed(self) -> set[str]:
        return set(self.life.agent.view.gateways)

    async def chain(self, identity: SpiffeId) -> tuple[bytes, str]:
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        grant = decide(Attested(identity, Attestation.SELF), EAST)
        if not isinstance(grant, Grant):
            grant = decide(Attested(identity, Attestation.TOKEN), EAST)
        assert isinstance(grant, Grant)
        return (await self.authority.issue(key, grant, who="test", why="test")).pem(), spki_hash(key)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    clock = ManualClock(NOW)
    authority = await Lineage.open(tmp_path / "ca", FileKeyStore(tmp_path / "keys"), EAST, clock)
    life = await Life.begin(MemoryStore(), EVERYBODY)
    site = Site(life, authority, Instances(MemoryStore()), clock)
    life.agent.services_listed()
    life.agent.step([LocalChanged(local(backend(1)))])
    yield site
    await authority.close()


# ---- who may speak ---------------------------------------------------------------------------------------------------


async def test_a_gateway_of_this_cluster_is_known_by_its_key(site: Site) -> None:
    chain, key = await site.chain(SpiffeId.gateway(EAST, "eastwest"))
    unbound = site.gateways.authorize(chain)
    assert isinstance(unbound, Client)
    assert (unbound.gateway_class, unbound.instance) == ("eastwest", f"key-{key[:12]}")
    await site.instances.bind(key, "gw-7")
    bound = site.gateways.authorize(chain)
    assert isinstance(bound, Client)
    assert bound.instance == "gw-7"


async def test_nobody_else_is_a_gateway(site: Site, tmp_path: Path) -> None:
    agent, _ = await site.chain(SpiffeId.agent(EAST))
    foreign = ca("west").write(tmp_path / "foreign").chain.read_bytes()
    forged = ca("west").write(tmp_path / "forged", f"spiffe://{EAST}/gateway/eastwest").chain.read_bytes()
    old, _ = await site.chain(SpiffeId.gateway(EAST, "eastwest"))
    refused = [site.gateways.authorize(chain) for chain in (agent, foreign, forged, b"", b"nonsense")]
    site.clock.advance(25 * 3600)
    refused.append(site.gateways.authorize(old))
    assert all(isinstance(one, Denied) and one.reason for one in refused), refused
    assert "is not a gateway" in str(refused[0])


async def test_a_name_is_taken_by_a_gateway_that_speaks_and_by_none_that_is_silent(site: Site) -> None:
    assert not site.instances.is_taken("gw-0", "a" * 64)
    site.reports(client("gw-0"))
    await site.instances.bind("b" * 64, "gw-0")
    assert site.instances.is_taken("gw-0", "a" * 64)
    assert not site.instances.is_taken("gw-0", "b" * 64)
    assert not site.instances.is_taken("gw-1", "a" * 64)
    by = client("gw-0")
    site.reports(by)
    site.falls_silent(by)
    assert not site.instances.is_taken("gw-0", "a" * 64)


# ---- what each gets --------------------------------------------------------------------------------------------------


async def test_a_new_place_is_compiled_at_once_and_gateways_there_share_it(site: Site) -> None:
    first = site.gateways.choose(client("gw-0"), HERE)
    second = site.gateways.choose(client("gw-1"), replace(HERE, node="other"))
    assert first is not None
    assert first is second
    assert first.value.get(CLUSTER, "local/default/echo:80")
    elsewhere = site.gateways.choose(client("gw-2"), Where("third", "127.0.0.2", 15443))
    assert elsewhere is not None
    assert elsewhere.value.get(LISTENER, "east-west") != first.value.get(LISTENER, "east-west")


async def test_a_report_that_waits_to_be_taken_in_counts_before_the_stream_for_configuration(
    site: Site,
) -> None:
    by = client()
    site.gateways.reported(by, gateway(), WELL, {"west": PathSeen(1, 1)}, {})
    assert site.gateways.choose(by, HERE) is not None
    site.life.agent.catch_up()
    assert site.life.agent.view.gateways["gw-0"] == gateway()
    assert dict(site.life.agent.view.paths["gw-0"]) == {"west": PathSeen(1, 1)}


async def test_a_gateway_that_has_not_reported_yet_says_nothing_of_what_it_sees(site: Site) -> None:
    """Else it would vouch for backends that those who report see fail."""
    sick = {(ECHO, 80): frozenset({str(backend(1))})}
    site.gateways.reported(client("gw-0"), gateway("gw-0"), WELL, {}, sick)
    site.life.agent.catch_up()
    assert own_healthy(site.life) == 0
    site.gateways.choose(client("gw-1"), Where("new", "127.0.0.2", 15443))
    assert site.listed == {"gw-0", "gw-1"}
    assert own_healthy(site.life) == 0


async def test_a_gateway_that_moves_goes_on_seeing_what_it_saw(site: Site) -> None:
    by = client()
    sick = {(ECHO, 80): frozenset({str(backend(1))})}
    site.gateways.reported(by, gateway(), WELL, {"west": PathSeen(0, 1)}, sick)
    site.gateways.choose(by, Where("gw-0", "127.0.0.2", 15443))
    assert site.life.agent.view.gateways["gw-0"].bind == "127.0.0.2"
    assert dict(site.life.agent.view.paths["gw-0"]) == {"west": PathSeen(0, 1)}
    assert own_healthy(site.life) == 0


def own_healthy(life: Life) -> int:
    """How many of our backends of the sample service count as healthy."""
    return sum(load.healthy for load in life.agent.view.loads[ECHO].values() if load.cluster == "east")


async def test_a_gateway_that_comes_back_to_a_place_gets_what_is_true_now(site: Site) -> None:
    by = client()
    site.reports(by)
    stale = site.gateways.choose(by, HERE)
    site.reports(by, LEAVING)
    site.falls_silent(by)
    site.life.agent.step([LocalChanged(local(backend(1), exported=False))])
    back = site.gateways.choose(by, HERE)
    assert back is stale
    assert back is not None
    assert back.value.get(CLUSTER, "local/default/echo:80") is None


async def test_nothing_is_served_where_the_snapshot_is_withheld(site: Site) -> None:
    """An empty one would take from a gateway what it has on its disk."""
    site.life.agent.step([GatewayReported(gateway("gw-0"), {}, {})])
    clash = Where("bad", BIND, 20000)
    assert site.gateways.choose(client("gw-1"), clash) is None
    assert site.life.agent.withheld
    assert site.gateways.choose(client("gw-0"), HERE) is not None


@pytest.mark.parametrize(
    "where", [Where("x"), Where("x", "east", 15443), Where("x", BIND, 0), Where("x", BIND, 70000)]
)
async def test_a_gateway_that_does_not_say_where_it_listens_is_not_listed(site: Site, where: Where) -> None:
    assert site.gateways.choose(client(), where) is None
    site.reports(client(), own=replace(gateway(), bind=where.bind, bind_port=where.bind_port))
    assert site.listed == set()
    assert site.life.agent.withheld == ()


# ---- what they say, and when they stop -------------------------------------------------------------------------------


async def test_a_gateway_that_was_lost_stays_listed_and_what_it_saw_counts_no_more(site: Site) -> None:
    by = client()
    site.reports(by)
    assert set(site.life.agent.view.paths) == {"gw-0"}
    site.falls_silent(by)
    assert site.listed == {"gw-0"}
    assert set(site.life.agent.view.paths) == set()
    assert [each.state for each in site.gateways.status()] == ["silent"]


async def test_a_gateway_that_drained_is_gone_when_it_ends(site: Site) -> None:
    by = client()
    site.reports(by)
    site.reports(by, LEAVING, replace(gateway(), serving=False))
    assert [each.state for each in site.gateways.status()] == ["draining"]
    site.falls_silent(by)
    assert site.listed == set()


async def test_the_end_of_an_old_stream_does_not_silence_the_new_one(site: Site) -> None:
    """A gateway that reconnects may be heard before the agent notices that its old connection is dead."""
    old, new = client(), client()
    site.reports(old)
    site.reports(new)
    site.falls_silent(old)
    assert set(site.life.agent.view.paths) == {"gw-0"}
    assert [each.state for each in site.gateways.status()] == ["serving"]
    site.falls_silent(new)
    assert [each.state for each in site.gateways.status()] == ["silent"]


async def test_a_stream_that_never_reported_ends_without_a_word(site: Site) -> None:
    site.falls_silent(client())
    assert site.listed == set()


async def test_only_a_silent_gateway_can_be_forgotten(site: Site) -> None:
    by = client()
    assert not await site.gateways.forget("gw-0")
    site.reports(by)
    assert not await site.gateways.forget("gw-0")
    site.falls_silent(by)
    assert await site.gateways.forget("gw-0")
    site.life.agent.catch_up()
    assert site.listed == set()
    assert not await site.gateways.forget("gw-0")


async def test_after_a_day_of_silence_a_gateway_is_forgotten_also_one_from_before_the_start(
    site: Site,
) -> None:
    site.life.agent.step([GatewayReported(gateway("from-before"), {}, {})])
    by, lively = client("gw-0"), client("gw-1")
    site.reports(by)
    site.falls_silent(by)
    task = asyncio.create_task(site.gateways.forget_the_lost(), name="gateways")
    await eventually(lambda: site.clock.sleepers == 1)
    site.reports(lively, replace(WELL, at=site.clock.now()))
    site.clock.advance(FORGOTTEN_AFTER.total_seconds() - 1)
    await eventually(lambda: site.clock.sleepers == 1)
    assert site.listed == {"from-before", "gw-0", "gw-1"}
    site.clock.advance(60)
    await eventually(lambda: site.clock.sleepers == 1)
    site.life.agent.catch_up()
    assert site.listed == {"gw-1"}
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("kind", [BanKind.KEY, BanKind.IDENTITY])
async def test_nobody_waits_for_a_gateway_that_is_banned_and_it_can_be_forgotten(
    site: Site, kind: BanKind
) -> None:
    by, other, key = client("gw-0"), client("gw-1"), "a" * 64
    await site.instances.bind(key, "gw-0")
    await site.instances.bind("b" * 64, "gw-1")
    for each in (by, other):
        site.reports(each)
    site.falls_silent(by)
    before = site.gateways.counted
    assert before == ("gw-0", "gw-1")
    subject = key if kind is BanKind.KEY else by.identity
    site.life.agent.step([BanChanged(Ban(kind, subject, "lost", NOW))])
    assert site.gateways.counted == (("gw-1",) if kind is BanKind.KEY else ())
    assert await site.gateways.forget("gw-0")


async def test_where_a_gateway_is_and_what_it_does_not_hold_is_said_for_people(site: Site) -> None:
    site.life.agent.step([GatewayReported(gateway("before"), {}, {})])
    here, gone, left = client("here"), client("gone"), client("left")
    for each in (here, gone, left):
        site.reports(each)
        await site.instances.bind(each.instance.ljust(64, "0"), each.instance)
    site.falls_silent(gone)
    site.reports(left, LEAVING)
    site.falls_silent(left)
    since = NOW.isoformat(timespec="seconds")
    assert {name: site.gateways.whereabouts(name) for name in site.gateways.counted} == {
        "before": "silent since this agent started",
        "here": "connected",
        "gone": f"silent since {since}",
        "left": f"stopped in good order, last heard {since}",
    }
    assert [line.split(",")[0] for line in site.gateways.behind()] == [
        f"gateway {name}" for name in ("before", "gone", "here", "left")
    ]
    assert all("west.mesh.example" in line for line in site.gateways.behind())


async def test_what_an_envoy_refuses_is_shown_until_it_is_accepted_and_logged_once(site: Site) -> None:
    by = client()
    site.reports(by)
    stream = Stream(1, by, HERE, NOW)
    bad = Resource.of(LISTENER, "echo", b"")
    messages: list[Message] = [Published(Snapshot().replace([bad], ())), Request(LISTENER)]
    refusals: list[Message] = [
        Request(LISTENER, "1", "taken"),
        Retry(),
        Request(LISTENER, "2", "taken"),
        Retry(),
    ]
    with structlog.testing.capture_logs() as logged:
        for message in messages + refusals:
            stream.subscription, _ = advance(stream.subscription, message)
            site.gateways.stream_changed(stream)
    assert [(line["resource"], line["error"]) for line in logged] == [("echo", "taken")]
    [status] = site.gateways.status()
    assert status.rejected == (RejectedResource(type="Listener", name="echo", error="taken"),)
    stream.subscription, _ = advance(stream.subscription, Request(LISTENER, "3"))
    [status] = site.gateways.status()
    assert status.rejected == ()


async def test_status_says_what_is_acknowledged(site: Site) -> None:
    by = client()
    site.reports(by)
    snapshots = site.gateways.choose(by, HERE)
    assert snapshots is not None
    stream = Stream(1, by, HERE, NOW)
    site.gateways.stream_changed(stream)
    [status] = site.gateways.status()
    assert status.connected
    assert (status.name, status.state, status.envoy) == ("gw-0", "serving", "1.40")
    assert (status.snapshot, status.acknowledged) == (snapshots.value.number, 0)
    assert status.certificate_expires_at == WELL.certificate_expires_at
    newer = Stream(2, by, HERE, NOW)
    site.gateways.stream_changed(newer)
    site.gateways.stream_ended(stream)
    assert site.gateways.connected == 1
    site.gateways.stream_ended(newer)
    assert site.gateways.connected == 0
    [status] = site.gateways.status()
    assert not status.connected


async def test_a_gateway_that_left_in_good_order_counts_until_its_certificate_ends_or_it_is_forgotten(
    site: Site,
) -> None:
    """It may only have been restarted, and comes back with the certificate and the bundle that it had."""
    by = client("gw-0")
    site.reports(by)
    site.reports(by, LEAVING)
    site.falls_silent(by)
    assert list(site.gateways.counted) == [], "nobody has its key"
    await site.instances.bind("ab" * 32, "gw-0")
    site.reports(by)
    site.reports(by, LEAVING)
    site.falls_silent(by)
    assert not site.listed
    assert list(site.gateways.counted) == ["gw-0"]
    assert site.gateways.report("gw-0") == LEAVING
    assert await site.gateways.forget("gw-0")
    assert list(site.gateways.counted) == []
    site.reports(by)
    site.reports(by, LEAVING)
    site.falls_silent(by)
    site.clock.advance(timedelta(days=1).total_seconds() + 1)
    assert list(site.gateways.counted) == []


async def attested(site: Site, name: str) -> Client:
    """A gateway that got its certificate, and has not come with it yet."""
    identity = SpiffeId.gateway(EAST, "eastwest")
    _, key = await site.chain(identity)
    await site.instances.bind(key, name)
    return Client(str(identity), "eastwest", name, key)


async def test_a_gateway_that_was_not_heard_since_the_start_counts_until_its_certificate_ends(
    site: Site,
) -> None:
    """It may have attested just now, or have left in good order before the agent was started anew."""
    await attested(site, "gw-0")
    assert not site.listed
    assert site.gateways.counted == ("gw-0",)
    assert site.gateways.whereabouts("gw-0") == "silent since this agent started"
    [line] = site.gateways.behind()
    assert line.startswith("gateway gw-0, silent since this agent started, has not acknowledged")
    site.life.agent.step([BundleChanged("west", WEST_OLD)])
    assert WEST not in site.gateways.held()
    site.clock.advance(timedelta(days=1).total_seconds() + 1)
    assert list(site.gateways.counted) == []


async def test_a_gateway_whose_host_is_gone_counts_until_its_certificate_ends(site: Site) -> None:
    by = await attested(site, "gw-0")
    site.reports(by)
    site.falls_silent(by)
    site.life.agent.step([GatewayReported(gateway("before"), {}, {})])
    await site.instances.bind("b" * 64, "before")
    assert site.gateways.counted == ("gw-0",), "the certificate of the other one ended before"
    site.clock.advance(timedelta(days=1).total_seconds() + 1)
    assert site.listed == {"before", "gw-0"}
    assert list(site.gateways.counted) == []


async def test_a_gateway_that_is_no_longer_listed_counts_while_its_certificate_lives(site: Site) -> None:
    by = await attested(site, "gw-0")
    site.reports(by)
    site.falls_silent(by)
    site.life.agent.step([GatewayGone("gw-0")])
    assert site.gateways.counted == ("gw-0",)
    assert site.gateways.whereabouts("gw-0").startswith("silent since 20")


async def test_nobody_waits_for_one_that_was_not_heard_if_it_is_banned(site: Site) -> None:
    by = await attested(site, "gw-0")
    site.life.agent.step([BanChanged(Ban(BanKind.KEY, by.key, "lost", NOW))])
    assert list(site.gateways.counted) == []


async def test_one_that_was_not_heard_can_be_forgotten_also_for_the_next_start(site: Site) -> None:
    await attested(site, "gw-0")
    assert await site.gateways.forget("gw-0")
    assert list(site.gateways.counted) == []
    await site.instances.load()
    assert list(site.gateways.counted) == []
    assert not set(site.instances.keys())
    assert not await site.gateways.forget("gw-0")


async def test_one_that_was_forgotten_and_comes_back_counts_by_its_key(site: Site) -> None:
    chain, key = await site.chain(SpiffeId.gateway(EAST, "eastwest"))
    await site.instances.bind(key, "gw-0")
    assert await site.gateways.forget("gw-0")
    back = site.gateways.authorize(chain)
    assert isinstance(back, Client)
    site.reports(back)
    assert site.gateways.counted == (f"key-{key[:12]}",)
    assert site.gateways.keys()[key] == back.instance


# ---- what they go by -------------------------------------------------------------------------------------------------

WEST = "west.mesh.example"
WEST_OLD = replace(bundle("west"), anchors=(ca("west").certificate,))
WEST_BOTH = replace(WEST_OLD, sequence=2, anchors=(ca("west").certificate, ca("central").certificate))


def speaks(site: Site, number: int, by: Client, **has: Bundle) -> Stream:
    """A gateway opens a stream and tells which bundles it has on disk."""
    stream = Stream(number, by, HERE, NOW)
    kept = {secret.name: secret.version for secret in map(bundle_secret, has.values())}
    snapshots = site.gateways.choose(by, HERE)
    assert snapshots is not None
    opening: list[Message] = [Published(snapshots.value)]
    opening += (
        Request(kind, subscribe=(EVERYTHING,), initial=kept if kind == SECRET else {}) for kind in TYPES
    )
    for message in opening:
        stream.subscription, _ = advance(stream.subscription, message)
    site.gateways.stream_changed(stream)
    return stream


def obeys(site: Site, stream: Stream) -> None:
    """The gateway takes all that there is, and lets go of what there is not."""
    snapshots = site.gateways.choose(stream.client, HERE)
    assert snapshots is not None
    stream.subscription, _ = advance(stream.subscription, Published(snapshots.value))
    while flights := [
        Request(kind, lane.in_flight.nonce)
        for kind, lane in stream.subscription.lanes.items()
        if lane.in_flight is not None
    ]:
        stream.subscription, _ = advance(stream.subscription, flights[0])
    site.gateways.stream_changed(stream)


def west_is(site: Site, state: MemberState) -> None:
    site.life.agent.step([MemberChanged(replace(member("west"), state=state))])
    site.life.agent.catch_up()


async def test_a_gateway_that_is_cut_off_holds_the_anchors_of_a_cluster_that_was_quarantined_meanwhile(
    site: Site,
) -> None:
    """It hears nothing of the quarantine, and goes on listening with the old anchor alone: whoever went on with a
    rotation on the word of its agent would be disbelieved by it once the quarantine is over.
    """
    site.life.agent.step([BundleChanged("west", WEST_OLD)])
    here, cut_off = client("gw-0"), client("gw-1")
    site.reports(here)
    site.reports(cut_off)
    streams = [speaks(site, number, by, west=WEST_OLD) for number, by in enumerate((here, cut_off))]
    assert site.gateways.held()[WEST] == (1, 1)
    site.gateways.stream_ended(streams[1])
    site.falls_silent(cut_off)
    west_is(site, MemberState.QUARANTINED)
    site.life.agent.step([BundleChanged("west", WEST_BOTH)])
    obeys(site, streams[0])
    assert site.gateways.held()[WEST] == (1, 1)
    west_is(site, MemberState.ACTIVE)
    obeys(site, streams[0])
    assert site.gateways.held()[WEST] == (1, 1), "only one of them has the new anchor"
    site.reports(cut_off)
    obeys(site, speaks(site, 3, cut_off, west=WEST_OLD))
    assert site.gateways.held()[WEST] == (1, 2)


async def test_what_is_not_trusted_is_held_when_all_gateways_have_let_go_of_it(site: Site) -> None:
    site.life.agent.step([BundleChanged("west", WEST_OLD)])
    by = client()
    site.reports(by)
    stream = speaks(site, 1, by, west=WEST_OLD)
    assert site.gateways.held()[WEST] == (1, 1)
    west_is(site, MemberState.QUARANTINED)
    site.life.agent.step([BundleChanged("west", WEST_BOTH)])
    assert site.gateways.held()[WEST] == (1, 1)
    obeys(site, stream)
    assert site.gateways.held()[WEST] == (1, 2)
    west_is(site, MemberState.ACTIVE)
    assert WEST not in site.gateways.held(), "it is told of the anchors, and has not taken them yet"
    obeys(site, stream)
    assert site.gateways.held()[WEST] == (1, 2)


async def test_a_version_that_a_restart_would_take_back_is_not_held(site: Site) -> None:
    """The agent hands out what it could not write down; whoever waits for it must not go on before it is."""
    site.life.agent.step([BundleChanged("west", WEST_OLD)])
    by = client()
    site.reports(by)
    stream = speaks(site, 1, by, west=WEST_OLD)
    assert site.gateways.held()[WEST] == (1, 1)
    site.life.knowledge.believe("west", WEST_BOTH)
    site.life.agent.step([BundleChanged("west", WEST_BOTH)])
    obeys(site, stream)
    assert WEST not in site.gateways.held()
    assert await site.life.knowledge.write()
    assert site.gateways.held()[WEST] == (1, 2)


async def test_of_a_gateway_that_was_not_heard_since_the_start_nothing_is_known(site: Site) -> None:
    site.life.agent.step([GatewayReported(gateway("from-before"), {}, {})])
    west_is(site, MemberState.QUARANTINED)
    assert site.gateways.held() == {}
    by = client("from-before")
    site.reports(by)
    obeys(site, speaks(site, 1, by))
    assert WEST in site.gateways.held()
