"""Entries of the wire to facts of the model and back: the one door through which the others' words come in.

What comes out of `decode` has the form of a fact of its owner. Whether the owner may say it is `federation.admit`'s
question, and whether a bundle may be believed is `pki.bundle`'s. An entry of a kind that this version does not know is
refused alone; unknown fields of a known kind pass through the hub untouched, because bytes are relayed.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from federation import admit
from federation.admit import Refused
from federation.banned import Ban
from federation.events import (
    BanChanged,
    BanGone,
    BundleChanged,
    ClusterChanged,
    ClusterGone,
    Event,
    ExportChanged,
    ExportGone,
    HeadsTold,
    HeldTold,
    LoadChanged,
    LoadGone,
    MemberChanged,
    MemberGone,
    RootAsked,
    TrustTold,
)
from federation.heads import Heads
from federation.held import Held
from federation.model import HUB, Cluster, ExportSpec, Load, Member, Position, Service
from federation.root_request import RootRequest
from federation.roots import Roots
from federation.sync import forms
from federation.sync import sync_pb2 as pb
from pki.bundle import Bundle
from pki.errors import InvalidBundle, InvalidSpiffeId, Untrusted
from pki.spiffe import TrustDomain

Fact = ExportSpec | Load | Cluster | Member | Bundle | Heads | Held | RootRequest | Roots | Ban
"""What an entry can say."""

LONGEST_ENTRY = 192 * 1024
"""Bytes of one encoded entry; a bundle is the longest kind."""
LONGEST_KEY = 512

CLUSTER = "cluster"
BUNDLE = "bundle"
JOURNAL = "journal"
HELD = "held"
REQUEST = "request"
ROOTS = "roots"


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
        case Heads():
            return JOURNAL
        case Held():
            return HELD
        case RootRequest():
            return REQUEST
        case Roots():
            return ROOTS
        case Ban():
            return fact.key


# ---- out ----------------------------------------------------------------------------------------------------------


def encode(key: str, seq: int, fact: Fact) -> bytes:
    """`fact` as an encoded Entry of `key`, stamped with `seq`; its own position does not travel."""
    entry = pb.Entry(key=key, seq=seq)
    match fact:
        case ExportSpec():
            entry.spec.CopyFrom(forms.spec_out(fact))
        case Load():
            entry.load.CopyFrom(forms.load_out(fact))
        case Cluster():
            entry.cluster.CopyFrom(forms.cluster_out(fact))
        case Member():
            entry.member.CopyFrom(forms.member_out(fact))
        case Bundle():
            entry.bundle.CopyFrom(forms.bundle_out(fact))
        case Heads():
            entry.journals.CopyFrom(forms.heads_out(fact))
        case Held():
            entry.held.CopyFrom(forms.held_out(fact))
        case RootRequest():
            entry.request.CopyFrom(pb.RootRequest(csr=fact.csr, anchor=fact.anchor))
        case Roots():
            entry.roots.bundle.CopyFrom(forms.bundle_out(fact.bundle))
            entry.roots.issuing = fact.issuing
        case Ban():
            entry.ban.CopyFrom(forms.ban_out(fact))
    return entry.SerializeToString(deterministic=True)


def tombstone(key: str, seq: int) -> bytes:
    """The encoded Entry that says: `key` is gone since `seq`."""
    return pb.Entry(key=key, seq=seq, gone=pb.Tombstone()).SerializeToString()


def restamp(body: bytes, seq: int) -> bytes:
    """The same entry, said again at `seq`."""
    entry = pb.Entry.FromString(body)
    entry.seq = seq
    return entry.SerializeToString()


# ---- in -----------------------------------------------------------------------------------------------------------


def decode(owner: str, epoch: int, body: bytes, base: str) -> Fact | Refused:
    """The fact in an encoded Entry of `owner`, whose trust domain lies under `base`; refused if it has no such form."""
    if len(body) > LONGEST_ENTRY:
        return Refused("size", f"an entry of {len(body)} bytes, allowed are {LONGEST_ENTRY}")
    try:
        entry = pb.Entry.FromString(body)
    except DecodeError:
        return Refused("form", "it is no entry at all")
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
            return TrustTold(fact) if owner == HUB else BundleChanged(owner, fact)
        case Heads():
            return HeadsTold(fact)
        case Held():
            return HeldTold(fact)
        case RootRequest():
            return RootAsked(owner)
        case Roots():
            return TrustTold(fact.bundle, fact.issuing)
        case Ban():
            return BanChanged(fact)


def withdrawn(owner: str, key: str) -> Event | None:
    """The event that tells an agent that `owner` removed a key that it held. None for a bundle, as trust in a member
    ends when the registry says that it is gone, for heads of journals, as what a journal held it holds for ever, and
    for versions of bundles, as nobody lets go of one for saying nothing."""
    match key.split("/"):
        case ["spec", namespace, name]:
            return ExportGone(owner, Service(namespace, name))
        case ["load", namespace, name, port, zone] if port.isascii() and port.isdigit():
            return LoadGone(owner, Service(namespace, name), int(port), zone)
        case ["cluster"]:
            return ClusterGone(owner)
        case ["member", name]:
            return MemberGone(name)
        case ["ban", _, _]:
            return BanGone(key)
        case _:
            return None


def _fact(owner: str, at: Position, entry: pb.Entry, base: str) -> Fact | None:
    match entry.WhichOneof("value"):
        case "spec":
            return forms.spec_in(owner, at, entry.spec)
        case "load":
            return forms.load_in(owner, at, entry.load)
        case "cluster":
            return forms.cluster_in(owner, at, entry.cluster)
        case "member":
            return forms.member_in(at, entry.key, entry.member)
        case "bundle":
            domain = TrustDomain.of_hub(base) if owner == HUB else TrustDomain.of_cluster(owner, base)
            return forms.bundle_in(domain, entry.bundle)
        case "journals":
            return forms.heads_in(owner, entry.journals)
        case "held":
            return forms.held_in(owner, entry.held)
        case "request":
            return forms.request_in(owner, entry.request)
        case "roots":
            return forms.roots_in(base, entry.roots)
        case "ban":
            return forms.ban_in(entry.ban, base)
        case _:
            return None
