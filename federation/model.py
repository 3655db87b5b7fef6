"""What is true: the facts that an agent knows, as frozen values.

Nothing here decides. `reduce` folds events into a `View`, `inputs` cuts out what may decide one service,
`merge` and `route` decide. Every fact has one owner, and `Position` says how recent the owner's word is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from rpds import HashTrieMap, HashTrieSet

from federation.banned import Ban
from federation.heads import Kept
from federation.held import Held
from pki.bundle import Bundle
from pki.spiffe import TrustDomain

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HUB = "hub"
"""The owner of registry facts. No cluster can have this name."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """How far an owner's word has come: `epoch` rises with each start of the owner, `seq` with each change."""

    epoch: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


@dataclass(frozen=True, slots=True, order=True)
class Service:
    """The name of a service, the same in every cluster of the set (KEP-1645, namespace sameness)."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def host(self) -> str:
        """The clusterset name, `<name>.<namespace>.svc.clusterset.local` (KEP-1645)."""
        return f"{self.name}.{self.namespace}.svc.clusterset.local"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    name: str
    number: int
    protocol: str = "TCP"
    app_protocol: str = ""


class Kind(Enum):
    """The types of a ServiceImport (KEP-1645)."""

    CLUSTER_SET_IP = "ClusterSetIP"
    HEADLESS = "Headless"


@dataclass(frozen=True, slots=True)
class Affinity:
    """`sessionAffinity: ClientIP` and its time-out in seconds."""

    timeout: int


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """The slow half of an export: the shape of a service as one cluster offers it."""

    cluster: str
    service: Service
    ports: tuple[Port, ...]
    kind: Kind
    exported_at: datetime
    at: Position
    scope: frozenset[str] | None = None
    affinity: Affinity | None = None
    families: tuple[str, ...] = ("IPv4",)
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    def visible_to(self, cluster: str) -> bool:
        return self.scope is None or cluster in self.scope or cluster == self.cluster


@dataclass(frozen=True, slots=True)
class Load:
    """The fast half of an export: how much of one port of a service one zone of a cluster has right now.

    `healthy` and `total` count endpoints; `capacity` is the weight of the healthy ones: their number, unless
    the owner declared what all of them together can carry.
    """

    cluster: str
    service: Service
    port: int
    zone: str
    healthy: int
    total: int
    capacity: int
    at: Position


@dataclass(frozen=True, slots=True, order=True)
class Gateway:
    """A gateway that other clusters can dial."""

    name: str
    cls: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster says of itself."""

    name: str
    region: str
    zone: str
    gateways: tuple[Gateway, ...]
    at: Position


class MemberState(Enum):
    ACTIVE = "active"
    DRAINING = "draining"
    DRAINED = "drained"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Member:
    """What the registry says of a cluster. Only an operator changes it.

    `may_export` holds patterns `<namespace>/<name>`, `ranges` the networks in which its gateways and
    endpoints lie. `rooted` is what the root signed for its authority (DER), empty before; only the cluster itself looks
    at it, since everybody else believes the bundle that it comes back in.
    """

    name: str
    trust_domain: TrustDomain
    may_export: tuple[str, ...]
    ranges: tuple[Network, ...]
    joined_at: datetime
    state: MemberState
    at: Position
    rooted: bytes = b""


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """One address behind one port of a local service; `ready` as its EndpointSlice says."""

    address: str
    port: int
    zone: str = ""
    ready: bool = True

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class LocalService:
    """A service of this cluster, as discovery found it.

    `backends` maps a service port to its addresses. It is None while no EndpointSlice exists: then the last
    known ones stay, because silence is not emptiness; an empty slice is an explicit zero.
    """

    service: Service
    ports: tuple[Port, ...]
    kind: Kind
    exported: bool
    backends: Mapping[int, tuple[Backend, ...]] | None
    scope: frozenset[str] | None = None
    affinity: Affinity | None = None
    families: tuple[str, ...] = ("IPv4",)
    capacity: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


class Freshness(Enum):
    """How long an owner has been silent while our own stream to the hub was up."""

    FRESH = "fresh"
    SUSPECT = "suspect"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Lease:
    """`silence` counts seconds since the owner's beat last rose, as far as our own hub stream was up to hear it."""

    count: int
    silence: float
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """When silence means something: seconds until an owner is suspect and until its lease expires.

    From `guard_from` peers on, leases do not expire while most of them are silent: then it is we who are cut
    off.
    """

    suspect_after: float = 15.0
    expired_after: float = 60.0
    guard_from: int = 4


