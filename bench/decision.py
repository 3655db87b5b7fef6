"""What one changed endpoint costs an agent, from the event to what its gateway is sent, among few services and many.

Measured is the CPU time of the agent's own code: fold, cut out inputs, merge, route, compile, check, publish, say it to
the hub's feed, and the xDS responses for one gateway that acknowledges all of them. Collections of garbage are part of
it: the figure of a pair is a mean over its changes. Ours is the agent with many services, the peer the one with few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import count
from pathlib import Path

from bench import credentials
from bench.credentials import BASE, Credentials
from bench.harness import Cost, Judged, Row, alternate
from federation import model, telemetry
from federation.agent import Agent, Outlets
from federation.events import (
    BundleChanged,
    ClusterChanged,
    Event,
    ExportChanged,
    GatewayReported,
    LoadChanged,
    LocalChanged,
    MemberChanged,
)
from federation.knowledge import Knowledge
from federation.model import (
    Backend,
    Cluster,
    ExportSpec,
    Gateway,
    Kind,
    Load,
    LocalService,
    Me,
    Member,
    MemberState,
    OwnGateway,
    Port,
    Position,
    Service,
    View,
)
from federation.opening import Known, Opening
from federation.store.memory import MemoryStore
from federation.sync.publisher import Publisher
from gateway.compile import Place
from gateway.snapshot import TYPES, Snapshot
from gateway.tuning import Tuning
from gateway.xds.messages import EVERYTHING, Message, Published, Request, Response
from gateway.xds.protocol import Subscription, advance
from pki.bundle import Bundle
from pki.certificate import load_pem
from pki.spiffe import TrustDomain

FEW = 100
MANY = 10_000
CHANGES = 100
"""Changes of one slice, each of another service, as far as there are so many."""
SLICES = 3

_CLUSTERS = ("east", "west", "central")
_HTTP = Port("http", 80)
_BIND = "127.0.0.1"


class _Gateway:
    """The agent's stream to one gateway: subscribed to all, and it accepts whatever it is sent."""

    def __init__(self) -> None:
        self._subscription = Subscription()
        for type_url in TYPES:
            self._say(Request(type_url, subscribe=(EVERYTHING,)))

    def publish(self, snapshots: Mapping[Place, Snapshot]) -> None:
        for snapshot in snapshots.values():
            self._say(Published(snapshot))

    @property
    def acknowledged(self) -> int:
        return self._subscription.acked

    def _say(self, message: Message) -> None:
        messages = [message]
        while messages:
            self._subscription, replies = advance(self._subscription, messages.pop())
            messages += [Request(one.type_url, one.nonce) for one in replies if isinstance(one, Response)]


