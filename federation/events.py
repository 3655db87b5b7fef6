"""What can happen to a `View`: a closed union. `str(event)` is its log line.

Time is an event (`Tick`), so that everything that follows from it is as repeatable as the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from federation.banned import Ban
from federation.heads import Heads
from federation.held import Held
from federation.model import Cluster, ExportSpec, Load, LocalService, Member, OwnGateway, Path, Service
from pki.bundle import Bundle


@dataclass(frozen=True, slots=True)
class LocalChanged:
    """Discovery found, or found changed, a service of this cluster."""

    local: LocalService

    def __str__(self) -> str:
        return f"local service {self.local.service} changed"


@dataclass(frozen=True, slots=True)
class LocalGone:
    """The Service object itself was deleted. A slice that vanishes while the Service stays is not this."""

    service: Service

    def __str__(self) -> str:
        return f"local service {self.service} is gone"


@dataclass(frozen=True, slots=True)
class ExportChanged:
    spec: ExportSpec

    def __str__(self) -> str:
        return f"{self.spec.cluster} exports {self.spec.service}"


@dataclass(frozen=True, slots=True)
class ExportGone:
    cluster: str
    service: Service

    def __str__(self) -> str:
        return f"{self.cluster} no longer exports {self.service}"


@dataclass(frozen=True, slots=True)
class LoadChanged:
    load: Load

    def __str__(self) -> str:
        load = self.load
        return f"{load.cluster} has {load.healthy}/{load.total} of {load.service}:{load.port}"


@dataclass(frozen=True, slots=True)
class LoadGone:
    cluster: str
    service: Service
    port: int
    zone: str

    def __str__(self) -> str:
        return f"{self.cluster} has no more word on {self.service}:{self.port} in zone {self.zone or '-'}"


@dataclass(frozen=True, slots=True)
class ClusterChanged:
    cluster: Cluster

    def __str__(self) -> str:
        return (
            f"{self.cluster.name} has {len(self.cluster.gateways)} gateways in {self.cluster.region or '-'}"
        )


@dataclass(frozen=True, slots=True)
class ClusterGone:
    name: str

    def __str__(self) -> str:
        return f"{self.name} withdrew its gateways"


@dataclass(frozen=True, slots=True)
class MemberChanged:
    member: Member

    def __str__(self) -> str:
        return f"the registry has {self.member.name} as {self.member.state.value}"


@dataclass(frozen=True, slots=True)
class MemberGone:
    name: str

    def __str__(self) -> str:
        return f"{self.name} left the federation"


@dataclass(frozen=True, slots=True)
class BundleChanged:
    """An anchor set whose proof the agent has verified (`pki.bundle.accept`)."""

    cluster: str
    bundle: Bundle

    def __str__(self) -> str:
        return f"{self.cluster} is verified with bundle {self.bundle.sequence}"


@dataclass(frozen=True, slots=True)
class HeadsTold:
    """An owner said how far the journals of its authorities have come. That is never withdrawn."""

    told: Heads

    def __str__(self) -> str:
        return f"{self.told.owner} keeps {len(self.told.heads)} journals"


@dataclass(frozen=True, slots=True)
class HeldTold:
    """Which versions of bundles every verifier of an owner has; a newer word replaces the older one."""

    held: Held

    def __str__(self) -> str:
        return f"{self.held.owner} holds {len(self.held.bundles)} bundles"


@dataclass(frozen=True, slots=True)
class TrustTold:
    """The hub says by which anchors it is recognised, or which roots there are and which of them signs (`issuing`, the
    identifier of its key); the agent has verified that they follow from those before.
    """

    bundle: Bundle
    issuing: bytes = b""

    def __str__(self) -> str:
        return f"{self.bundle.trust_domain} is verified with bundle {self.bundle.sequence}"


@dataclass(frozen=True, slots=True)
class RootAsked:
    """A cluster asked the root to sign its next authority, which is between it and the hub."""

    owner: str

    def __str__(self) -> str:
        return f"{self.owner} asks the root for its next authority"


@dataclass(frozen=True, slots=True)
class HeadsAccepted:
    """A person says that what contradicts the kept heads of `owner` is right."""

    owner: str

    def __str__(self) -> str:
        return f"the journals of {self.owner} are accepted as they are"


@dataclass(frozen=True, slots=True)
class BanChanged:
    ban: Ban

    def __str__(self) -> str:
        return str(self.ban)


@dataclass(frozen=True, slots=True)
class BanGone:
    """`key` is that of the ban (`Ban.key`)."""

    key: str

    def __str__(self) -> str:
        return f"{self.key} is taken back"


@dataclass(frozen=True, slots=True)
class BeatHeard:
    """An owner counted on. `count` rises for as long as the owner lives, over its restarts too."""

    owner: str
    count: int

    def __str__(self) -> str:
        return f"{self.owner} beat {self.count}"


@dataclass(frozen=True, slots=True)
class HubChanged:
    up: bool

    def __str__(self) -> str:
        return "the hub's stream is up" if self.up else "the hub's stream is down"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: `elapsed` seconds since the last tick, by the monotonic clock; `now` by the wall clock."""

    now: datetime
    elapsed: float

    def __str__(self) -> str:
        return f"tick {self.elapsed:.1f}s"


@dataclass(frozen=True, slots=True)
class GatewayReported:
    """One of our gateways said where it is and what it sees; both mappings are complete each time.

    `paths` maps a cluster to the health of the way there, `failed` a (service, port) to the local addresses,
    written as `str(Backend)`, that fail Envoy's check.
    """

    gateway: OwnGateway
    paths: Mapping[str, Path]
    failed: Mapping[tuple[Service, int], frozenset[str]]

    def __str__(self) -> str:
        return f"gateway {self.gateway.name} reports"


@dataclass(frozen=True, slots=True)
class GatewayLost:
    """A gateway's report stream ended: what it saw counts no more. It stays listed: silence is not emptiness."""

    name: str

    def __str__(self) -> str:
        return f"gateway {self.name} is silent"


@dataclass(frozen=True, slots=True)
class GatewayGone:
    """A gateway left in good order, was removed, or was silent for too long."""

    name: str

    def __str__(self) -> str:
        return f"gateway {self.name} is gone"


Event = (
    LocalChanged
    | LocalGone
    | ExportChanged
    | ExportGone
    | LoadChanged
    | LoadGone
    | ClusterChanged
    | ClusterGone
    | MemberChanged
    | MemberGone
    | BundleChanged
    | HeadsTold
    | HeldTold
    | RootAsked
    | TrustTold
    | HeadsAccepted
    | BanChanged
    | BanGone
    | BeatHeard
    | HubChanged
    | Tick
    | GatewayReported
    | GatewayLost
    | GatewayGone
)
