"""Entries of the wire to facts of the model and back: the one door through which the others' words come in.

What comes out of `decode` has the form of a fact of its owner. Whether the owner may say it is `federation.admit`'s
question, and whether a bundle may be believed is `pki.bundle`'s. An entry of a kind that this version does not know is
refused alone; unknown fields of a known kind pass through the hub untouched, because bytes are relayed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from federation import admit
from federation.admit import Refused
from federation.events import (
    BundleChanged,
    ClusterChanged,
    ClusterGone,
    Event,
    ExportChanged,
    ExportGone,
    LoadChanged,
    LoadGone,
    MemberChanged,
    MemberGone,
)
from federation.model import (
    Affinity,
    Cluster,
    ExportSpec,
    Gateway,
    Kind,
    Load,
    Member,
    MemberState,
    Port,
    Position,
    Service,
)
from federation.sync import sync_pb2 as pb
from pki.bundle import MOST_ANCHORS, Bundle, Proof
from pki.certificate import der, load_der
from pki.errors import InvalidBundle, InvalidSpiffeId, Untrusted
from pki.spiffe import TrustDomain

Fact = ExportSpec | Load | Cluster | Member | Bundle
"""What an entry can say."""

LONGEST_ENTRY = 192 * 1024
"""Bytes of one encoded entry; a bundle is the longest kind."""
LONGEST_KEY = 512

CLUSTER = "cluster"
BUNDLE = "bundle"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS = {Kind.CLUSTER_SET_IP: pb.ExportSpec.KIND_CLUSTER_SET_IP, Kind.HEADLESS: pb.ExportSpec.KIND_HEADLESS}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}
_STATES = {
    MemberState.ACTIVE: pb.Member.STATE_ACTIVE,
    MemberState.DRAINING: pb.Member.STATE_DRAINING,
    MemberState.DRAINED: pb.Member.STATE_DRAINED,
    MemberState.QUARANTINED: pb.Member.STATE_QUARANTINED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}


def milliseconds(time: datetime) -> int:
    """Unix milliseconds, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def moment(since: int) -> datetime:
    """From Unix milliseconds. Raises OverflowError for a time that no calendar knows."""
    return _EPOCH + timedelta(milliseconds=since)


def key_of(fact: Fact) -> str:
    """The key under which its owner publishes `fact`."""
    match fact:
        case ExportSpec(service=service):
            return f"spec/{service}"
        case Load(service=service, port=port, zone=zone):
            return f"load/{service}/{port}/{zone}"
        case Cluster():
            return CLUSTER
        case Member(name=name):
            return f"member/{name}"
        case Bundle():
            return BUNDLE


# ---- out ----------------------------------------------------------------------------------------------------------


def encode(key: str, seq: int, fact: Fact) -> bytes:
    """`fact` as an encoded Entry of `key`, stamped with `seq`; its own position does not travel."""
    entry = pb.Entry(key=key, seq=seq)
    match fact:
        case ExportSpec():
            entry.spec.CopyFrom(_spec_out(fact))
        case Load():
            entry.load.CopyFrom(_load_out(fact))
        case Cluster():
            entry.cluster.CopyFrom(_cluster_out(fact))
        case Member():
            entry.member.CopyFrom(_member_out(fact))
        case Bundle():
            entry.bundle.CopyFrom(_bundle_out(fact))
    return entry.SerializeToString(deterministic=True)


def tombstone(key: str, seq: int) -> bytes:
    """The encoded Entry that says: `key` is gone since `seq`."""
    return pb.Entry(key=key, seq=seq, gone=pb.Tombstone()).SerializeToString()


def restamp(body: bytes, seq: int) -> bytes:
    """The same entry, said again at `seq`."""
    entry = pb.Entry.FromString(body)
    entry.seq = seq
    return entry.SerializeToString()


def _spec_out(spec: ExportSpec) -> pb.ExportSpec:
    return pb.ExportSpec(
        namespace=spec.service.namespace,
        name=spec.service.name,
        ports=[
            pb.Port(
                name=port.name, number=port.number, protocol=port.protocol, app_protocol=port.app_protocol
            )
            for port in spec.ports
        ],
        kind=_KINDS[spec.kind],
        exported_at_ms=milliseconds(spec.exported_at),
        scope=None if spec.scope is None else pb.Scope(clusters=sorted(spec.scope)),
        affinity=None
        if spec.affinity is None
        else pb.SessionAffinity(client_ip=True, timeout_seconds=spec.affinity.timeout),
        families=spec.families,
        labels=dict(spec.labels),
        annotations=dict(spec.annotations),
    )


def _load_out(load: Load) -> pb.Load:
    return pb.Load(
        namespace=load.service.namespace,
        name=load.service.name,
        port=load.port,
        zone=load.zone,
        healthy=load.healthy,
        total=load.total,
        capacity=load.capacity,
    )


def _cluster_out(cluster: Cluster) -> pb.Cluster:
    gateways = []
    for gateway in cluster.gateways:
        message = pb.Gateway(name=gateway.name, address=gateway.address, port=gateway.port)
        setattr(message, "class", gateway.cls)
        gateways.append(message)
    return pb.Cluster(region=cluster.region, zone=cluster.zone, gateways=gateways)


def _member_out(member: Member) -> pb.Member:
    return pb.Member(
        trust_domain=member.trust_domain.name,
        may_export=member.may_export,
        ranges=[str(network) for network in member.ranges],
        joined_at_ms=milliseconds(member.joined_at),
        state=_STATES[member.state],
    )


def _bundle_out(bundle: Bundle) -> pb.Bundle:
    signature = bundle.proof.signature
    return pb.Bundle(
        trust_domain=bundle.trust_domain.name,
        sequence=bundle.sequence,
        anchors=[der(anchor) for anchor in bundle.anchors],
        root_signed=[der(form) for form in bundle.proof.rooted],
        signatures=[pb.Signature(signature=signature)] if signature else [],
    )


