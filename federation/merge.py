"""One service out of the exports of many clusters.

Obeys KEP-1645: ports are united; where two exports contradict each other the oldest wins, then the cluster's
name. The result does not depend on the order in which exports arrived. Only TCP ports are routed: the tunnel
carries TCP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from federation.inputs import ServiceInputs
from federation.model import Affinity, ExportSpec, Kind, Port, Service

Rule = Literal["oldest", "name"]
"""What decided a conflict: the older export, or, exported at the same moment, the name of the cluster."""


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """`winner` and `loser` are clusters that contradict each other in `field`; `kept` and `dropped` what each said."""

    field: str
    winner: str
    kept: str
    loser: str
    dropped: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Unrouted:
    """A port that is exported, but that no listener is made for."""

    port: Port
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What a service looks like to the clients of this cluster. `ports` are ordered by number and protocol."""

    service: Service
    ports: tuple[Port, ...]
    kind: Kind
    affinity: Affinity | None
    conflicts: tuple[Conflict, ...]

    @property
    def routed(self) -> tuple[Port, ...]:
        return tuple(port for port in self.ports if port.protocol == "TCP")

    @property
    def unrouted(self) -> tuple[Unrouted, ...]:
        return tuple(
            Unrouted(port, f"{port.protocol} is not routed: tunnels carry TCP only")
            for port in self.ports
            if port.protocol != "TCP"
        )


def merge(inputs: ServiceInputs) -> Imported:
    """Unite the admitted exports of `inputs`. Without any export: no ports, and the type of a plain Service."""
    oldest_first = sorted(inputs.exports, key=lambda spec: (spec.exported_at, spec.cluster))
    if not oldest_first:
        return Imported(inputs.service, (), Kind.CLUSTER_SET_IP, None, ())
    first = oldest_first[0]
    ports: dict[tuple[int, str], tuple[Port, ExportSpec]] = {}
    conflicts: list[Conflict] = []
    for spec in oldest_first:
        if spec.kind is not first.kind:
            conflicts.append(_conflict("type", first, first.kind.value, spec, spec.kind.value))
        if spec.affinity != first.affinity:
            kept, dropped = _affinity_text(first.affinity), _affinity_text(spec.affinity)
            conflicts.append(_conflict("sessionAffinity", first, kept, spec, dropped))
        for port in spec.ports:
            kept_port, owner = ports.setdefault((port.number, port.protocol), (port, spec))
            conflicts += _port_conflicts(owner, kept_port, spec, port)
    united, clashes = _name_uniquely(ports)
    return Imported(inputs.service, united, first.kind, first.affinity, tuple(sorted([*conflicts, *clashes])))


def _conflict(field: str, winner: ExportSpec, kept: str, loser: ExportSpec, dropped: str) -> Conflict:
    rule: Rule = "oldest" if winner.exported_at < loser.exported_at else "name"
    return Conflict(field, winner.cluster, kept, loser.cluster, dropped, rule)


def _affinity_text(affinity: Affinity | None) -> str:
    return "None" if affinity is None else f"ClientIP for {affinity.timeout} s"


def _port_conflicts(winner: ExportSpec, kept: Port, loser: ExportSpec, offered: Port) -> list[Conflict]:
    where = f"ports[{kept.number}/{kept.protocol}]"
    conflicts = []
    if offered.name != kept.name:
        conflicts.append(_conflict(f"{where}.name", winner, kept.name, loser, offered.name))
    if offered.app_protocol != kept.app_protocol:
        conflicts.append(
            _conflict(f"{where}.appProtocol", winner, kept.app_protocol, loser, offered.app_protocol)
        )
    return conflicts


def _name_uniquely(
    ports: dict[tuple[int, str], tuple[Port, ExportSpec]],
) -> tuple[tuple[Port, ...], list[Conflict]]:
    """Several ports of a Service have names of their own: the older export keeps its word, others get their number."""
    holders: dict[str, tuple[Port, ExportSpec]] = {}
    united: list[Port] = []
    clashes: list[Conflict] = []
    by_age = sorted(
        ports.values(), key=lambda one: (one[1].exported_at, one[1].cluster, one[0].number, one[0].protocol)
    )
    for port, spec in by_age:
        held, holder = holders.setdefault(port.name, (port, spec))
        if len(ports) == 1 or (port.name and held is port):
            united.append(port)
            continue
        united.append(replace(port, name=f"{port.protocol.lower()}-{port.number}"))
        if port.name:
            kept, dropped = f"{held.number}/{held.protocol}", f"{port.number}/{port.protocol}"
            clashes.append(_conflict(f"ports[{port.name}]", holder, kept, spec, dropped))
    return tuple(sorted(united, key=lambda port: (port.number, port.protocol))), clashes
