"""The names of everything that a gateway's configuration is made of, each chosen once and here.

Whoever reads Envoy's admin pages, statistics or access log meets these names, and what reports health upwards
parses them back. Names are built from DNS labels and numbers, so no two different things share one.

| thing                                         | name                                    |
|-----------------------------------------------|-----------------------------------------|
| imported service: listener and cluster         | `default/echo:80`                       |
| its own backends here: cluster                 | `local/default/echo:80`                 |
| the way to a cluster: internal listener        | `to/west`                               |
| gateways of that cluster: cluster              | `gateway/west`                          |
| own backends, for our own listeners: internal listener and route table | `local`         |
| listener for peers                             | `east-west`                             |
| what a peer may reach: filter chain and route table | `from/west`                        |
| anchors of a trust domain: secret              | `bundle/west.mesh.example`              |
| our own certificate and key: secret            | `identity`                              |
"""

from __future__ import annotations

from federation.model import Service
from pki.spiffe import SpiffeId, TrustDomain

EAST_WEST = "east-west"
LOCAL = "local"
IDENTITY = "identity"
"""The only secret that a snapshot names and does not hold: each gateway process adds its own."""

GATEWAY_CLASS = "eastwest"
"""The class of the gateways that clusters dial each other with."""

METADATA = "federation"
"""The namespace of endpoint metadata that says why an endpoint stands where it stands."""

_LOCAL_CLUSTER = "local/"
_TO = "to/"
_GATEWAY = "gateway/"
_FROM = "from/"
_BUNDLE = "bundle/"


def imported(service: Service, port: int) -> str:
    """The listener and the cluster of a service as clients here reach it: `default/echo:80`."""
    return f"{service}:{port}"


def local_cluster(service: Service, port: int) -> str:
    """The cluster of our own backends of a service that we export: `local/default/echo:80`."""
    return f"{_LOCAL_CLUSTER}{service}:{port}"


def parse_local_cluster(name: str) -> tuple[Service, int] | None:
    """What `local_cluster` was given, or None for any other cluster."""
    if not name.startswith(_LOCAL_CLUSTER):
        return None
    rest, colon, port = name.removeprefix(_LOCAL_CLUSTER).rpartition(":")
    namespace, slash, service = rest.partition("/")
    return (Service(namespace, service), int(port)) if colon and slash and port.isdecimal() else None


def to(cluster: str) -> str:
    """The internal listener that passes tunnels on to a cluster: `to/west`."""
    return _TO + cluster


def gateway(cluster: str) -> str:
    """The Envoy cluster of the gateways of a cluster: `gateway/west`."""
    return _GATEWAY + cluster


def parse_gateway(name: str) -> str | None:
    """The cluster that `gateway` was given, or None for any other Envoy cluster."""
    return name.removeprefix(_GATEWAY) if name.startswith(_GATEWAY) else None


def inbound(cluster: str) -> str:
    """The route table, and the filter chain, of one peer: `from/west`."""
    return _FROM + cluster


def parse_inbound(name: str) -> str | None:
    """The peer that `inbound` was given, or None for any other route table."""
    return name.removeprefix(_FROM) if name.startswith(_FROM) else None


def bundle(trust_domain: TrustDomain) -> str:
    """The secret with the anchors of one trust domain: `bundle/west.mesh.example`."""
    return f"{_BUNDLE}{trust_domain}"


def parse_bundle(name: str) -> TrustDomain | None:
    """The trust domain that `bundle` was given, or None for any other secret; raises `InvalidSpiffeId`."""
    return TrustDomain.parse(name.removeprefix(_BUNDLE)) if name.startswith(_BUNDLE) else None


def sni(source: str, target: TrustDomain) -> str:
    """What a gateway of `source` asks for at a gateway of `target`: `from-east.west.mesh.example`.

    It picks the filter chain and proves nothing: the chain's single bundle does.
    """
    return f"from-{source}.{target}"


def authority(service: Service, port: int) -> str:
    """What a CONNECT asks for: `echo.default.svc.clusterset.local:80` (KEP-1645 names, RFC 9113 §8.5)."""
    return f"{service.host}:{port}"


def gateway_id(trust_domain: TrustDomain) -> SpiffeId:
    """The identity that all gateways of a cluster show to other clusters."""
    return SpiffeId.gateway(trust_domain, GATEWAY_CLASS)
