"""How exports and loads lie in a `View`: nested persistent maps without empty branches, and the index by cluster."""

from __future__ import annotations

from dataclasses import replace

from rpds import HashTrieMap, HashTrieSet

from federation.model import ExportSpec, Load, Service, View

LoadKey = tuple[str, int, str]
"""Cluster, port and zone."""

_NOBODY: HashTrieMap[str, ExportSpec] = HashTrieMap()
_NO_LOADS: HashTrieMap[LoadKey, Load] = HashTrieMap()
_NO_SERVICES: HashTrieSet[Service] = HashTrieSet()


def exports_of(view: View, service: Service) -> HashTrieMap[str, ExportSpec]:
    """Who exports `service`, by cluster, before any admission."""
    return view.exports.get(service, _NOBODY)


def loads_of(view: View, service: Service) -> HashTrieMap[LoadKey, Load]:
    return view.loads.get(service, _NO_LOADS)


def services_of(view: View, cluster: str) -> HashTrieSet[Service]:
    """What `cluster` exports."""
    return view.by_cluster.get(cluster, _NO_SERVICES)


def with_export(view: View, spec: ExportSpec) -> View:
    exports = exports_of(view, spec.service).insert(spec.cluster, spec)
    return replace(
        view,
        exports=view.exports.insert(spec.service, exports),
        by_cluster=view.by_cluster.insert(spec.cluster, services_of(view, spec.cluster).insert(spec.service)),
    )


def without_export(view: View, cluster: str, service: Service) -> View:
    known = exports_of(view, service)
    if cluster not in known:
        return view
    exports, services = known.remove(cluster), services_of(view, cluster).remove(service)
    return replace(
        view,
        exports=view.exports.insert(service, exports) if exports else view.exports.remove(service),
        by_cluster=view.by_cluster.insert(cluster, services) if services else view.by_cluster.remove(cluster),
    )


def with_loads(view: View, service: Service, loads: HashTrieMap[LoadKey, Load]) -> View:
    return replace(view, loads=view.loads.insert(service, loads) if loads else view.loads.discard(service))
