"""What the REST API says and hears, as structs. Instants are RFC 3339 in UTC, spans are seconds, names are plain text.

A struct that comes in forbids unknown fields; one that goes out may grow.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

Instant = Annotated[datetime, Meta(tz=True)]
"""In UTC; RFC 3339 in JSON."""


class In(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request body."""


class Out(Struct, frozen=True, kw_only=True):
    """An answer."""


# ---- one-time tokens -------------------------------------------------------------------------------------------------


class NewToken(In, frozen=True, kw_only=True):
    """A join token (hub: `cluster`, `may_export`, `ranges`), or one to attest with (agent: `gateway_class`, or
    `workload`, which is `namespace/service-account`)."""

    cluster: str | None = None
    may_export: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    replace_authority: bool = False
    gateway_class: str | None = None
    workload: str | None = None
    lifetime: Annotated[float, Meta(ge=1, le=600)] = 600.0


class CreatedToken(Out, frozen=True, kw_only=True):
    """`token` is shown this once; only its hash is kept."""

    id: str
    token: str
    subject: str
    expires_at: Instant


class TokenInfo(Out, frozen=True, kw_only=True):
    id: str
    kind: Literal["join", "attest", "workload"]
    subject: str
    state: Literal["unused", "used", "expired"]
    expires_at: Instant
    may_export: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()


class Redeem(In, frozen=True, kw_only=True):
    """Either `token_hash` alone (answered with the certificates that the token pins), or `token` with `csr`.

    The first goes over a connection that nobody has verified yet, the second only after the pin was compared. `anchor`
    (PEM) is the self-signed form of the authority that joins.
    """

    token_hash: str | None = None
    token: str | None = None
    csr: str | None = None
    name: str = ""
    anchor: str | None = None


class Redeemed(Out, frozen=True, kw_only=True):
    """The outcome: the pinned certificates (`root` and `bundle`), then `certificates` and what else is needed.

    `roots` are those of a hub, with the versions that lead to them (base64 of the encoded set), for who has joined
    before another root signed. `now` is the issuer's clock. A cluster gets no certificate when it joins before a
    ceremony has signed one.
    """

    bundle: str
    root: str | None = None
    roots: str | None = None
    certificates: tuple[str, ...] = ()
    base: str = ""
    address: str = ""
    joined_at: Instant | None = None
    now: Instant | None = None


class Anchors(Out, frozen=True, kw_only=True):
    """The anchors of the hub's own trust domain, with the versions that lead to them (base64 of the encoded bundle),
    for those who pinned any of them.
    """

    bundle: str


class OfferedBundle(In, frozen=True, kw_only=True):
    """A version of the bundle of a member's trust domain, with the versions that lead to it (base64 of the encoded
    bundle). It proves itself, whoever brings it.
    """

    bundle: str


class HeldBundle(Out, frozen=True, kw_only=True):
    """The version that the hub goes by, in the same form."""

    bundle: str


class Renew(In, frozen=True, kw_only=True):
    csr: str


class Renewed(Out, frozen=True, kw_only=True):
    certificates: tuple[str, ...]


# ---- certificates of workloads ---------------------------------------------------------------------------------------


class NewCertificate(In, frozen=True, kw_only=True):
    """For the key of `csr` (PEM); `lifetime` in seconds, the usual one without it."""

    spiffe_id: str
    csr: str
    lifetime: float | None = None


class IssuedCertificate(Out, frozen=True, kw_only=True):
    """`certificates` are what is presented and `bundle` what is trusted, both PEM. Lives are in seconds; `limited_by`
    names what made it shorter than requested or usual."""

    serial: str
    certificates: str
    bundle: str
    expires_at: Instant
    requested: int | None
    granted: int
    limited_by: str


# ---- the registry ----------------------------------------------------------------------------------------------------


class GatewayInfo(Out, frozen=True, kw_only=True):
    name: str
    address: str
    gateway_class: str = "eastwest"


class ClusterInfo(Out, frozen=True, kw_only=True):
    """A cluster as the hub knows it. `silence`: seconds since its agent was last heard; None: not since the start.

    `waits_for_root`: a ceremony has yet to sign its authority, and the others do not believe it before.
    `banned`: who of it is banned, and why; empty if nobody is.
    """

    name: str
    trust_domain: str
    state: str
    region: str
    connected: bool
    silence: float | None
    joined_at: Instant
    may_export: tuple[str, ...]
    ranges: tuple[str, ...]
    gateways: tuple[GatewayInfo, ...]
    exports: int
    refused: tuple[str, ...] = ()
    lag: int = 0
    waits_for_root: bool = False
    banned: str = ""


class SetCluster(In, frozen=True, kw_only=True):
    """What is None stays as it is."""

    may_export: tuple[str, ...] | None = None
    ranges: tuple[str, ...] | None = None
    state: Literal["active", "draining", "drained", "quarantined"] | None = None


class Done(Out, frozen=True, kw_only=True):
    """What was done, in one sentence."""

    done: str


class NewOperator(In, frozen=True, kw_only=True):
    name: str
    role: Literal["viewer", "operator"]
    csr: str | None = None


class OperatorInfo(Out, frozen=True, kw_only=True):
    name: str
    role: str
    kind: Literal["bearer", "certificate"]


