"""Where traffic of one service port goes, and why: tiers of clusters, each line with its weight and its reason.

Order: our own cluster, if it exports the service; then the clusters of our region as one tier; then the other
regions as configured, each a tier; then by name. Loss of health demotes a line, its tier stays: tiers change
only when the members, their regions or the exports do. What may get no traffic at all is excluded, and says
why.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from federation.health import Verdict, verdict
from federation.inputs import ClusterStanding, ServiceInputs
from federation.merge import Imported
from federation.model import Backend, MemberState, Port, Service


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """`code` is a stable identifier for programs and logs, `text` a phrase for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One cluster in a plan. `weight` is at least 1; a line that is not `healthy` is demoted: its share is 0."""

    cluster: str
    weight: int
    healthy: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Tier:
    """Clusters that share traffic by weight; the next tier gets some only when this one has no healthy line.

    `name` says what its clusters have in common: `local` or `region <region>`.
    """

    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What this cluster's gateways do for one TCP port of a service.

    `tiers` may be empty: then nobody can serve it. `local` holds the backends of our own cluster, ready or
    not, and is empty unless we export the port; `exported_to` names the peers that may reach them, sorted.
    `listen_port` is None when the port range is exhausted: no listener then. `excluded` is for `explain`
    alone.
    """

    service: Service
    port: Port
    listen_port: int | None
    tiers: tuple[Tier, ...]
    local: tuple[Backend, ...]
    exported_to: tuple[str, ...]
    excluded: tuple[Line, ...] = ()


def route(inputs: ServiceInputs, imported: Imported) -> tuple[PortPlan, ...]:
    """One plan for each TCP port of the import, in order of ports. What is not TCP is in `imported.unrouted`."""
    return tuple(_plan(inputs, port) for port in imported.routed)


def _plan(inputs: ServiceInputs, port: Port) -> PortPlan:
    exporters = frozenset(
        spec.cluster
        for spec in inputs.exports
        if any(own.number == port.number and own.protocol == port.protocol for own in spec.ports)
    )
    standings = [standing for standing in inputs.standing if standing.name in exporters]
    ours = inputs.me in exporters
    tiers: dict[tuple[int, str], list[Line]] = defaultdict(list)
    excluded: list[Line] = []
    for standing in standings:
        if not standing.trusted:
            excluded.append(Line(standing.name, 1, False, _UNTRUSTED))
        else:
            tiers[_rank(inputs, standing)].append(_line(inputs, standing, port.number))
    return PortPlan(
        service=inputs.service,
        port=port,
        listen_port=dict(inputs.listen_ports).get(port.number),
        tiers=_or_drained(tuple(Tier(_tier_name(rank), tuple(tiers[rank])) for rank in sorted(tiers))),
        local=dict(inputs.backends).get(port.number, ()) if ours else (),
        exported_to=inputs.exported_to if ours else (),
        excluded=tuple(excluded),
    )


def _or_drained(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    """Draining is a wish, not a fault: a drained cluster goes on while no other one can serve."""
    if any(line.healthy for tier in tiers for line in tier.lines):
        return tiers
    return tuple(replace(tier, lines=tuple(_kept_if_drained(line) for line in tier.lines)) for tier in tiers)


def _kept_if_drained(line: Line) -> Line:
    if line.reason.code not in _DRAINED:
        return line
    return replace(
        line, healthy=True, reason=Reason(line.reason.code, f"{line.reason.text}, but nobody else can serve")
    )


_DRAINED = (MemberState.DRAINING.value, MemberState.DRAINED.value)


def _rank(inputs: ServiceInputs, standing: ClusterStanding) -> tuple[int, str]:
    if standing.name == inputs.me:
        return (_LOCAL, "")
    if standing.region == inputs.region:
        return (_SAME_REGION, standing.region)
    if standing.region in inputs.regions:
        return (_FIRST_OTHER + inputs.regions.index(standing.region), standing.region)
    return (_FIRST_OTHER + len(inputs.regions), standing.region)


_LOCAL, _SAME_REGION, _FIRST_OTHER = 0, 1, 2


def _tier_name(rank: tuple[int, str]) -> str:
    return "local" if rank[0] == _LOCAL else f"region {rank[1] or '-'}"


_UNTRUSTED = Reason("untrusted", "its certificates cannot be verified yet: no trust bundle of it is known")


def _line(inputs: ServiceInputs, standing: ClusterStanding, port: int) -> Line:
    loads = [load for load in inputs.loads if load.cluster == standing.name and load.port == port]
    healthy = sum(load.healthy for load in loads)
    total = sum(load.total for load in loads)
    weight = max(1, sum(load.capacity for load in loads if load.healthy))
    demoted = _demotion(standing, known=bool(loads), healthy=healthy, total=total)
    if demoted is not None:
        return Line(standing.name, weight, False, demoted)
    return Line(standing.name, weight, True, _choice(inputs, standing, healthy, total))


def _demotion(standing: ClusterStanding, *, known: bool, healthy: int, total: int) -> Reason | None:
    if not standing.reachable:
        return Reason("no-gateway", "it has named no gateway within its ranges")
    seen = verdict(standing.freshness, standing.path)
    if seen is Verdict.LOST:
        return Reason("lost", "silent past its lease, and none of its gateways is reached")
    if seen is Verdict.PATH_DOWN:
        return Reason("path-down", "none of its gateways is reached")
    if not known:
        return Reason("no-load", "it has not said how many endpoints it has")
    if healthy == 0:
        return Reason("no-healthy-endpoint", _none_healthy(total))
    if standing.state.value in _DRAINED:
        return Reason(standing.state.value, f"an operator set it to {standing.state.value}")
    return None


def _none_healthy(total: int) -> str:
    match total:
        case 0:
            return "it has no endpoint"
        case 1:
            return "its only endpoint is not healthy"
        case _:
            return f"none of its {total} endpoints is healthy"


def _choice(inputs: ServiceInputs, standing: ClusterStanding, healthy: int, total: int) -> Reason:
    endpoints = f"{healthy} of {total} endpoint{'' if total == 1 else 's'} healthy"
    if verdict(standing.freshness, standing.path) is Verdict.STALE:
        return Reason("stale", f"silent past its lease but not seen down: last word was {endpoints}")
    if standing.name == inputs.me:
        return Reason("local", f"our own cluster, {endpoints}")
    if standing.region == inputs.region:
        return Reason("same-region", f"in our region {standing.region or '-'}, {endpoints}")
    return Reason("other-region", f"in region {standing.region or '-'}, {endpoints}")