# ---- in -----------------------------------------------------------------------------------------------------------


def decode(owner: str, epoch: int, body: bytes, base: str) -> Fact | Refused:
    """The fact in an encoded Entry of `owner`, whose trust domain lies under `base`; refused if it has no such form."""
    if len(body) > LONGEST_ENTRY:
        return Refused("size", f"an entry of {len(body)} bytes, allowed are {LONGEST_ENTRY}")
    entry = pb.Entry.FromString(body)
    if len(entry.key) > LONGEST_KEY:
        return Refused("key", f"a key of {len(entry.key)} characters, allowed are {LONGEST_KEY}")
    if (refused := admit.key(owner, entry.key)) is not None:
        return refused
    try:
        fact = _fact(owner, Position(epoch, entry.seq), entry, base)
    except (ValueError, OverflowError, Untrusted, InvalidBundle, InvalidSpiffeId) as error:
        return Refused("form", f"{entry.key}: {error}")
    if fact is None:
        return Refused("kind", f"{entry.key} holds a kind of value that this version does not know")
    if key_of(fact) != entry.key:
        return Refused("key", f"{entry.key!r} holds what belongs under {key_of(fact)!r}")
    return fact


def changed(owner: str, fact: Fact) -> Event:
    """The event that tells an agent of `fact`; a bundle must have been accepted before."""
    match fact:
        case ExportSpec():
            return ExportChanged(fact)
        case Load():
            return LoadChanged(fact)
        case Cluster():
            return ClusterChanged(fact)
        case Member():
            return MemberChanged(fact)
        case Bundle():
            return BundleChanged(owner, fact)


def withdrawn(owner: str, key: str) -> Event | None:
    """The event that tells an agent that `owner` removed a key that it held. None for a bundle: trust in a member ends
    when the registry says that the member is gone."""
    match key.split("/"):
        case ["spec", namespace, name]:
            return ExportGone(owner, Service(namespace, name))
        case ["load", namespace, name, port, zone] if port.isascii() and port.isdigit():
            return LoadGone(owner, Service(namespace, name), int(port), zone)
        case ["cluster"]:
            return ClusterGone(owner)
        case ["member", name]:
            return MemberGone(name)
        case _:
            return None


def _fact(owner: str, at: Position, entry: pb.Entry, base: str) -> Fact | None:
    match entry.WhichOneof("value"):
        case "spec":
            return _spec(owner, at, entry.spec)
        case "load":
            return _load(owner, at, entry.load)
        case "cluster":
            return _cluster(owner, at, entry.cluster)
        case "member":
            return _member(at, entry.key, entry.member)
        case "bundle":
            return _bundle(TrustDomain.of_cluster(owner, base), entry.bundle)
        case _:
            return None


def _spec(owner: str, at: Position, spec: pb.ExportSpec) -> ExportSpec:
    if spec.kind not in _KINDS_BACK:
        raise ValueError(f"{spec.kind} is not a kind of service")
    if spec.HasField("affinity") and not spec.affinity.client_ip:
        raise ValueError("a session affinity other than by client address")
    return ExportSpec(
        cluster=owner,
        service=Service(spec.namespace, spec.name),
        ports=tuple(Port(port.name, port.number, port.protocol, port.app_protocol) for port in spec.ports),
        kind=_KINDS_BACK[spec.kind],
        exported_at=moment(spec.exported_at_ms),
        at=at,
        scope=frozenset(spec.scope.clusters) if spec.HasField("scope") else None,
        affinity=Affinity(spec.affinity.timeout_seconds) if spec.HasField("affinity") else None,
        families=tuple(spec.families),
        labels=tuple(sorted(spec.labels.items())),
        annotations=tuple(sorted(spec.annotations.items())),
    )


def _load(owner: str, at: Position, load: pb.Load) -> Load:
    service = Service(load.namespace, load.name)
    return Load(owner, service, load.port, load.zone, load.healthy, load.total, load.capacity, at)


def _cluster(owner: str, at: Position, cluster: pb.Cluster) -> Cluster:
    gateways = tuple(
        Gateway(gateway.name, getattr(gateway, "class"), gateway.address, gateway.port)
        for gateway in cluster.gateways
    )
    return Cluster(owner, cluster.region, cluster.zone, gateways, at)


def _member(at: Position, key: str, member: pb.Member) -> Member:
    if member.state not in _STATES_BACK:
        raise ValueError(f"{member.state} is not a state of a member")
    return Member(
        name=key.removeprefix("member/"),
        trust_domain=TrustDomain.parse(member.trust_domain),
        may_export=tuple(member.may_export),
        ranges=tuple(ip_network(text) for text in member.ranges),
        joined_at=moment(member.joined_at_ms),
        state=_STATES_BACK[member.state],
        at=at,
    )


def _bundle(trust_domain: TrustDomain, bundle: pb.Bundle) -> Bundle:
    if bundle.trust_domain != trust_domain.name:
        raise ValueError(f"it is about {bundle.trust_domain[:255]!r}, expected {trust_domain}")
    if max(len(bundle.anchors), len(bundle.root_signed)) > MOST_ANCHORS or len(bundle.signatures) > 1:
        raise ValueError(f"more than {MOST_ANCHORS} anchors, or more than one signature")
    return Bundle(
        trust_domain,
        bundle.sequence,
        tuple(load_der(anchor) for anchor in bundle.anchors),
        Proof(
            tuple(load_der(form) for form in bundle.root_signed),
            bundle.signatures[0].signature if bundle.signatures else b"",
        ),
    )
