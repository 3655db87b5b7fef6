"""Each kind of fact as a message of the wire, and back.

What comes in is a stranger's: numbers of things are looked at before the things, and whatever does not make a fact is a
ValueError, an OverflowError, or an error of `pki`. Whether the fact may be said is not asked here.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_network

from federation.admit import MOST_GATEWAYS, MOST_PAIRS, MOST_PATTERNS, MOST_PORTS, MOST_RANGES, MOST_SCOPE
from federation.banned import Ban, BanKind, objection
from federation.heads import MOST_HEADS, Heads, JournalHead
from federation.held import MOST_HELD, MOST_ROOTS, Held
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
from federation.root_request import LONGEST_REQUEST, RootRequest
from federation.roots import LONGEST_KEY_ID, Roots
from federation.sync import sync_pb2 as pb
from pki.bundle import (
    FIRST_GENERATION,
    FIRST_SEQUENCE,
    HIGHEST_SEQUENCE,
    MOST_ANCHORS,
    MOST_EARLIER,
    MOST_SIGNATURES,
    Bundle,
    Proof,
)
from pki.certificate import LONGEST_CERTIFICATE, der, load_der
from pki.spiffe import TrustDomain
from pki.statement import LONGEST_SIGNATURE

MOST_FAMILIES = 2

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
_BANS = {
    BanKind.CLUSTER: pb.Ban.KIND_CLUSTER,
    BanKind.IDENTITY: pb.Ban.KIND_IDENTITY,
    BanKind.KEY: pb.Ban.KIND_KEY,
}
_BANS_BACK = {number: kind for kind, number in _BANS.items()}


def milliseconds(time: datetime) -> int:
    """Unix milliseconds, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def moment(since: int) -> datetime:
    """From Unix milliseconds. Raises OverflowError for a time that no calendar knows."""
    return _EPOCH + timedelta(milliseconds=since)


# ---- out ----------------------------------------------------------------------------------------------------------


def spec_out(spec: ExportSpec) -> pb.ExportSpec:
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


def load_out(load: Load) -> pb.Load:
    return pb.Load(
        namespace=load.service.namespace,
        name=load.service.name,
        port=load.port,
        zone=load.zone,
        healthy=load.healthy,
        total=load.total,
        capacity=load.capacity,
    )


def cluster_out(cluster: Cluster) -> pb.Cluster:
    gateways = []
    for gateway in cluster.gateways:
        message = pb.Gateway(name=gateway.name, address=gateway.address, port=gateway.port)
        setattr(message, "class", gateway.cls)
        gateways.append(message)
    return pb.Cluster(region=cluster.region, zone=cluster.zone, gateways=gateways)


def member_out(member: Member) -> pb.Member:
    return pb.Member(
        trust_domain=member.trust_domain.name,
        may_export=member.may_export,
        ranges=[str(network) for network in member.ranges],
        joined_at_ms=milliseconds(member.joined_at),
        state=_STATES[member.state],
        root_signed=member.rooted,
    )


def held_out(held: Held) -> pb.Held:
    digests = dict(held.digests)
    return pb.Held(
        versions=[
            pb.Held.Version(
                trust_domain=name, generation=generation, sequence=sequence, digest=digests.get(name, b"")
            )
            for name, generation, sequence in held.bundles
        ],
        roots=held.roots,
        epoch=held.stamp[0],
        count=held.stamp[1],
        signature=held.signature,
    )


def heads_out(heads: Heads) -> pb.Journals:
    return pb.Journals(
        heads=[
            pb.Journals.Head(
                authority=bytes.fromhex(head.authority), lines=head.lines, hash=bytes.fromhex(head.hash)
            )
            for head in heads.heads
        ]
    )


def ban_out(ban: Ban) -> pb.Ban:
    return pb.Ban(
        kind=_BANS[ban.kind], subject=ban.subject, reason=ban.reason, since_ms=milliseconds(ban.since)
    )


def bundle_out(bundle: Bundle) -> pb.Bundle:
    return pb.Bundle(
        trust_domain=bundle.trust_domain.name,
        sequence=bundle.sequence,
        anchors=[der(anchor) for anchor in bundle.anchors],
        root_signed=[der(form) for form in bundle.proof.rooted],
        signatures=[pb.Signature(signature=each) for each in bundle.proof.signatures],
        generation=bundle.generation,
        earlier=[bundle_out(version) for version in bundle.earlier],
    )


# ---- in -----------------------------------------------------------------------------------------------------------


def spec_in(owner: str, at: Position, spec: pb.ExportSpec) -> ExportSpec:
    _at_most(MOST_PORTS, spec.ports, "ports")
    _at_most(MOST_SCOPE, spec.scope.clusters, "clusters in its scope")
    _at_most(MOST_PAIRS, spec.labels, "labels")
    _at_most(MOST_PAIRS, spec.annotations, "annotations")
    _at_most(MOST_FAMILIES, spec.families, "IP families")
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


