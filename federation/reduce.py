"""The one place where a `View` changes: an event in, the new view and the services that it touched out.

It decides nothing about traffic; it keeps facts, and what is derived from facts alone: our own exports,
leases, listen ports and the index of who exports what. Only an owner's own events change what it owns; facts
of a cluster outlive its silence and its membership, and go when their owner (through sync) says so. A change
costs what it changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from rpds import HashTrieMap

from federation import admit, hearing
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
from federation.listeners import found_at
from federation.model import (
    HUB,
    Cluster,
    ExportSpec,
    Freshness,
    Lease,
    Load,
    LocalService,
    Member,
    Service,
    View,
)
from federation.own import derived
from federation.touched import EVERYTHING, NOTHING, Touched, settled, touched_by_cluster
from pki.spiffe import SpiffeId


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
            return after, touched_by_cluster(view, after, name)
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
            return hearing.beat_heard(view, owner, count)
        case HubChanged(up):
            return replace(view, hub_up=up), NOTHING
        case Tick():
            return hearing.tick(view, event)
        case GatewayReported(gateway, paths, failed):
            return hearing.reported(view, gateway, paths, failed)
        case GatewayLost(name):
            return hearing.unreported(view, name)
        case GatewayGone(name):
            return hearing.gateway_gone(view, name)
    assert_never(event)


# ---- local services -----------------------------------------------------------------------------------------------


def _local_changed(view: View, local: LocalService) -> tuple[View, Touched]:
    known = view.local.get(local.service)
    if local.backends is None and known is not None:
        local = replace(local, backends=known.backends)
    if local == known:
        return view, NOTHING
    view = found_at(replace(view, local=view.local.insert(local.service, local)), known, local)
    return settled(derived(view, local.service), {local.service})


def _local_gone(view: View, service: Service) -> tuple[View, Touched]:
    if service not in view.local and service not in view.first_exported:
        return view, NOTHING
    view = found_at(replace(view, local=view.local.discard(service)), view.local.get(service), None)
    return settled(derived(view, service), {service})


# ---- what other clusters own --------------------------------------------------------------------------------------


def _export_changed(view: View, spec: ExportSpec) -> tuple[View, Touched]:
    if not _is_foreign(view, spec.cluster):
        return view, NOTHING
    known = exports_of(view, spec.service).get(spec.cluster)
    after = with_export(view, spec)
    if known is not None and replace(known, at=spec.at) == spec:
        return after, NOTHING
    return settled(after, {spec.service})


def _export_gone(view: View, cluster: str, service: Service) -> tuple[View, Touched]:
    if not _is_foreign(view, cluster) or cluster not in exports_of(view, service):
        return view, NOTHING
    return settled(without_export(view, cluster, service), {service})


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
    return after, touched_by_cluster(view, after, name)


def _is_foreign(view: View, owner: str) -> bool:
    """We alone speak for ourselves, and the hub owns nothing but the registry."""
    return owner not in (view.me.name, HUB)


# ---- the registry -------------------------------------------------------------------------------------------------


def _member_changed(view: View, member: Member) -> tuple[View, Touched]:
    """A member that the registry may not have is ignored: the word before it stands. A record of an earlier join is
    that of a registry which was put back from a copy: its cluster is the one that was heard since.
    """
    known = view.members.get(member.name)
    if admit.member(member, view.me.base) is not None:
        return view, NOTHING
    after = replace(view, members=view.members.insert(member.name, member))
    if known is not None and replace(known, at=member.at) == member:
        return after, NOTHING
    if member.name == view.me.name:
        return _all_settled(after)
    services = {*services_of(after, member.name), *services_of(after, view.me.name)}
    if known is not None and known.joined_at < member.joined_at:
        after = _unheard(after, member.name)
    if member.name not in after.leases:
        lease = Lease(count=0, silence=0.0, freshness=Freshness.FRESH)
        after = replace(after, leases=after.leases.insert(member.name, lease))
    return settled(after, services)


def _member_gone(view: View, name: str) -> tuple[View, Touched]:
    """Trust ends at once; the rest of its word is not admitted any more, and goes when sync says so."""
    if name not in view.members:
        return view, NOTHING
    after = replace(view, members=view.members.remove(name), leases=view.leases.discard(name))
    if name == view.me.name:
        return _all_settled(after)
    services = {*services_of(after, name), *services_of(after, view.me.name)}
    return settled(replace(after, bundles=after.bundles.discard(name)), services)


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
    return settled(after, {*services_of(after, name), *services_of(after, view.me.name)})


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
    view, _ = settled(view, {*view.exports, *view.ports})
    return view, EVERYTHING
