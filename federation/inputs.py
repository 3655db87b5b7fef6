"""What may decide one service, and what shapes gateways: two small values cut out of a `View`.

Whatever is not in `ServiceInputs` cannot change the plan of that service, so an agent computes again only
where this value differs. Admission happens here: what an owner may not say is withheld, with its reason,
before anything is merged. Positions are left out, because a repeated word changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rpds import HashTrieMap

from federation import admit
from federation.admit import Refused
from federation.banned import Ban, banned_gateways
from federation.exports import exports_of, loads_of
from federation.health import PathState, path_state
from federation.model import (
    Backend,
    Cluster,
    ExportSpec,
    Freshness,
    Gateway,
    ListenPort,
    Load,
    Member,
    MemberState,
    Position,
    Service,
    View,
)
from federation.own import own_backends
from pki.bundle import Bundle
from pki.spiffe import SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True, order=True)
class ClusterStanding:
    """How a cluster stands with us. `reachable`: it named a gateway within its ranges; `trusted`: we know its bundle,
    and nobody has banned it.

    We ourselves are always fresh, up, reachable and trusted.
    """

    name: str
    region: str
    state: MemberState
    freshness: Freshness
    path: PathState
    reachable: bool
    trusted: bool


@dataclass(frozen=True, slots=True)
class Withheld:
    """An export that is known and not used."""

    cluster: str
    refused: Refused


@dataclass(frozen=True, slots=True)
class ServiceInputs:
    """All that may decide one service, sorted, for `==`.

    `exports` and `loads` are the admitted ones, ours included; `standing` is that of their clusters.
    `backends` maps a port to our own addresses, while we export the service; `listen_ports` a port to the
    number that its listener has; `exported_to` names the peers that may reach our export. `regions` is the
    configured order of other regions.
    """

    me: str
    region: str
    regions: tuple[str, ...]
    service: Service
    exports: tuple[ExportSpec, ...]
    withheld: tuple[Withheld, ...]
    loads: tuple[Load, ...]
    backends: tuple[tuple[int, tuple[Backend, ...]], ...]
    listen_ports: tuple[tuple[int, int], ...]
    standing: tuple[ClusterStanding, ...]
    exported_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another cluster that we trust: we dial its `gateways`, and accept it on a chain of its own.

    `gateways` are those of class `eastwest` within its ranges; there may be none yet.
    """

    name: str
    trust_domain: TrustDomain
    region: str
    gateways: tuple[Gateway, ...]
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class FabricInputs:
    """All that shapes gateways themselves. `binds` lists (class, address, east-west port) of our own, once each."""

    me: str
    base: str
    peers: tuple[Peer, ...]
    binds: tuple[tuple[str, str, int], ...]

    @property
    def trust_domain(self) -> TrustDomain:
        return TrustDomain.of_cluster(self.me, self.base)


EAST_WEST = "eastwest"
"""The class of the gateways that other clusters dial."""


def inputs(view: View, service: Service) -> ServiceInputs:
    """Cut out what may decide `service`. Its cost is that of the service, whatever else the view holds."""
    me = view.me
    exports, withheld = _admitted(view, service)
    exporters = frozenset(spec.cluster for spec in exports)
    listening = view.ports.get(service, _UNHEARD)
    return ServiceInputs(
        me=me.name,
        region=me.region,
        regions=me.regions,
        service=service,
        exports=exports,
        withheld=withheld,
        loads=_loads(view, service, exporters),
        backends=_backends(view, service) if me.name in exporters else (),
        listen_ports=tuple(
            (port, kept.number) for port, kept in sorted(listening.items()) if kept.released_at is None
        ),
        standing=tuple(found for name in sorted(exporters) if (found := standing(view, name)) is not None),
        exported_to=_exported_to(view, exports),
    )


def fabric(view: View) -> FabricInputs:
    """Cut out what shapes our gateways: the peers that we trust, and where our own gateways listen."""
    others = sorted(name for name in view.members if name != view.me.name)
    return FabricInputs(
        me=view.me.name,
        base=view.me.base,
        peers=tuple(peer for name in others if (peer := _peer(view, name)) is not None),
        binds=tuple(sorted({(own.cls, own.bind, own.bind_port) for own in view.gateways.values()})),
    )


def wanted_ports(view: View, service: Service) -> frozenset[int]:
    """The TCP ports of `service` that any admitted export offers: each needs a listen port."""
    return frozenset(
        port.number
        for spec in exports_of(view, service).values()
        if _refused(view, spec, view.members.get(spec.cluster)) is None
        for port in spec.ports
        if port.protocol == "TCP"
    )


