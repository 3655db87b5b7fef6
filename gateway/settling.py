"""What became of a response of the agent: settled as soon as Envoy has settled all of its resources.

A resource that Envoy does not subscribe to is settled: nobody here needs it. Clusters and listeners are always
subscribed to, so without a subscription to them Envoy has just not come to that yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.snapshot import CLUSTER, LISTENER
from gateway.xds.lane import Lane
from gateway.xds.messages import Response
from gateway.xds.protocol import Subscription

LONGEST_ANSWER = 8 * 1024
"""Characters of a refusal that goes to the agent."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Envoy took everything but `refused`: its error by name."""

    refused: Mapping[str, str] = field(default_factory=dict)

    def error(self) -> str | None:
        """One line `name: error` for each refused resource; None if there is none."""
        lines = (f"{name}: {why}" for name, why in sorted(self.refused.items()))
        return "\n".join(lines)[:LONGEST_ANSWER] or None


def settled(response: Response, published: int, envoy: Subscription | None) -> Settled | None:
    """None while it is open. `published` is the number of the snapshot that brought the response to Envoy's stream."""
    if envoy is None or envoy.latest.number < published:
        return None
    lane = envoy.lanes.get(response.type_url)
    if lane is None:
        return None if response.type_url in (CLUSTER, LISTENER) else Settled()
    if any(lane.wants(name) and lane.expected(name) is not None for name in response.removed):
        return None
    if lane.in_flight is not None and not lane.in_flight.removed.isdisjoint(response.removed):
        return None
    refused: dict[str, str] = {}
    for resource in response.put:
        if not _is_settled(lane, resource.name, resource.version, refused):
            return None
    return Settled(refused)


def _is_settled(lane: Lane, name: str, version: str, refused: dict[str, str]) -> bool:
    if (rejection := lane.rejected.get(name)) is not None and rejection.version == version:
        refused[name] = rejection.error
        return True
    return not lane.wants(name) or lane.known.get(name) == version
