"""A hub and agents of real parts: authorities on disk, certificates, and gRPC over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from federation.admission import Admission, Joined
from federation.clock import SystemClock
from federation.events import Event
from federation.hub import Hub
from federation.identity import Identity
from federation.listen import HostPort
from federation.model import ExportSpec, Kind, Me, Port, Position, Service, View
from federation.questions import Question
from federation.reduce import reduce
from federation.registry import Registry
from federation.store import MemoryStore
from federation.sync.client import Credentials, Ports, SyncClient
from federation.sync.importer import Heard, Importer
from federation.sync.publisher import Publisher
from federation.sync.server import ServerCredentials, SyncServer
from federation.telemetry import HubMetrics
from federation.tokens import TokenStore
from pki.bundle import Bundle, accept
from pki.certificate import load_der
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.root import RootAuthority
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken

BASE = "mesh.example"
CLOCK = SystemClock()
ANYWHERE = HostPort.of("127.0.0.1", 0)
RANGES = ("127.0.0.0/8",)


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `condition` holds; fails when it does not within a generous time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def spec(cluster: str, name: str, number: int = 80) -> ExportSpec:
    return ExportSpec(
        cluster=cluster,
        service=Service("default", name),
        ports=(Port("http", number),),
        kind=Kind.CLUSTER_SET_IP,
        exported_at=datetime(2026, 1, 1, tzinfo=UTC),
        at=Position(),
    )


@dataclass
class Disk:
    """What survives a restart of an agent."""

    epoch: int = 0
    heard: dict[tuple[str, str], Heard] = field(default_factory=dict)
    cursors: dict[str, Position] = field(default_factory=dict)
    believed: dict[str, Bundle] = field(default_factory=dict)

    async def raise_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def hear(self, heard: Heard) -> None:
        self.heard[heard.owner, heard.key] = heard

    def forget(self, owner: str, key: str) -> None:
        self.heard.pop((owner, key), None)

    def reach(self, owner: str, cursor: Position) -> None:
        self.cursors[owner] = cursor

    def believe(self, owner: str, bundle: Bundle) -> None:
        self.believed[owner] = bundle


@dataclass
class HubWorld:
    """A hub with its root; its store outlives a restart."""

    folder: Path
    root: RootAuthority
    authority: Lineage
    identity: Identity
    store: MemoryStore
    stack: AsyncExitStack
    address: HostPort

    async def start(self) -> None:
        self.stack = AsyncExitStack()
        metrics = HubMetrics()
        self.hub = Hub(Registry(self.store), lambda: (self.root.certificate,), BASE, CLOCK, metrics)
        await self.hub.start()
        self.tokens = TokenStore(self.store, CLOCK.now)
        self.admission = Admission(
            self.hub, self.tokens, self.root, self.authority.bundle, HostPort("127.0.0.1:1"), CLOCK, metrics
        )
        self.server = SyncServer(self.hub, self.credentials, CLOCK)
        self.address = await self.server.start(self.address)
        self.stack.push_async_callback(self.server.stop)
        task = asyncio.create_task(self.hub.run(), name="hub")
        self.stack.callback(task.cancel)

    async def stop(self) -> None:
        await self.stack.aclose()

    def credentials(self) -> ServerCredentials:
        leaf = self.identity.current
        return ServerCredentials(
            leaf.chain, leaf.key, self.hub.membership.anchors or self.authority.bundle().pem()
        )

    async def join(self, name: str, may_export: tuple[str, ...] = ("default/*",)) -> Member:
        """A cluster that went through token, join and root; its authority is of the epoch that a token would say."""
        folder = self.folder / name
        keys, domain = FileKeyStore(folder / "keys"), TrustDomain.of_cluster(name, BASE)
        before = self.hub.registry.authority(name)
        epoch = 1 if before is None else before.epoch + 1
        authority = await Lineage.open(folder / "authority", keys, domain, CLOCK, epoch)
        await self.admit(name, authority, may_export)
        identity = Identity(
            authority, SpiffeId.agent(authority.trust_domain), folder / "agent.pem", timedelta(hours=1), CLOCK
        )
        await identity.start()
        return Member(self, name, authority, identity, keys)

    async def admit(self, name: str, authority: Lineage, may_export: tuple[str, ...] = ("*/*",)) -> None:
        """Join with the authority that a cluster has, by a new token."""
        text, _ = await self.admission.create_token(name, may_export, RANGES, timedelta(minutes=5))
        outcome = await self.admission.redeem_join(JoinToken.decode(text).secret, name, await authority.csr())
        assert isinstance(outcome, Joined)
        await authority.accept_root_signed(load_der(outcome.row.rooted), self.root.certificate)


@dataclass
class Member:
    """A cluster that joined: its authority, its agent's identity, and its disk."""

    world: HubWorld
    name: str
    authority: Lineage
    identity: Identity
    keys: FileKeyStore
    disk: Disk = field(default_factory=Disk)

    def credentials(self) -> Credentials:
        leaf = self.identity.current
        return Credentials(self.world.authority.bundle().pem(), leaf.chain, leaf.key)


class Agent:
    """The sync half of an agent: a view that folds what comes, a publisher, a client."""

    def __init__(self, member: Member, credentials: Callable[[], Credentials] | None = None) -> None:
        self.member = member
        self.events: list[Event] = []
        self.view = View(me=Me(member.name, BASE, "eu", ""), now=CLOCK.now())
        self.publisher = Publisher(member.name, member.disk.epoch)
        self.importer = Importer(
            member.name, BASE, lambda held, offered: accept(held, offered, member.world.root.certificate)
        )
        disk = member.disk
        for event in self.importer.restore(disk.heard.values(), disk.cursors, disk.believed.values()):
            self.submit(event)
        ports = Ports(credentials or member.credentials, member.disk, self.submit, self.answer)
        self.client = SyncClient(
            member.world.address,
            member.world.authority.trust_domain,
            self.publisher,
            self.importer,
            ports,
            CLOCK,
        )

    def submit(self, event: Event) -> None:
        self.events.append(event)
        self.view, _ = reduce(self.view, event)

    async def answer(self, question: Question) -> tuple[int, bytes]:
        return 200, f'{{"asked": "{question.path}", "of": "{self.member.name}"}}'.encode()

    def publish(self, *specs: ExportSpec) -> None:
        for each in specs:
            self.publisher.set(f"spec/{each.service}", each)
        self.publisher.set("bundle", self.member.authority.bundle())
        self.publisher.complete()

    def sees(self, cluster: str, name: str) -> bool:
        return cluster in self.view.exports.get(Service("default", name), {})


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[Agent]:
    task = asyncio.create_task(agent.client.run(), name=f"agent-{agent.member.name}")
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def hub_world(folder: Path) -> AsyncIterator[HubWorld]:
    root = await RootAuthority.create(folder / "root", FileKeyStore(folder / "root-keys"), BASE, CLOCK)
    keys = FileKeyStore(folder / "hub-keys")
    authority = await Lineage.open(folder / "authority", keys, TrustDomain.of_hub(BASE), CLOCK)
    rooted = await root.sign_cluster_ca(
        await authority.csr(), authority.trust_domain, who="hub", why="first start"
    )
    await authority.accept_root_signed(rooted, root.certificate)
    identity = Identity(
        authority, SpiffeId.federation(authority.trust_domain), folder / "hub.pem", timedelta(hours=1), CLOCK
    )
    await identity.start()
    world = HubWorld(folder, root, authority, identity, MemoryStore(), AsyncExitStack(), ANYWHERE)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()
        await authority.close()
        await root.close()