def _admitted(view: View, service: Service) -> tuple[tuple[ExportSpec, ...], tuple[Withheld, ...]]:
    exports: list[ExportSpec] = []
    withheld: list[Withheld] = []
    for name, spec in sorted(exports_of(view, service).items()):
        member = view.members.get(name)
        refused = _refused(view, spec, member)
        if refused is not None:
            withheld.append(Withheld(name, refused))
        elif member is not None:
            exports.append(replace(spec, at=Position(), exported_at=max(spec.exported_at, member.joined_at)))
    return tuple(exports), tuple(withheld)


def _refused(view: View, spec: ExportSpec, member: Member | None) -> Refused | None:
    """Our own exports were admitted when they were derived; nobody else's state keeps us from our own backends."""
    me = view.me
    if member is None:
        return Refused("member", f"{spec.cluster} is not in the registry")
    if spec.cluster == me.name:
        return None
    if member.state not in _MAY_SERVE:
        return Refused(member.state.value, f"an operator set {spec.cluster} to {member.state.value}")
    if (ban := ban_of(view, member)) is not None:
        return Refused("banned", str(ban))
    if not spec.visible_to(me.name):
        return Refused("scope", f"{spec.cluster} does not export {spec.service} to {me.name}")
    return admit.export(spec, member) or admit.import_policy(me.import_policy, spec.cluster, spec.service)


def _loads(view: View, service: Service, exporters: frozenset[str]) -> tuple[Load, ...]:
    admitted = []
    for key, load in sorted(loads_of(view, service).items()):
        member = view.members.get(key[0])
        if load.cluster in exporters and member is not None and admit.load(load, member) is None:
            admitted.append(replace(load, at=Position()))
    return tuple(admitted)


def _backends(view: View, service: Service) -> tuple[tuple[int, tuple[Backend, ...]], ...]:
    local = view.local.get(service)
    return () if local is None else own_backends(view, local)


def standing(view: View, name: str) -> ClusterStanding | None:
    """How the cluster `name` stands with us, None if it is not in the registry."""
    me = view.me
    member = view.members.get(name)
    if member is None:
        return None
    if name == me.name:
        return ClusterStanding(
            name, me.region, member.state, Freshness.FRESH, PathState.UP, reachable=True, trusted=True
        )
    said = view.clusters.get(name)
    lease = view.leases.get(name)
    return ClusterStanding(
        name=name,
        region=said.region if said is not None else "",
        state=member.state,
        freshness=lease.freshness if lease is not None else Freshness.FRESH,
        path=path_of(view, name),
        reachable=bool(_dialled(said, member)),
        trusted=_bundle(view, member) is not None and ban_of(view, member) is None,
    )


def path_of(view: View, name: str) -> PathState:
    """What our reporting gateways see of the way to the cluster `name`."""
    return path_state(seen[name] for seen in view.paths.values() if name in seen)


def _exported_to(view: View, exports: tuple[ExportSpec, ...]) -> tuple[str, ...]:
    ours = next((spec for spec in exports if spec.cluster == view.me.name), None)
    if ours is None or view.members[view.me.name].state is MemberState.QUARANTINED:
        return ()
    return tuple(sorted(name for name in view.members if is_peer(view, name) and ours.visible_to(name)))


def is_peer(view: View, name: str) -> bool:
    """Known, trusted, and neither quarantined nor banned. A cluster that drains gets no traffic, but may send some."""
    member = view.members.get(name)
    if member is None or name == view.me.name or member.state is MemberState.QUARANTINED:
        return False
    if ban_of(view, member) is not None:
        return False
    return _bundle(view, member) is not None


def ban_of(view: View, member: Member) -> Ban | None:
    """All gateways that other clusters dial, and that dial them, have one identity: banned, it leaves nobody."""
    gateways = SpiffeId.gateway(member.trust_domain, EAST_WEST)
    return banned_gateways(view.bans, member.name, gateways) if view.bans else None


def _peer(view: View, name: str) -> Peer | None:
    member = view.members[name]
    bundle = _bundle(view, member)
    if bundle is None or not is_peer(view, name):
        return None
    said = view.clusters.get(name)
    region = said.region if said is not None else ""
    return Peer(name, member.trust_domain, region, _dialled(said, member), bundle)


def _dialled(said: Cluster | None, member: Member) -> tuple[Gateway, ...]:
    """The gateways that we dial: one out of the ranges drops out alone, the others stay."""
    if said is None:
        return ()
    return tuple(
        sorted(
            one
            for one in said.gateways[: admit.MOST_GATEWAYS]
            if one.cls == EAST_WEST and admit.gateway(one, member.ranges) is None
        )
    )


def _bundle(view: View, member: Member) -> Bundle | None:
    """The bundle of a member's own trust domain; one for any other domain counts as none."""
    bundle = view.bundles.get(member.name)
    return bundle if bundle is not None and bundle.trust_domain == member.trust_domain else None


_MAY_SERVE = (MemberState.ACTIVE, MemberState.DRAINING)
_UNHEARD: HashTrieMap[int, ListenPort] = HashTrieMap()