class CreatedOperator(Out, frozen=True, kw_only=True):
    """`token` is shown this once; `certificates` answer a request that carried a CSR."""

    name: str
    role: str
    url: str
    server_name: str
    bundle: str
    token: str | None = None
    certificates: tuple[str, ...] = ()


# ---- services and decisions ------------------------------------------------------------------------------------------


class PortInfo(Out, frozen=True, kw_only=True):
    """`reach` is `host:port` where clients in this cluster reach it; empty when asked at the hub."""

    name: str
    port: int
    protocol: str
    reach: tuple[str, ...] = ()


class ExporterInfo(Out, frozen=True, kw_only=True):
    cluster: str
    healthy: int
    total: int
    age: float | None = None


class ServiceInfo(Out, frozen=True, kw_only=True):
    service: str
    host: str
    ports: tuple[PortInfo, ...]
    exporters: tuple[ExporterInfo, ...]
    conflicts: tuple[str, ...] = ()


# ---- status and checks -----------------------------------------------------------------------------------------------


class RejectedResource(Out, frozen=True, kw_only=True):
    """A resource that an Envoy refused; the last good version stays in place."""

    type: str
    name: str
    error: str


class Blocking(Out, frozen=True, kw_only=True):
    """Who holds a phase of a rotation up, why, since when (null: not known), which of the driver's own gateways or
    leaves that is, and what to do about it."""

    member: str
    reason: str
    who: tuple[str, ...] = ()
    since: Instant | None = None
    todo: str = ""


class LeavesStatus(Out, frozen=True, kw_only=True):
    """All leaves of a cluster are to be renewed: how many gateways have a new one, and which have not."""

    asked_at: Instant
    renewed: int
    waiting: tuple[str, ...]


class RotationStatus(Out, frozen=True, kw_only=True):
    """The rotation that runs, or the last one; `phase` is null before the first. `cluster` names whose authority it is
    where `kind` says that it is a cluster's.

    `ready`: nobody holds it up, and it waits for an operator to go on. `unawaited`: who is not waited for, and why.
    `due` is when the next one begins by itself, `deadline` until when one that runs may wait for somebody. `leaves` is
    the last renewal of all leaves that was asked for, null if there was none since the process started.
    """

    kind: Literal["root", "hub", "cluster"]
    cluster: str
    trust_domain: str
    number: int
    phase: str | None
    running: bool
    manual: bool
    epochs: tuple[int, ...]
    issuing: int
    sequence: int
    begun_at: Instant | None
    who: str
    why: str
    entered_at: Instant | None
    reversible: bool
    ready: bool
    blocking: tuple[Blocking, ...]
    unawaited: tuple[str, ...]
    deadline: Instant
    due: Instant
    ends: Instant
    problem: str | None
    leaves: LeavesStatus | None = None


class Rotate(In, frozen=True, kw_only=True):
    """What an operator wants of a rotation; `why` and `manual` count for `start` only.

    `abort` and `advance` need `number` and `phase`: those of the rotation as the operator saw it. What has moved on
    since is left as it is, so that a call whose answer was lost may be repeated.
    """

    action: Literal["start", "abort", "advance", "leaves"]
    why: str = ""
    manual: bool = False
    number: int | None = None
    phase: str | None = None


class GatewayStatus(Out, frozen=True, kw_only=True):
    name: str
    address: str
    connected: bool
    state: Literal["serving", "draining", "silent"]
    snapshot: int
    acknowledged: int
    envoy: str
    certificate_expires_at: Instant | None
    rejected: tuple[RejectedResource, ...] = ()


class PeerStatus(Out, frozen=True, kw_only=True):
    """Another cluster as this agent sees it. The two signals stay two: `lease` is about word, `path` about way.

    `banned`: that its gateways are banned, and why; empty if they are not.
    """

    name: str
    region: str
    state: str
    lease: str
    silence: float | None
    path: str
    trusted: bool
    banned: str = ""


class AgentStatus(Out, frozen=True, kw_only=True):
    """`behind`: which of its gateways do not hold the newest anchors of whom. `rotations`: that of its authority, while
    it runs."""

    kind: Literal["agent"] = "agent"
    version: str
    pid: int
    cluster: str
    region: str
    hub_connected: bool
    hub: str
    hub_problem: str
    services: int
    exports: int
    gateways: tuple[GatewayStatus, ...]
    peers: tuple[PeerStatus, ...]
    problems: tuple[str, ...]
    certificate_expires_at: Instant
    authority_expires_at: Instant
    behind: tuple[str, ...] = ()
    rotations: tuple[RotationStatus, ...] = ()


class HubStatus(Out, frozen=True, kw_only=True):
    """`rotations`: those that run, of the hub's own authority, of the root, and of clusters whose agents say so."""

    kind: Literal["hub"] = "hub"
    version: str
    pid: int
    base: str
    root: str
    clusters: tuple[ClusterInfo, ...]
    problems: tuple[str, ...]
    certificate_expires_at: Instant
    root_expires_at: Instant | None
    rotations: tuple[RotationStatus, ...] = ()


class Check(Out, frozen=True, kw_only=True):
    result: Literal["ok", "warning", "failure"]
    name: str
    detail: str = ""
    hint: str = ""


class CheckGroup(Out, frozen=True, kw_only=True):
    name: str
    checks: tuple[Check, ...]
