"""A plan as people and programs read it: one line for each cluster, with its share and its reason.

These are wire types: the REST API encodes them, the command line decodes them. Nothing is decided again here.
"""

from __future__ import annotations

import msgspec

from federation.inputs import ServiceInputs
from federation.merge import Imported
from federation.model import Port
from federation.route import Line, PortPlan, Tier


class ExplainedLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tier` is Envoy's priority, from 0, and None for a cluster that is left out; `share` is in percent of new
    connections."""

    tier: int | None
    name: str
    cluster: str
    share: float
    weight: int
    healthy: bool
    code: str
    reason: str


class ExplainedPort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`listen_port` is None where nothing listens; `note` then says why."""

    name: str
    number: int
    protocol: str
    listen_port: int | None
    note: str
    exported_to: tuple[str, ...]
    lines: tuple[ExplainedLine, ...]


class ExplainedConflict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    field: str
    winner: str
    kept: str
    loser: str
    dropped: str
    rule: str


class Explained(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One service as the cluster `cluster` sees it. `left_out` lists exports that it does not use."""

    service: str
    host: str
    cluster: str
    type: str
    ports: tuple[ExplainedPort, ...]
    left_out: tuple[ExplainedLine, ...]
    conflicts: tuple[ExplainedConflict, ...]


def explain(inputs: ServiceInputs, imported: Imported, plans: tuple[PortPlan, ...]) -> Explained:
    """Tell what was decided for one service, from the same values that decided it."""
    return Explained(
        service=str(inputs.service),
        host=inputs.service.host,
        cluster=inputs.me,
        type=imported.kind.value,
        ports=(
            *(_routed(plan) for plan in plans),
            *(_unrouted(one.port, one.reason) for one in imported.unrouted),
        ),
        left_out=tuple(
            _left_out(one.cluster, one.refused.rule, one.refused.detail) for one in inputs.withheld
        ),
        conflicts=tuple(
            ExplainedConflict(one.field, one.winner, one.kept, one.loser, one.dropped, one.rule)
            for one in imported.conflicts
        ),
    )


def _routed(plan: PortPlan) -> ExplainedPort:
    serving = next((tier for tier in plan.tiers if any(line.healthy for line in tier.lines)), None)
    return ExplainedPort(
        name=plan.port.name,
        number=plan.port.number,
        protocol=plan.port.protocol,
        listen_port=plan.listen_port,
        note="" if plan.listen_port is not None else "no listener: the range of listen ports is exhausted",
        exported_to=plan.exported_to,
        lines=(
            *(
                _line(number, tier, line, serving)
                for number, tier in enumerate(plan.tiers)
                for line in tier.lines
            ),
            *(_left_out(line.cluster, line.reason.code, line.reason.text) for line in plan.excluded),
        ),
    )


def _unrouted(port: Port, why: str) -> ExplainedPort:
    return ExplainedPort(port.name, port.number, port.protocol, None, why, (), ())


def _line(number: int, tier: Tier, line: Line, serving: Tier | None) -> ExplainedLine:
    together = sum(one.weight for one in tier.lines if one.healthy)
    share = round(100 * line.weight / together, 1) if line.healthy and tier is serving else 0.0
    return ExplainedLine(
        tier=number,
        name=tier.name,
        cluster=line.cluster,
        share=share,
        weight=line.weight,
        healthy=line.healthy,
        code=line.reason.code,
        reason=line.reason.text,
    )


def _left_out(cluster: str, code: str, reason: str) -> ExplainedLine:
    return ExplainedLine(None, "left out", cluster, 0.0, 0, False, code, reason)
