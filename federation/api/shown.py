"""How clusters and services look to whoever asks the hub: what is relayed of them, put together for people."""

from __future__ import annotations

from federation.api.messages import ClusterInfo, ExporterInfo, GatewayInfo, PortInfo, ServiceInfo
from federation.hub import Known
from federation.model import Cluster, ExportSpec, Load, Service


def cluster_info(known: Known) -> ClusterInfo:
    """A member as it is shown."""
    member = known.member
    said = next((fact for fact in known.said if isinstance(fact, Cluster)), None)
    return ClusterInfo(
        name=member.name,
        trust_domain=member.trust_domain.name,
        state=member.state.value,
        region=said.region if said else "",
        connected=known.connected,
        silence=known.silence,
        joined_at=member.joined_at,
        may_export=member.may_export,
        ranges=tuple(str(network) for network in member.ranges),
        gateways=tuple(
            GatewayInfo(name=one.name, address=f"{one.address}:{one.port}", gateway_class=one.cls)
            for one in (said.gateways if said else ())
        ),
        exports=sum(isinstance(fact, ExportSpec) for fact in known.said),
        refused=tuple(f"{refusal.key}: {refusal.why.detail}" for refusal in known.refused),
        lag=known.lag,
        waits_for_root=known.waits_for_root,
        banned=known.banned,
    )


def united(members: tuple[Known, ...]) -> tuple[ServiceInfo, ...]:
    """All services that anybody exports, as the hub relays them; how they are merged is each importer's affair."""
    specs: dict[Service, list[tuple[ExportSpec, float | None]]] = {}
    loads: dict[tuple[Service, str], list[Load]] = {}
    for known in members:
        for fact in known.said:
            if isinstance(fact, ExportSpec):
                specs.setdefault(fact.service, []).append((fact, known.silence))
            elif isinstance(fact, Load):
                loads.setdefault((fact.service, fact.cluster), []).append(fact)
    return tuple(
        ServiceInfo(
            service=str(service),
            host=service.host,
            ports=tuple(
                PortInfo(name=port.name, port=port.number, protocol=port.protocol)
                for port in sorted(
                    {port for spec, _ in found for port in spec.ports}, key=lambda one: one.number
                )
            ),
            exporters=tuple(
                ExporterInfo(
                    cluster=spec.cluster,
                    healthy=sum(load.healthy for load in loads.get((service, spec.cluster), ())),
                    total=sum(load.total for load in loads.get((service, spec.cluster), ())),
                    age=silence,
                )
                for spec, silence in found
            ),
        )
        for service, found in sorted(specs.items())
    )
