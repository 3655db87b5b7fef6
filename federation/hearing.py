"""How the view follows what is heard of others as time passes: beats, silence, and what our gateways see of paths and
addresses.

It judges nobody: whether traffic goes to a silent cluster, or past a failed address, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rpds import HashTrieMap

from federation import ports
from federation.events import Tick
from federation.health import grow_silent
from federation.listeners import listener, services_at
from federation.model import Freshness, Lease, OwnGateway, Path, Service, View
from federation.own import derived, with_own_loads
from federation.touched import NOTHING, Touched, settled, touched_by_cluster


def beat_heard(view: View, owner: str, count: int) -> tuple[View, Touched]:
    lease = view.leases.get(owner)
    if lease is None or count <= lease.count:
        return view, NOTHING
    heard = Lease(count=count, silence=0.0, freshness=Freshness.FRESH)
    after = replace(view, leases=view.leases.insert(owner, heard))
    return after, touched_by_cluster(view, after, owner)


def tick(view: View, tick: Tick) -> tuple[View, Touched]:
    after = replace(view, now=tick.now)
    if view.hub_up:
        grown = grow_silent(view.leases, tick.elapsed, view.me.leases)
        after = replace(after, leases=after.leases.update(grown))
    silent = [name for name, lease in after.leases.items() if lease.freshness != view.leases[name].freshness]
    touched = frozenset[Service]().union(*(touched_by_cluster(view, after, name) for name in silent))
    after, freed = _ports_expired(after)
    return after, touched | freed


def _ports_expired(view: View) -> tuple[View, frozenset[Service]]:
    """Numbers that come back to an exhausted range go to those who wait for one."""
    after = ports.expire(view)
    if view.free != () or after.free == ():
        return after, NOTHING
    refilled, _ = settled(after, after.exports)
    given = [service for service in refilled.ports if refilled.ports[service] is not after.ports.get(service)]
    return refilled, frozenset(given)


def reported(
    view: View,
    gateway: OwnGateway,
    paths: Mapping[str, Path],
    failed: Mapping[tuple[Service, int], frozenset[str]],
) -> tuple[View, Touched]:
    after = replace(
        view,
        gateways=view.gateways.insert(gateway.name, gateway),
        paths=view.paths.insert(gateway.name, HashTrieMap(paths)),
        failed=view.failed.insert(gateway.name, HashTrieMap(failed)),
    )
    after, moved = _moved(view, after, gateway.name)
    after, touched = _seen_anew(view, after, gateway.name)
    return after, touched | moved


def gateway_gone(view: View, name: str) -> tuple[View, Touched]:
    after, moved = _moved(view, replace(view, gateways=view.gateways.discard(name)), name)
    after, touched = unreported(after, name)
    return after, touched | moved


def _moved(before: View, after: View, gateway: str) -> tuple[View, frozenset[Service]]:
    """Follow up on a gateway that listens elsewhere now: services with an endpoint there lose it, or have it back."""
    imports = before.me.port_range
    old, new = (
        None if known is None else listener(known, imports)
        for known in (before.gateways.get(gateway), after.gateways.get(gateway))
    )
    if old == new:
        return after, NOTHING
    services = services_at(after, (one for one in (old, new) if one is not None))
    for service in services:
        after = derived(after, service)
    return after, services


def unreported(view: View, name: str) -> tuple[View, frozenset[Service]]:
    after = replace(view, paths=view.paths.discard(name), failed=view.failed.discard(name))
    return _seen_anew(view, after, name)


def _seen_anew(before: View, after: View, gateway: str) -> tuple[View, frozenset[Service]]:
    """Follow up on one gateway's word: paths that turned, and local services whose healthy endpoints changed.

    An address counts as failed when all that report say so; a gateway that starts or stops to report
    therefore matters to every service of which any of them saw an address fail.
    """
    clusters = {*before.paths.get(gateway, ()), *after.paths.get(gateway, ())}
    touched = frozenset[Service]().union(*(touched_by_cluster(before, after, name) for name in clusters))
    old, new = before.failed.get(gateway), after.failed.get(gateway)
    if old is None or new is None:
        seen = {key for view in (before, after) for failed in view.failed.values() for key in failed}
    else:
        seen = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    loads = after.loads
    for service in {service for service, _ in seen}:
        after = with_own_loads(after, service)
        if after.loads.get(service) is not loads.get(service):
            touched |= {service}
    return after, touched