class _World:
    """The agent of east, which exports `services` services that west exports too, and its one gateway."""

    def __init__(self, services: int, bundles: Mapping[str, Bundle]) -> None:
        now = datetime.now(UTC)
        self._services = [Service("shop", f"part-{number}") for number in range(services)]
        self._turn = count()
        self._gateway = _Gateway()
        me = Me("east", BASE, "eu", "", ("us",), port_range=(20000, 49999))
        outlets = Outlets(Publisher("east", 1), self._gateway.publish)
        known = Known(frozenset({model.HUB, *_CLUSTERS}))
        self._agent = Agent(
            View(me, now),
            Opening(),
            lambda: known,
            Tuning(),
            Knowledge(MemoryStore()),
            outlets,
            telemetry.AgentMetrics(),
        )
        self._agent.step((*_fabric(bundles, now), *self._facts(now)))
        self._agent.services_listed()
        self._agent.step(())
        self.recomputed: list[int] = []

    def local(self) -> Event:
        """One of our own backends becomes ready, or is not any more."""
        turn = next(self._turn)
        return _own(self._of(turn), ready=turn // len(self._services) % 2 == 1)

    def remote(self) -> Event:
        """West has another number of healthy endpoints."""
        turn = next(self._turn)
        return LoadChanged(_load(self._of(turn), 1 + turn // len(self._services) % 2, turn + 2))

    def cost(self, event: Callable[[], Event]) -> Cost:
        """CPU of `CHANGES` changes, in microseconds."""
        events = [event() for _ in range(CHANGES)]
        spent = 0
        for one in events:
            acknowledged, began = self._gateway.acknowledged, time.process_time_ns()
            self._agent.step((one,))
            spent += time.process_time_ns() - began
            if self._gateway.acknowledged != acknowledged + 1:
                raise RuntimeError(f"{one} did not reach the gateway")
            self.recomputed.append(len(self._agent.compiled.recomputed))
        return Cost(spent / 1000, CHANGES)

    def _of(self, turn: int) -> Service:
        return self._services[turn % len(self._services)]

    def _facts(self, now: datetime) -> Iterator[Event]:
        for service in self._services:
            yield _own(service, ready=True)
            yield ExportChanged(
                ExportSpec("west", service, (_HTTP,), Kind.CLUSTER_SET_IP, now, Position(1, 1))
            )
            yield LoadChanged(_load(service, 2, 1))


def _own(service: Service, *, ready: bool) -> Event:
    backends = (Backend("10.1.9.1", 8080), Backend("10.1.9.2", 8080, ready=ready))
    return LocalChanged(LocalService(service, (_HTTP,), Kind.CLUSTER_SET_IP, True, {_HTTP.number: backends}))


def _load(service: Service, healthy: int, seq: int) -> Load:
    return Load("west", service, _HTTP.number, "", healthy, 2, healthy, Position(1, seq))


def _fabric(bundles: Mapping[str, Bundle], now: datetime) -> Iterator[Event]:
    at = Position(1, 1)
    for number, name in enumerate(_CLUSTERS, start=1):
        domain, network = TrustDomain.of_cluster(name, BASE), ip_network(f"10.{number}.0.0/16")
        yield MemberChanged(Member(name, domain, ("*/*",), (network,), now, MemberState.ACTIVE, at))
        yield BundleChanged(name, bundles[name])
        gateways = (Gateway("gateway-1", "eastwest", f"10.{number}.0.1", 15443),)
        yield ClusterChanged(Cluster(name, "eu", "", gateways, at))
    own = OwnGateway("gateway-1", "eastwest", "10.1.0.1", 15443, _BIND, 15443, serving=True)
    yield GatewayReported(own, {"west": model.Path(1, 1), "central": model.Path(1, 1)}, {})


def _bundle(name: str, of: Credentials) -> Bundle:
    return Bundle(TrustDomain.of_cluster(name, BASE), 1, load_pem(of.anchor.read_bytes()))


async def decision(folder: Path) -> list[Row]:
    """One endpoint change at `MANY` services against one at `FEW`."""
    telemetry.configure_logging("warning", "text", "bench")
    bundles = {name: _bundle(name, of) for name, of in credentials.write(folder, _CLUSTERS).items()}
    many, few = _World(MANY, bundles), _World(FEW, bundles)
    rows = []
    for name, of_many, of_few in (
        ("decision-local", many.local, few.local),
        ("decision-remote", many.remote, few.remote),
    ):

        async def ours(event: Callable[[], Event] = of_many) -> Cost:
            return many.cost(event)

        async def peer(event: Callable[[], Event] = of_few) -> Cost:
            return few.cost(event)

        mine, theirs = await alternate(ours, peer, SLICES)
        note = f"CPU a change at {MANY:,} services and at {FEW}"
        rows.append(Row(name, "µs", mine, theirs, Judged.RATIO, 2.0, note))
    counted = tuple(float(number) for number in (*many.recomputed, *few.recomputed))
    rows.append(
        Row(
            "decision-recomputed",
            "services",
            counted,
            (),
            Judged.WORST,
            1.0,
            "services made anew by a change",
        )
    )
    return rows
