"""Who is silent, who is out of reach, and what the two together mean.

Two signals, never one: the lease says how long an owner has been silent, the path whether our Envoys reach
its gateways. A lease that expires over a path that works shows a broken control plane, and moves no traffic.
Nothing here probes: path health is what Envoys report, silence what the hub's stream did not bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum

from federation.model import Freshness, Lease, LeaseSettings, Path


class PathState(Enum):
    """What our reporting gateways together see of the way to a cluster."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class Verdict(Enum):
    """What lease and path together say of a cluster."""

    FINE = "fine"
    STALE = "stale"
    PATH_DOWN = "path-down"
    LOST = "lost"


def path_state(seen: Iterable[Path]) -> PathState:
    """Up if any of our gateways has a healthy host there, down if some have hosts and none is healthy."""
    hosts = [path for path in seen if path.total > 0]
    if not hosts:
        return PathState.UNKNOWN
    return PathState.UP if any(path.healthy > 0 for path in hosts) else PathState.DOWN


def verdict(freshness: Freshness, path: PathState) -> Verdict:
    """Expired and down: lost. Expired but not seen down: kept, marked stale. Down: Envoy has moved, so do we."""
    expired = freshness is Freshness.EXPIRED
    if path is PathState.DOWN:
        return Verdict.LOST if expired else Verdict.PATH_DOWN
    return Verdict.STALE if expired else Verdict.FINE


def grow_silent(leases: Mapping[str, Lease], elapsed: float, settings: LeaseSettings) -> dict[str, Lease]:
    """The leases after `elapsed` more seconds without a beat, while our own stream to the hub was up.

    Where most of the owners that were not expired before (from `settings.guard_from` of them on) are silent,
    none expires now: it is more likely that we are cut off than that they all died at once.
    """
    grown = {name: replace(lease, silence=lease.silence + elapsed) for name, lease in leases.items()}
    alive = [lease for name, lease in grown.items() if leases[name].freshness is not Freshness.EXPIRED]
    silent = sum(lease.silence >= settings.suspect_after for lease in alive)
    cut_off = len(alive) >= settings.guard_from and 2 * silent > len(alive)
    return {
        name: replace(lease, freshness=_freshness(lease, cut_off=cut_off, settings=settings))
        for name, lease in grown.items()
    }


def _freshness(lease: Lease, *, cut_off: bool, settings: LeaseSettings) -> Freshness:
    if lease.freshness is Freshness.EXPIRED:
        return Freshness.EXPIRED
    if lease.silence >= settings.expired_after and not cut_off:
        return Freshness.EXPIRED
    return Freshness.SUSPECT if lease.silence >= settings.suspect_after else Freshness.FRESH
