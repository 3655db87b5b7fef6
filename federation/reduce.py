"""The one place where a `View` changes: an event in, the new view and the services that it touched out.

It decides nothing about traffic; it keeps facts, and what is derived from facts alone: our own exports,
leases, listen ports and the index of who exports what. Only an owner's own events change what it owns; facts
of a cluster outlive its silence and its membership, and go when their owner (through sync) says so. A change
costs what it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Literal, assert_never

from rpds import HashTrieMap

from federation import admit, ports
from federation.banned import Ban, BanKind
from federation.events import (
    BanChanged,
    BanGone,
    BeatHeard,
    BundleChanged,
    ClusterChanged,
    ClusterGone,
    Event,
    ExportChanged,
    ExportGone,
    GatewayGone,
    GatewayLost,
    GatewayReported,
    HeadsAccepted,
    HeadsTold,
    HeldTold,
    HubChanged,
    LoadChanged,
    LoadGone,
    LocalChanged,
    LocalGone,
    MemberChanged,
    MemberGone,
    RootAsked,
    Tick,
    TrustTold,
)
from federation.exports import exports_of, loads_of, services_of, with_export, with_loads, without_export
from federation.heads import MOST_KEPT, Heads, accepted, keep
from federation.health import grow_silent
from federation.inputs import is_peer, standing, wanted_ports
from federation.listeners import found_at, listener, services_at
from federation.model import (
    HUB,
    Cluster,
    ExportSpec,
    Freshness,
    Lease,
    Load,
    LocalService,
    Member,
    OwnGateway,
    Path,
    Service,
    View,
)
from federation.own import derived, with_own_loads
from pki.spiffe import SpiffeId


class Everything(Enum):
    """Every service may have changed."""

    EVERYTHING = "everything"


EVERYTHING: Literal[Everything.EVERYTHING] = Everything.EVERYTHING
NOTHING: frozenset[Service] = frozenset()

Touched = frozenset[Service] | Everything
"""The services whose `inputs` may differ from before. That of all others are equal."""


def reduce(view: View, event: Event) -> tuple[View, Touched]:
    """Fold one event into the view. What an event may not say is ignored: it changes and touches nothing."""
    match event:
        case LocalChanged(local):
            return _local_changed(view, local)
        case LocalGone(service):
            return _local_gone(view, service)
        case ExportChanged(spec):
            return _export_changed(view, spec)
        case ExportGone(cluster, service):
            return _export_gone(view, cluster, service)
        case LoadChanged(load):
            return _load_changed(view, load)
        case LoadGone(cluster, service, port, zone):
            return _load_gone(view, service, (cluster, port, zone))
        case ClusterChanged(cluster):
            return _cluster_changed(view, cluster.name, cluster)
        case ClusterGone(name):
            return _cluster_changed(view, name, None)
        case MemberChanged(member):
            return _member_changed(view, member)
        case MemberGone(name):
            return _member_gone(view, name)
        case BundleChanged(name, bundle):
            after = replace(view, bundles=view.bundles.insert(name, bundle))
            return after, _touched_by_cluster(view, after, name)
        case HeadsTold(told):
            return _heads_told(view, told), NOTHING
        case HeldTold(held):
            return replace(view, held=view.held.insert(held.owner, held)), NOTHING
        case RootAsked() | TrustTold():
            return view, NOTHING
        case HeadsAccepted(owner):
            return _heads_accepted(view, owner), NOTHING
        case BanChanged(ban):
            return _bans_changed(view, view.bans.insert(ban.key, ban), ban)
        case BanGone(key):
            ban_gone = view.bans.get(key)
            return (
                (view, NOTHING) if ban_gone is None else _bans_changed(view, view.bans.remove(key), ban_gone)
            )
        case BeatHeard(owner, count):
            return _beat_heard(view, owner, count)
        case HubChanged(up):
            return replace(view, hub_up=up), NOTHING
        case Tick():
            return _tick(view, event)
        case GatewayReported(gateway, paths, failed):
            return _reported(view, gateway, paths, failed)
        case GatewayLost(name):
            return _unreported(view, name)
        case GatewayGone(name):
            return _gateway_gone(view, name)
    assert_never(event)


# ---- local services -----------------------------------------------------------------------------------------------


def _local_changed(view: View, local: LocalService) -> tuple[View, Touched]:
    known = view.local.get(local.service)
    if local.backends is None and known is not None:
        local = replace(local, backends=known.backends)
    if local == known:
        return view, NOTHING
    view = found_at(replace(view, local=view.local.insert(local.service, local)), known, local)
    return _settled(derived(view, local.service), {local.service})


def _local_gone(view: View, service: Service) -> tuple[View, Touched]:
    if service not in view.local and service not in view.first_exported:
        return view, NOTHING
    view = found_at(replace(view, local=view.local.discard(service)), view.local.get(service), None)
    return _settled(derived(view, service), {service})


# ---- what other clusters own --------------------------------------------------------------------------------------


def _export_changed(view: View, spec: ExportSpec) -> tuple[View, Touched]:
    if not _is_foreign(view, spec.cluster):
        return view, NOTHING
    known = exports_of(view, spec.service).get(spec.cluster)
    after = with_export(view, spec)
    if known is not None and replace(known, at=spec.at) == spec:
        return after, NOTHING
    return _settled(after, {spec.service})


def _export_gone(view: View, cluster: str, service: Service) -> tuple[View, Touched]:
    if not _is_foreign(view, cluster) or cluster not in exports_of(view, service):
        return view, NOTHING
    return _settled(without_export(view, cluster, service), {service})


def _load_changed(view: View, load: Load) -> tuple[View, Touched]:
    if not _is_foreign(view, load.cluster):
        return view, NOTHING
    key = (load.cluster, load.port, load.zone)
    loads = loads_of(view, load.service)
    known = loads.get(key)
    after = with_loads(view, load.service, loads.insert(key, load))
    same = known is not None and replace(known, at=load.at) == load
    return after, NOTHING if same else frozenset({load.service})


def _load_gone(view: View, service: Service, key: tuple[str, int, str]) -> tuple[View, Touched]:
    loads = loads_of(view, service)
    if not _is_foreign(view, key[0]) or key not in loads:
        return view, NOTHING
    return with_loads(view, service, loads.remove(key)), frozenset({service})


def _cluster_changed(view: View, name: str, cluster: Cluster | None) -> tuple[View, Touched]:
    if not _is_foreign(view, name):
        return view, NOTHING
    clusters = view.clusters.discard(name) if cluster is None else view.clusters.insert(name, cluster)
    after = replace(view, clusters=clusters)
    return after, _touched_by_cluster(view, after, name)


def _is_foreign(view: View, owner: str) -> bool:
    """We alone speak for ourselves, and the hub owns nothing but the registry."""
    return owner not in (view.me.name, HUB)


# ---- the registry -------------------------------------------------------------------------------------------------


def _member_changed(view: View, member: Member) -> tuple[View, Touched]:
    """A member that the registry may not have is ignored: the word before it stands."""
    known = view.members.get(member.name)
    if admit.member(member, view.me.base) is not None:
        return view, NOTHING
    after = replace(view, members=view.members.insert(member.name, member))
    if known is not None and replace(known, at=member.at) == member:
        return after, NOTHING
    if member.name == view.me.name:
        return _all_settled(after)
    services = {*services_of(after, member.name), *services_of(after, view.me.name)}
    if known is not None and known.joined_at != member.joined_at:
        after = _unheard(after, member.name)
    if member.name not in after.leases:
        lease = Lease(count=0, silence=0.0, freshness=Freshness.FRESH)
        after = replace(after, leases=after.leases.insert(member.name, lease))
    return _settled(after, services)


def _member_gone(view: View, name: str) -> tuple[View, Touched]:
    """Trust ends at once; the rest of its word is not admitted any more, and goes when sync says so."""
    if name not in view.members:
        return view, NOTHING
    after = replace(view, members=view.members.remove(name), leases=view.leases.discard(name))
    if name == view.me.name:
        return _all_settled(after)
    services = {*services_of(after, name), *services_of(after, view.me.name)}
    return _settled(replace(after, bundles=after.bundles.discard(name)), services)


def _bans_changed(view: View, bans: HashTrieMap[str, Ban], ban: Ban) -> tuple[View, Touched]:
    """Follow up on a ban that came or went: what its cluster exports, and what we export to it."""
    after = replace(view, bans=bans)
    match ban.kind:
        case BanKind.CLUSTER:
            name: str | None = ban.subject
        case BanKind.IDENTITY:
            name = SpiffeId.parse(ban.subject).trust_domain.cluster(view.me.base)
        case BanKind.KEY:
            name = None
    if name is None or name == view.me.name:
        return after, NOTHING
    return _settled(after, {*services_of(after, name), *services_of(after, view.me.name)})


# ---- journals of others --------------------------------------------------------------------------------------------


def _heads_told(view: View, told: Heads) -> View:
    """The furthest head of each journal stays; an owner has so many and no more."""
    if not _is_foreign(view, told.owner) and told.owner != HUB:
        return view
    heads = view.heads
    held = sum(owner == told.owner for owner, _ in heads)
    for head in told.heads:
        known = heads.get((told.owner, head.authority))
        if known is None:
            held += 1
            if held > MOST_KEPT:
                continue
        kept = keep(known, head)
        if kept != known:
            heads = heads.insert((told.owner, head.authority), kept)
    return view if heads is view.heads else replace(view, heads=heads)


def _heads_accepted(view: View, owner: str) -> View:
    heads = view.heads
    for key, kept in view.heads.items():
        if key[0] == owner and kept.doubt is not None:
            heads = heads.insert(key, accepted(kept))
    return view if heads is view.heads else replace(view, heads=heads)


def _unheard(view: View, name: str) -> View:
    """The view without the word of a cluster that is no longer the one that spoke: who joins anew under its name has
    another authority, and must not be believed by the old one."""
    for service in services_of(view, name):
        loads = loads_of(view, service)
        for key in loads:
            loads = loads.remove(key) if key[0] == name else loads
        view = without_export(with_loads(view, service, loads), name, service)
    return replace(view, bundles=view.bundles.discard(name), clusters=view.clusters.discard(name))


def _all_settled(view: View) -> tuple[View, Touched]:
    """What the registry says of ourselves decides on all our exports."""
    for service in view.local:
        view = derived(view, service)
    view, _ = _settled(view, {*view.exports, *view.ports})
    return view, EVERYTHING


# ---- time and health ----------------------------------------------------------------------------------------------


def _beat_heard(view: View, owner: str, count: int) -> tuple[View, Touched]:
    lease = view.leases.get(owner)
    if lease is None or count <= lease.count:
        return view, NOTHING
    heard = Lease(count=count, silence=0.0, freshness=Freshness.FRESH)
    after = replace(view, leases=view.leases.insert(owner, heard))
    return after, _touched_by_cluster(view, after, owner)


def _tick(view: View, tick: Tick) -> tuple[View, Touched]:
    after = replace(view, now=tick.now)
    if view.hub_up:
        grown = grow_silent(view.leases, tick.elapsed, view.me.leases)
        after = replace(after, leases=after.leases.update(grown))
    silent = [name for name, lease in after.leases.items() if lease.freshness != view.leases[name].freshness]
    touched = frozenset[Service]().union(*(_touched_by_cluster(view, after, name) for name in silent))
    after, freed = _ports_expired(after)
    return after, touched | freed


def _ports_expired(view: View) -> tuple[View, frozenset[Service]]:
    """Numbers that come back to an exhausted range go to those who wait for one."""
    after = ports.expire(view)
    if view.free != () or after.free == ():
        return after, NOTHING
    settled, _ = _settled(after, after.exports)
    given = [service for service in settled.ports if settled.ports[service] is not after.ports.get(service)]
    return settled, frozenset(given)


def _reported(
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


def _gateway_gone(view: View, name: str) -> tuple[View, Touched]:
    after, moved = _moved(view, replace(view, gateways=view.gateways.discard(name)), name)
    after, touched = _unreported(after, name)
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


def _unreported(view: View, name: str) -> tuple[View, frozenset[Service]]:
    after = replace(view, paths=view.paths.discard(name), failed=view.failed.discard(name))
    return _seen_anew(view, after, name)


def _seen_anew(before: View, after: View, gateway: str) -> tuple[View, frozenset[Service]]:
    """Follow up on one gateway's word: paths that turned, and local services whose healthy endpoints changed.

    An address counts as failed when all that report say so; a gateway that starts or stops to report
    therefore matters to every service of which any of them saw an address fail.
    """
    clusters = {*before.paths.get(gateway, ()), *after.paths.get(gateway, ())}
    touched = frozenset[Service]().union(*(_touched_by_cluster(before, after, name) for name in clusters))
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


# ---- shared by the above ------------------------------------------------------------------------------------------


def _touched_by_cluster(before: View, after: View, name: str) -> frozenset[Service]:
    """Its exports if its standing with us changed, ours if it became, or ceased to be, one who may reach them."""
    touched: frozenset[Service] = NOTHING
    if standing(before, name) != standing(after, name):
        touched = touched.union(services_of(after, name))
    if is_peer(before, name) != is_peer(after, name):
        touched = touched.union(services_of(after, after.me.name))
    return touched


def _settled(view: View, services: Iterable[Service]) -> tuple[View, Touched]:
    """The view with listen ports given and released as the exports of these services want them now."""
    touched = frozenset(services)
    for service in sorted(touched):
        view = ports.settle(view, service, wanted_ports(view, service))
    return view, touched