def load_in(owner: str, at: Position, load: pb.Load) -> Load:
    service = Service(load.namespace, load.name)
    return Load(owner, service, load.port, load.zone, load.healthy, load.total, load.capacity, at)


def cluster_in(owner: str, at: Position, cluster: pb.Cluster) -> Cluster:
    _at_most(MOST_GATEWAYS, cluster.gateways, "gateways")
    gateways = tuple(
        Gateway(gateway.name, getattr(gateway, "class"), gateway.address, gateway.port)
        for gateway in cluster.gateways
    )
    return Cluster(owner, cluster.region, cluster.zone, gateways, at)


def member_in(at: Position, key: str, member: pb.Member) -> Member:
    _at_most(MOST_PATTERNS, member.may_export, "patterns")
    _at_most(MOST_RANGES, member.ranges, "ranges")
    _at_most(LONGEST_CERTIFICATE, member.root_signed, "bytes of a certificate")
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
        rooted=member.root_signed,
    )


def request_in(owner: str, request: pb.RootRequest) -> RootRequest:
    for what in (request.csr, request.anchor):
        if not 1 <= len(what) <= LONGEST_REQUEST:
            raise ValueError(f"{len(what)} bytes, expected 1 to {LONGEST_REQUEST}")
    return RootRequest(owner, request.csr, request.anchor)


def held_in(owner: str, held: pb.Held) -> Held:
    _at_most(MOST_HELD, held.versions, "versions of bundles")
    versions = sorted((one.trust_domain, one.generation, one.sequence) for one in held.versions)
    for name, generation, sequence in versions:
        TrustDomain.parse(name)
        if generation < FIRST_GENERATION or not FIRST_SEQUENCE <= sequence <= HIGHEST_SEQUENCE:
            raise ValueError(f"version {generation}.{sequence} of the bundle of {name}")
    if len({name for name, _, _ in versions}) < len(versions):
        raise ValueError("two versions of one bundle")
    _at_most(MOST_ROOTS, held.roots, "roots")
    for root in held.roots:
        _at_most(LONGEST_KEY_ID, root, "bytes of a key identifier")
    digests = sorted((one.trust_domain, one.digest) for one in held.versions if one.digest)
    if any(len(digest) != sha256().digest_size for _, digest in digests):
        raise ValueError("a digest that is no SHA-256")
    _at_most(LONGEST_SIGNATURE, held.signature, "bytes of a signature")
    return Held(
        owner,
        tuple(versions),
        tuple(sorted(held.roots)),
        tuple(digests),
        (held.epoch, held.count),
        held.signature,
    )


def heads_in(owner: str, journals: pb.Journals) -> Heads:
    _at_most(MOST_HEADS, journals.heads, "journals")
    heads = tuple(JournalHead(one.authority.hex(), one.lines, one.hash.hex()) for one in journals.heads)
    for head in heads:
        if not head.is_possible:
            raise ValueError(f"a journal cannot have come to {head}")
    if len({head.authority for head in heads}) < len(heads):
        raise ValueError("two heads of one journal")
    return Heads(owner, heads)


def ban_in(ban: pb.Ban, base: str) -> Ban:
    if ban.kind not in _BANS_BACK:
        raise ValueError(f"{ban.kind} is not a kind of ban")
    found = Ban(_BANS_BACK[ban.kind], ban.subject, ban.reason, moment(ban.since_ms))
    if (reason := objection(found, base)) is not None:
        raise ValueError(reason)
    return found


def roots_in(base: str, roots: pb.Roots) -> Roots:
    _at_most(LONGEST_KEY_ID, roots.issuing, "bytes of a key identifier")
    return Roots(bundle_in(TrustDomain.parse(str(base)), roots.bundle), roots.issuing)


def bundle_in(trust_domain: TrustDomain, bundle: pb.Bundle) -> Bundle:
    _at_most(MOST_EARLIER, bundle.earlier, "earlier versions")
    earlier = tuple(_version_in(trust_domain, version) for version in bundle.earlier)
    return replace(_version_in(trust_domain, bundle), earlier=earlier)


def _version_in(trust_domain: TrustDomain, bundle: pb.Bundle) -> Bundle:
    if bundle.trust_domain != trust_domain.name:
        raise ValueError(f"it is about {bundle.trust_domain[:255]!r}, expected {trust_domain}")
    _at_most(MOST_ANCHORS, bundle.anchors, "anchors")
    _at_most(MOST_ANCHORS, bundle.root_signed, "root-signed forms")
    _at_most(MOST_SIGNATURES, bundle.signatures, "signatures")
    return Bundle(
        trust_domain,
        bundle.sequence,
        tuple(load_der(anchor) for anchor in bundle.anchors),
        Proof(
            tuple(load_der(form) for form in bundle.root_signed),
            tuple(each.signature for each in bundle.signatures),
        ),
        bundle.generation or FIRST_GENERATION,
    )


def _at_most(allowed: int, things: Sized, what: str) -> None:
    if len(things) > allowed:
        raise ValueError(f"{len(things)} {what}, allowed are {allowed}")
