"""From Kubernetes objects to what the agent decides on: one `LocalService` for each Service.

Whoever has objects (a folder of files, a watch on an API server) puts them into `Objects` and translates the services
that were touched, so a change costs the one service that it is about. Objects come checked by `faults`; what only shows
when objects are seen together (an export of nothing, a slice of nobody) is a `Finding` here, and stops no other
service. No slice at all is silence, not zero: then `backends` is None and the last known ones stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rpds import HashTrieMap

from federation.discovery import kinds
from federation.discovery.faults import Finding
from federation.discovery.kinds import EndpointSlice, KubeObject, Ref, ServiceExport
from federation.model import Affinity, Backend, Kind, LocalService, Port, Service

NO_SLICES: HashTrieMap[str, EndpointSlice] = HashTrieMap()


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects by name, and the EndpointSlices of each service. Persistent: a change shares all the rest."""

    all: HashTrieMap[Ref, KubeObject] = field(default_factory=HashTrieMap)
    slices: HashTrieMap[Service, HashTrieMap[str, EndpointSlice]] = field(default_factory=HashTrieMap)

    def put(self, subject: KubeObject) -> tuple[Objects, frozenset[Service]]:
        """With `subject` in place of what had its name; and the services that this is about, at most two."""
        if self.all.get(subject.ref) == subject:
            return self, frozenset()
        rest, touched = self.remove(subject.ref)
        slices = rest.slices
        if isinstance(subject, EndpointSlice):
            siblings = slices.get(subject.service, NO_SLICES).insert(subject.metadata.name, subject)
            slices = slices.insert(subject.service, siblings)
        return Objects(rest.all.insert(subject.ref, subject), slices), touched | {subject.service}

    def remove(self, ref: Ref) -> tuple[Objects, frozenset[Service]]:
        """Without the object of that name; and the service that this is about, if there was one."""
        old = self.all.get(ref)
        if old is None:
            return self, frozenset()
        slices = self.slices
        if isinstance(old, EndpointSlice):
            siblings = slices[old.service].remove(ref.name)
            slices = slices.insert(old.service, siblings) if siblings else slices.remove(old.service)
        return Objects(self.all.remove(ref), slices), frozenset({old.service})

    def translate(self, service: Service) -> Translation:
        found = self.all.get(Ref("Service", service.namespace, service.name))
        export = self.all.get(Ref("ServiceExport", service.namespace, service.name))
        return translate(
            found if isinstance(found, kinds.Service) else None,
            self.slices.get(service, NO_SLICES).values(),
            export if isinstance(export, ServiceExport) else None,
        )


@dataclass(frozen=True, slots=True)
class Translation:
    """`local` is None where there is no service to speak of; `findings` are for whoever wrote the objects."""

    local: LocalService | None
    findings: tuple[Finding, ...] = ()


def translate(
    service: kinds.Service | None, slices: Iterable[EndpointSlice], export: ServiceExport | None
) -> Translation:
    """What the objects of one service say together. The order of `slices` does not matter."""
    parts = sorted(slices, key=lambda part: part.metadata.name)
    if service is None:
        return Translation(None, tuple(_orphans(parts, export)))
    if service.spec.type == "ExternalName":
        return Translation(None, tuple(_external_name(service, export)))
    local = LocalService(
        service=service.service,
        ports=tuple(sorted(Port(p.name, p.port, p.protocol, p.app_protocol) for p in service.spec.ports)),
        kind=Kind.HEADLESS if service.spec.is_headless else Kind.CLUSTER_SET_IP,
        exported=export is not None,
        backends=_backends(service, parts) if parts else None,
        affinity=_affinity(service.spec),
        families=service.spec.ip_families or ("IPv4",),
    )
    if export is not None:
        local = replace(
            local,
            scope=export.scope,
            capacity=export.capacity,
            labels=tuple(sorted(export.spec.exported_labels.items())),
            annotations=tuple(sorted(export.spec.exported_annotations.items())),
        )
    return Translation(local, tuple(_unmatched(service, parts)))


def is_ready(conditions: kinds.Conditions) -> bool:
    """Unknown means ready (discovery.k8s.io/v1, EndpointConditions), but not for one that terminates."""
    return not conditions.terminating if conditions.ready is None else conditions.ready


def _backends(service: kinds.Service, parts: Iterable[EndpointSlice]) -> Mapping[int, tuple[Backend, ...]]:
    """The addresses behind each port. Ports of slices belong to those of the Service by name and protocol, as in
    kube-proxy. Of a number offered over TCP and another protocol, TCP counts: only that is routed.
    """
    over_tcp = {port.port for port in service.spec.ports if port.protocol == "TCP"}
    numbers = {
        (port.name, port.protocol): port.port
        for port in service.spec.ports
        if port.protocol == "TCP" or port.port not in over_tcp
    }
    found: dict[int, dict[tuple[str, int], Backend]] = {number: {} for number in numbers.values()}
    for part in parts:
        targets = [
            (numbers[key], port.port)
            for port in part.ports or ()
            if (key := (port.name or "", port.protocol)) in numbers
        ]
        for endpoint in part.endpoints or ():
            ready = is_ready(endpoint.conditions)
            if endpoint.conditions.terminating and not ready:
                continue
            for number, target in targets:
                backend = Backend(endpoint.addresses[0], target, endpoint.zone, ready)
                known = found[number].get((backend.address, target))
                found[number][backend.address, target] = backend if known is None else _one(known, backend)
    return {number: tuple(sorted(backends.values())) for number, backends in sorted(found.items())}


def _one(a: Backend, b: Backend) -> Backend:
    """The same address in two slices, as happens while it moves: ready if either says so (KEP-752)."""
    return replace(a, zone=min(filter(None, (a.zone, b.zone)), default=""), ready=a.ready or b.ready)


def _affinity(spec: kinds.ServiceSpec) -> Affinity | None:
    if spec.session_affinity == "None":
        return None
    return Affinity(spec.session_affinity_config.client_ip.timeout_seconds)


# ---- what only shows when objects are seen together -------------------------------------------------------------


def _orphans(parts: Iterable[EndpointSlice], export: ServiceExport | None) -> Iterator[Finding]:
    if export is not None:
        problem = f"there is no Service {export.service}, so nothing is exported"
        yield Finding(export.ref, ("metadata", "name"), problem, "the name of a Service in this namespace")
    for part in parts:
        problem = f"there is no Service {part.service}, so these endpoints are not used"
        at = ("metadata", "labels", kinds.SERVICE_NAME)
        yield Finding(part.ref, at, problem, "the name of a Service in this namespace")


def _external_name(service: kinds.Service, export: ServiceExport | None) -> Iterator[Finding]:
    """KEP-1645: services of type ExternalName are not exported."""
    if export is not None:
        problem = f"Service {service.service} has type ExternalName and is not exported"
        yield Finding(export.ref, ("metadata", "name"), problem, "ClusterIP, NodePort, LoadBalancer")


def _unmatched(service: kinds.Service, parts: Iterable[EndpointSlice]) -> Iterator[Finding]:
    named: dict[str, set[str]] = defaultdict(set)
    for port in service.spec.ports:
        named[port.protocol].add(port.name)
    for part in parts:
        for index, target in enumerate(part.ports or ()):
            names = named[target.protocol]
            if (target.name or "") not in names:
                called = f"named {target.name!r}" if target.name else "without a name"
                problem = f"Service {service.service} has no {target.protocol} port {called}"
                allowed = ", ".join(sorted(name or "no name" for name in names)) or "none"
                yield Finding(part.ref, ("ports", index), problem, allowed)
