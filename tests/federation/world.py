"""Facts to decide on: we are `east` in region `eu`, `west` is our neighbour there, `central` is in `us`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from federation.events import BundleChanged, ClusterChanged, Event, MemberChanged
from federation.inputs import inputs
from federation.merge import merge
from federation.model import (
    Affinity,
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
from federation.reduce import reduce
from federation.route import Line, PortPlan, route
from pki.bundle import Bundle
from pki.spiffe import TrustDomain

BASE = "mesh.example"
JOINED = datetime(2026, 1, 1, tzinfo=UTC)
NOW = JOINED + timedelta(days=1)
ECHO = Service("default", "echo")
HTTP = Port("http", 80)
SUBNETS = {"east": 1, "west": 2, "central": 3, "south": 4, "north": 5, "far": 6}
REGIONS = {"east": "eu", "west": "eu", "central": "us", "south": "af", "north": "eu", "far": "ap"}

ME = Me(name="east", base=BASE, region="eu", zone="eu-1", regions=("us", "ap"))


def member(
    name: str,
    *,
    state: MemberState = MemberState.ACTIVE,
    may_export: tuple[str, ...] = ("*/*",),
    joined_at: datetime = JOINED,
    seq: int = 1,
) -> Member:
    return Member(
        name=name,
        trust_domain=TrustDomain.of_cluster(name, BASE),
        may_export=may_export,
        ranges=(ip_network(f"10.{SUBNETS.get(name, 200)}.0.0/16"),),
        joined_at=joined_at,
        state=state,
        at=Position(1, seq),
    )


def cluster(name: str, *, region: str | None = None, gateways: int = 1, seq: int = 1) -> Cluster:
    return Cluster(
        name=name,
        region=REGIONS.get(name, "") if region is None else region,
        zone="",
        gateways=tuple(
            Gateway(f"gw-{number}", "eastwest", f"10.{SUBNETS.get(name, 200)}.0.{number + 1}", 15443)
            for number in range(gateways)
        ),
        at=Position(1, seq),
    )


def bundle(name: str, sequence: int = 1) -> Bundle:
    """A bundle as far as decisions look at it: what is in it concerns only who verifies it."""
    return Bundle(TrustDomain.of_cluster(name, BASE), sequence, ())


def spec(
    name: str,
    *,
    service: Service = ECHO,
    ports: tuple[Port, ...] = (HTTP,),
    kind: Kind = Kind.CLUSTER_SET_IP,
    age: int = 0,
    scope: frozenset[str] | None = None,
    affinity: Affinity | None = None,
    seq: int = 1,
) -> ExportSpec:
    """`age` in seconds: the larger, the older."""
    return ExportSpec(
        cluster=name,
        service=service,
        ports=ports,
        kind=kind,
        exported_at=NOW - timedelta(seconds=age),
        at=Position(1, seq),
        scope=scope,
        affinity=affinity,
    )


def load(
    name: str,
    healthy: int = 2,
    total: int = 2,
    *,
    service: Service = ECHO,
    port: int = 80,
    zone: str = "",
    capacity: int | None = None,
    seq: int = 1,
) -> Load:
    return Load(
        cluster=name,
        service=service,
        port=port,
        zone=zone,
        healthy=healthy,
        total=total,
        capacity=healthy if capacity is None else capacity,
        at=Position(1, seq),
    )


def local(
    *backends: Backend,
    service: Service = ECHO,
    ports: tuple[Port, ...] = (HTTP,),
    exported: bool = True,
    known: bool = True,
    scope: frozenset[str] | None = None,
    capacity: int | None = None,
) -> LocalService:
    """Each port has the same backends; not `known`: no slice exists."""
    return LocalService(
        service=service,
        ports=ports,
        kind=Kind.CLUSTER_SET_IP,
        exported=exported,
        backends={port.number: backends for port in ports} if known else None,
        scope=scope,
        capacity=capacity,
    )


def backend(host: int, *, zone: str = "", ready: bool = True) -> Backend:
    return Backend(f"10.1.9.{host}", 8080, zone, ready)


def gateway(name: str = "gw-0", *, serving: bool = True, address: str = "10.1.0.1") -> OwnGateway:
    return OwnGateway(name, "eastwest", address, 15443, "127.0.0.1", 15443, serving)


def joined(*names: str) -> tuple[Event, ...]:
    """All it takes for these clusters to be dialled."""
    return tuple(
        event
        for name in names
        for event in (
            MemberChanged(member(name)),
            BundleChanged(name, bundle(name)),
            ClusterChanged(cluster(name)),
        )
    )


def view_after(*events: Event, me: Me = ME, start: View | None = None) -> View:
    view = View(me, NOW) if start is None else start
    for event in events:
        view, _ = reduce(view, event)
    return view


def plan_of(view: View, service: Service = ECHO, port: int = 80) -> PortPlan:
    cut = inputs(view, service)
    return next(plan for plan in route(cut, merge(cut)) if plan.port.number == port)


def lines(plan: PortPlan) -> dict[str, Line]:
    return {line.cluster: line for tier in plan.tiers for line in tier.lines}


def shape(plan: PortPlan) -> list[list[str]]:
    """The names of the clusters, tier by tier."""
    return [[line.cluster for line in tier.lines] for tier in plan.tiers]


def codes(found: Iterable[Line]) -> dict[str, str]:
    return {line.cluster: line.reason.code for line in found}