@dataclass(frozen=True, slots=True)
class Path:
    """What one of our gateways sees of the hosts of `gateway/<cluster>`."""

    healthy: int
    total: int


@dataclass(frozen=True, slots=True)
class OwnGateway:
    """A gateway of this cluster: others dial `address:port`, its Envoy listens on `bind:bind_port` for them, and on
    `bind` for local clients of imported services."""

    name: str
    cls: str
    address: str
    port: int
    bind: str
    bind_port: int
    serving: bool


@dataclass(frozen=True, slots=True)
class ListenPort:
    """The port on which imported (service, port) is reached. A released one is not given away for 24 h."""

    number: int
    released_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Me:
    """What this agent's configuration fixes: who it is, what it accepts, and how it orders the others."""

    name: str
    base: str
    region: str
    zone: str
    regions: tuple[str, ...] = ()
    import_policy: ImportPolicy = field(default_factory=lambda: ImportPolicy())
    port_range: tuple[int, int] = (20000, 29999)
    leases: LeaseSettings = LeaseSettings()

    @property
    def trust_domain(self) -> TrustDomain:
        return TrustDomain.of_cluster(self.name, self.base)


@dataclass(frozen=True, slots=True)
class ImportRule:
    """Accept services that match `services` from clusters that match `clusters`; "*" matches within one part."""

    clusters: tuple[str, ...] = ("*",)
    services: tuple[str, ...] = ("*/*",)


@dataclass(frozen=True, slots=True)
class ImportPolicy:
    """What this cluster accepts from others, whatever the hub says. Deny comes before allow."""

    allow: tuple[ImportRule, ...] = (ImportRule(),)
    deny: tuple[ImportRule, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """Everything an agent knows. Maps are persistent: a changed view shares all that did not change.

    `exports` and `loads` hold our own too, derived from `local`; `by_cluster` lists who exports what, `by_port` which
    of our services have an endpoint at a port, `held_back` our services of which not all that was found is
    offered. `paths` and `failed` are keyed by the name of our gateway that said so, and hold exactly the
    gateways that report now. `ports` remembers released numbers too (`released` lists them); `free` counts the
    others as intervals, and is None until they are first counted. `ports` and `first_exported` must outlive a
    restart, and so must `heads`: by owner and authority, how far the others' journals have come. `bans` are
    by `Ban.key`, `held` is by owner.
    """

    me: Me
    now: datetime
    hub_up: bool = False
    members: HashTrieMap[str, Member] = field(default_factory=HashTrieMap)
    clusters: HashTrieMap[str, Cluster] = field(default_factory=HashTrieMap)
    bundles: HashTrieMap[str, Bundle] = field(default_factory=HashTrieMap)
    exports: HashTrieMap[Service, HashTrieMap[str, ExportSpec]] = field(default_factory=HashTrieMap)
    loads: HashTrieMap[Service, HashTrieMap[tuple[str, int, str], Load]] = field(default_factory=HashTrieMap)
    local: HashTrieMap[Service, LocalService] = field(default_factory=HashTrieMap)
    failed: HashTrieMap[str, HashTrieMap[tuple[Service, int], frozenset[str]]] = field(
        default_factory=HashTrieMap
    )
    gateways: HashTrieMap[str, OwnGateway] = field(default_factory=HashTrieMap)
    leases: HashTrieMap[str, Lease] = field(default_factory=HashTrieMap)
    paths: HashTrieMap[str, HashTrieMap[str, Path]] = field(default_factory=HashTrieMap)
    ports: HashTrieMap[Service, HashTrieMap[int, ListenPort]] = field(default_factory=HashTrieMap)
    released: HashTrieSet[tuple[Service, int]] = field(default_factory=HashTrieSet)
    free: tuple[tuple[int, int], ...] | None = None
    by_cluster: HashTrieMap[str, HashTrieSet[Service]] = field(default_factory=HashTrieMap)
    by_port: HashTrieMap[int, HashTrieSet[Service]] = field(default_factory=HashTrieMap)
    first_exported: HashTrieMap[Service, datetime] = field(default_factory=HashTrieMap)
    held_back: HashTrieSet[Service] = field(default_factory=HashTrieSet)
    bans: HashTrieMap[str, Ban] = field(default_factory=HashTrieMap)
    heads: HashTrieMap[tuple[str, str], Kept] = field(default_factory=HashTrieMap)
    held: HashTrieMap[str, Held] = field(default_factory=HashTrieMap)
