"""What this cluster says of itself: its exports, their load and its gateways, derived from what was found locally.

Only what the registry lets us export is said, and only addresses within our ranges, and not those of our own gateways,
count; what is held back says why. `owned` is keyed as in `sync.proto`. Positions are left at zero: whoever publishes
stamps them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from federation import admit
from federation.admit import Refused
from federation.exports import exports_of, loads_of, services_of, with_export, with_loads, without_export
from federation.listeners import Listener, is_listener, own_listeners
from federation.model import (
    Backend,
    Cluster,
    ExportSpec,
    Gateway,
    Load,
    LocalService,
    Member,
    Position,
    Service,
    View,
)

Fact = Cluster | ExportSpec | Load


def own_export(view: View, local: LocalService) -> ExportSpec | Refused | None:
    """Our export of `local`, why we may not have one, or None if it is not meant to be exported.

    `exported_at` is when we first saw it exported, and never before we joined.
    """
    if not local.exported:
        return None
    member = view.members.get(view.me.name)
    if member is None:
        return Refused("member", f"{view.me.name} is not in the registry yet")
    seen = view.first_exported.get(local.service, view.now)
    spec = ExportSpec(
        cluster=view.me.name,
        service=local.service,
        ports=local.ports,
        kind=local.kind,
        exported_at=max(seen, member.joined_at),
        at=Position(),
        scope=local.scope,
        affinity=local.affinity,
        families=local.families,
        labels=local.labels,
        annotations=local.annotations,
    )
    return admit.export(spec, member) or spec


def own_loads(view: View, local: LocalService) -> Iterator[Load]:
    """The load of each port and zone of `local`; a port with no endpoint has one of zero, in zone ""."""
    for port, backends in own_backends(view, local):
        failed = _failed(view, local.service, port)
        zones: dict[str, list[Backend]] = defaultdict(list)
        for backend in backends:
            zones[backend.zone].append(backend)
        for zone, members in sorted(zones.items()) or [("", [])]:
            healthy = sum(backend.ready and str(backend) not in failed for backend in members)
            yield Load(
                cluster=view.me.name,
                service=local.service,
                port=port,
                zone=zone,
                healthy=healthy,
                total=len(members),
                capacity=_capacity(local.capacity, healthy, len(backends)),
                at=Position(),
            )


def own_backends(view: View, local: LocalService) -> tuple[tuple[int, tuple[Backend, ...]], ...]:
    """The addresses behind each port of `local`, sorted; those out of our ranges, or of our gateways, are left out."""
    member = view.members.get(view.me.name)
    if member is None or local.backends is None:
        return ()
    numbers = {port.number for port in local.ports}
    listeners = own_listeners(view)
    return tuple(
        (
            port,
            tuple(sorted(one for one in backends if _refused(one, member, listeners) is None)),
        )
        for port, backends in sorted(local.backends.items())
        if port in numbers
    )


def _refused(backend: Backend, member: Member, listeners: Sequence[Listener]) -> Refused | None:
    return admit.address(backend.address, member.ranges) or is_listener(backend, listeners)


def derived(view: View, service: Service) -> View:
    """The view with our own export of `service`, its load and its age as they follow from what is there locally."""
    local = view.local.get(service)
    if local is None or not local.exported:
        view = replace(
            view,
            first_exported=view.first_exported.discard(service),
            held_back=view.held_back.discard(service),
        )
        return with_own_loads(without_export(view, view.me.name, service), service)
    if service not in view.first_exported:
        view = replace(view, first_exported=view.first_exported.insert(service, view.now))
    spec = own_export(view, local)
    if spec is None or isinstance(spec, Refused):
        view = without_export(view, view.me.name, service)
    else:
        view = with_export(view, spec)
    view = with_own_loads(view, service)
    held_back = view.held_back.discard(service) if _is_whole(view, local) else view.held_back.insert(service)
    return replace(view, held_back=held_back)


def _is_whole(view: View, local: LocalService) -> bool:
    """Whether all of `local` that can be offered is: its export, and every address behind each of its ports."""
    found = sum(len(backends) for backends in (local.backends or {}).values())
    loads = loads_of(view, local.service).values()
    offered = sum(load.total for load in loads if load.cluster == view.me.name)
    return view.me.name in exports_of(view, local.service) and offered == found


def with_own_loads(view: View, service: Service) -> View:
    local = view.local.get(service)
    exported = view.me.name in exports_of(view, service)
    fresh = own_loads(view, local) if local is not None and exported else ()
    wanted = {(load.cluster, load.port, load.zone): load for load in fresh}
    known = loads_of(view, service)
    loads = known
    for key in known:
        if key[0] == view.me.name and key not in wanted:
            loads = loads.remove(key)
    for key, load in wanted.items():
        if known.get(key) != load:
            loads = loads.insert(key, load)
    return view if loads is known else with_loads(view, service, loads)


def own_cluster(view: View) -> Cluster:
    """What we say of ourselves: the gateways that serve, as far as they lie in our ranges."""
    member = view.members.get(view.me.name)
    ranges = () if member is None else member.ranges
    return Cluster(
        name=view.me.name,
        region=view.me.region,
        zone=view.me.zone,
        gateways=tuple(one for one in _serving(view) if admit.gateway(one, ranges) is None),
        at=Position(),
    )


def gateways_held_back(view: View) -> Iterator[tuple[Gateway, Refused]]:
    """Our gateways that serve and are not offered to other clusters, and why; none before the registry knows us."""
    member = view.members.get(view.me.name)
    if member is None:
        return
    for one in _serving(view):
        refused = admit.gateway(one, member.ranges)
        if refused is not None:
            yield one, refused


def _serving(view: View) -> list[Gateway]:
    return sorted(
        Gateway(own.name, own.cls, own.address, own.port) for own in view.gateways.values() if own.serving
    )


def owned_by_service(view: View, service: Service) -> dict[str, ExportSpec | Load]:
    """What we publish of one service, by sync key; empty if we do not export it."""
    spec = exports_of(view, service).get(view.me.name)
    if spec is None:
        return {}
    name = f"{service.namespace}/{service.name}"
    loads = loads_of(view, service)
    return {f"spec/{name}": spec} | {
        f"load/{name}/{load.port}/{load.zone}": load
        for load in loads.values()
        if load.cluster == view.me.name
    }


def owned(view: View) -> dict[str, Fact]:
    """All that we publish, by sync key, except our trust bundle."""
    facts: dict[str, Fact] = {"cluster": own_cluster(view)}
    for service in services_of(view, view.me.name):
        facts |= owned_by_service(view, service)
    return facts


def held_back(view: View) -> Iterator[tuple[Service, Refused]]:
    """Why something that was found here is not published: exports we may not have, addresses out of our ranges.

    Its cost is that of the services which it names.
    """
    member = view.members.get(view.me.name)
    listeners = own_listeners(view)
    for service in sorted(view.held_back):
        local = view.local[service]
        export = own_export(view, local)
        if isinstance(export, Refused):
            yield service, export
        elif export is not None and member is not None:
            for backends in (local.backends or {}).values():
                for backend in backends:
                    refused = _refused(backend, member, listeners)
                    if refused is not None:
                        yield service, refused


def _failed(view: View, service: Service, port: int) -> frozenset[str]:
    """Addresses (as `str(Backend)`) that every gateway that reports sees fail; none while nobody reports."""
    reports = [seen.get((service, port), frozenset()) for seen in view.failed.values()]
    return frozenset.intersection(*reports) if reports else frozenset()


def _capacity(declared: int | None, healthy: int, total: int) -> int:
    """The weight of `healthy` endpoints of `total`: their number, or their part of what all together can carry."""
    if declared is None or healthy == 0:
        return healthy
    return max(1, declared * healthy // total)
