"""Facts survive the wire; what is not a fact of its owner does not come in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.admit import Refused
from federation.events import ClusterGone, ExportGone, LoadGone, MemberGone
from federation.held import Held
from federation.model import (
    HUB,
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
from federation.sync import codec, forms, wire
from federation.sync import sync_pb2 as pb
from federation.sync.codec import Fact
from federation.sync.errors import ProtocolViolation
from federation.sync.feed import Item
from federation.sync.protocol import Batch
from pki.spiffe import TrustDomain
from pki.statement import LONGEST_SIGNATURE

BASE = "mesh.example"
AT = Position(3, 7)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
MOMENTS = st.integers(0, 4_000_000_000_000).map(forms.moment)
NUMBERS = st.integers(0, 2**31 - 1)
SERVICES = st.builds(Service, LABELS, LABELS)
PORTS = st.builds(Port, LABELS, NUMBERS, st.sampled_from(("TCP", "UDP", "SCTP")), st.text(max_size=8))
PAIRS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3).map(
    lambda pairs: tuple(sorted(pairs.items()))
)
SPECS = st.builds(
    ExportSpec,
    cluster=st.just("east"),
    service=SERVICES,
    ports=st.lists(PORTS, max_size=3).map(tuple),
    kind=st.sampled_from(Kind),
    exported_at=MOMENTS,
    at=st.just(AT),
    scope=st.none() | st.frozensets(LABELS, max_size=3),
    affinity=st.none() | st.builds(Affinity, NUMBERS),
    families=st.lists(st.sampled_from(("IPv4", "IPv6")), max_size=2).map(tuple),
    labels=PAIRS,
    annotations=PAIRS,
)
LOADS = st.builds(
    Load, st.just("east"), SERVICES, NUMBERS, LABELS | st.just(""), NUMBERS, NUMBERS, NUMBERS, st.just(AT)
)
CLUSTERS = st.builds(
    Cluster,
    st.just("east"),
    LABELS,
    LABELS,
    st.lists(st.builds(Gateway, LABELS, LABELS, st.just("10.0.0.1"), NUMBERS), max_size=3).map(tuple),
    st.just(AT),
)


VERSIONS = st.dictionaries(
    LABELS.map(lambda name: f"{name}.{BASE}"),
    st.tuples(
        st.integers(1, 2**32 - 1), st.integers(1, 2**63 - 1), st.none() | st.binary(min_size=32, max_size=32)
    ),
    max_size=3,
)
STAMPS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@st.composite
def words(draw: st.DrawFn) -> Held:
    versions = sorted(draw(VERSIONS).items())
    return Held(
        "east",
        tuple((name, generation, sequence) for name, (generation, sequence, _) in versions),
        tuple(sorted(draw(st.sets(st.binary(max_size=20), max_size=3)))),
        tuple((name, digest) for name, (_, _, digest) in versions if digest is not None),
        draw(STAMPS),
        draw(st.binary(max_size=LONGEST_SIGNATURE)),
    )


@given(SPECS | LOADS | CLUSTERS | words())
def test_a_fact_survives_the_wire(fact: Fact) -> None:
    key = codec.key_of(fact)
    assert codec.decode("east", AT.epoch, codec.encode(key, AT.seq, fact), BASE) == fact


def test_a_member_survives_the_wire_and_comes_from_the_hub_alone() -> None:
    member = Member(
        "east",
        TrustDomain("east.mesh.example"),
        ("default/*",),
        (ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
        datetime(2026, 1, 1, tzinfo=UTC),
        MemberState.DRAINING,
        AT,
    )
    body = codec.encode("member/east", AT.seq, member)
    assert codec.decode(HUB, AT.epoch, body, BASE) == member
    assert codec.decode("east", AT.epoch, body, BASE) == Refused("owner", "east does not own member/east")


def test_who_does_not_sign_what_it_holds_says_it_all_the_same() -> None:
    """An agent of a version before, and the hub of itself."""
    version = pb.Held.Version(trust_domain=f"west.{BASE}", generation=1, sequence=2)
    body = pb.Entry(key="held", seq=7, held=pb.Held(versions=[version])).SerializeToString()
    assert codec.decode("east", 1, body, BASE) == Held("east", ((f"west.{BASE}", 1, 2),))


def test_what_is_no_signature_or_no_digest_for_its_length_is_not_taken_in() -> None:
    version = pb.Held.Version(trust_domain=f"west.{BASE}", generation=1, sequence=2, digest=b"short")
    for held in (pb.Held(signature=b"x" * (LONGEST_SIGNATURE + 1)), pb.Held(versions=[version])):
        assert refused("east", pb.Entry(key="held", held=held)) == "form"


def refused(owner: str, entry: pb.Entry) -> str:
    found = codec.decode(owner, 1, entry.SerializeToString(), BASE)
    assert isinstance(found, Refused), found
    return found.rule


HEADLESS = pb.ExportSpec.KIND_HEADLESS

FORMLESS = {
    "another name": (
        pb.Entry(key="spec/a/b", spec=pb.ExportSpec(namespace="a", name="c", kind=HEADLESS)),
        "key",
    ),
    "another kind": (pb.Entry(key="spec/a/b", load=pb.Load(namespace="a", name="b")), "key"),
    "no kind of service": (pb.Entry(key="spec/a/b", spec=pb.ExportSpec(namespace="a", name="b")), "form"),
    "no value": (pb.Entry(key="spec/a/b"), "kind"),
    "no such key": (pb.Entry(key="other", cluster=pb.Cluster()), "key"),
    "a long key": (pb.Entry(key="k" * 600, cluster=pb.Cluster()), "key"),
    "a long entry": (pb.Entry(key="cluster", cluster=pb.Cluster(region="r" * 200_000)), "size"),
    "a foreign bundle": (pb.Entry(key="bundle", bundle=pb.Bundle(trust_domain="west.mesh.example")), "form"),
    "no certificate": (
        pb.Entry(key="bundle", bundle=pb.Bundle(trust_domain="east.mesh.example", anchors=[b"nonsense"])),
        "form",
    ),
    "no time": (
        pb.Entry(
            key="spec/a/b",
            spec=pb.ExportSpec(namespace="a", name="b", kind=HEADLESS, exported_at_ms=2**62),
        ),
        "form",
    ),
}


@pytest.mark.parametrize(("entry", "rule"), FORMLESS.values(), ids=FORMLESS)
def test_what_has_no_form_is_refused_alone(entry: pb.Entry, rule: str) -> None:
    assert refused("east", entry) == rule


def test_what_is_no_entry_is_refused() -> None:
    assert codec.decode("east", 1, b"\xff nonsense", BASE) == Refused("form", "it is no entry at all")


MANY = {
    "ports": (pb.ExportSpec(kind=HEADLESS, ports=[pb.Port()] * 50_000), "50000 ports, allowed are 100"),
    "scope": (
        pb.ExportSpec(kind=HEADLESS, scope=pb.Scope(clusters=["x"] * 50_000)),
        "50000 clusters in its scope, allowed are 1000",
    ),
    "families": (
        pb.ExportSpec(kind=HEADLESS, families=["IPv4"] * 20_000),
        "20000 IP families, allowed are 2",
    ),
    "labels": (
        pb.ExportSpec(kind=HEADLESS, labels={str(number): "" for number in range(10_000)}),
        "10000 labels, allowed are 64",
    ),
    "gateways": (pb.Cluster(gateways=[pb.Gateway()] * 50_000), "50000 gateways, allowed are 100"),
}


@pytest.mark.parametrize(("value", "why"), MANY.values(), ids=MANY)
def test_things_are_counted_before_they_are_looked_at(value: pb.ExportSpec | pb.Cluster, why: str) -> None:
    entry = (
        pb.Entry(key="cluster", cluster=value)
        if isinstance(value, pb.Cluster)
        else pb.Entry(key="spec/a/b", spec=value)
    )
    assert codec.decode("east", 1, entry.SerializeToString(), BASE) == Refused("form", f"{entry.key}: {why}")


@given(st.binary(max_size=200))
def test_a_batch_reads_back_as_protobuf_wrote_it(body: bytes) -> None:
    entry = pb.Entry(key="cluster", seq=300, cluster=pb.Cluster(region=body.hex()))
    item = Item("cluster", 300, entry.SerializeToString())
    batch = Batch("east", 5, 301, True, True, (item,))
    expected = pb.Batch(owner="east", epoch=5, to_seq=301, full=True, last=True, entries=[entry])
    assert pb.FromAgent.FromString(wire.publish(batch)) == pb.FromAgent(publish=expected)
    assert pb.FromHub.FromString(wire.relay(batch)) == pb.FromHub(relay=expected)
    assert list(wire.read_batch(expected, "east")) == [batch]


def test_an_unknown_field_passes_through() -> None:
    """A newer agent says more than this version knows: a field 99 inside a known value."""
    known = pb.Entry(key="cluster", seq=1, cluster=pb.Cluster(region="eu")).SerializeToString()
    newer = b"\x9a\x06\x03new"
    region = pb.Cluster(region="eu").SerializeToString() + newer
    body = pb.Entry(key="cluster", seq=1).SerializeToString() + bytes([5 << 3 | 2, len(region)]) + region
    assert body != known
    (batch,) = wire.read_batch(pb.Batch(epoch=1, to_seq=1, entries=[pb.Entry.FromString(body)]), "east")
    (item,) = batch.items
    assert newer in item.body
    assert codec.decode("east", 1, item.body, BASE) == Cluster("east", "eu", "", (), Position(1, 1))


IMPOSSIBLE = {
    "no epoch": pb.Batch(epoch=0, to_seq=1),
    "an epoch beyond all": pb.Batch(epoch=2**63, to_seq=1),
    "a position beyond all": pb.Batch(epoch=1, to_seq=2**63),
    "an entry without position": pb.Batch(epoch=1, to_seq=1, entries=[pb.Entry(key="cluster")]),
    "an entry without key": pb.Batch(epoch=1, to_seq=1, entries=[pb.Entry(seq=1)]),
}


@pytest.mark.parametrize("batch", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_figures_that_cannot_be_end_the_stream(batch: pb.Batch) -> None:
    with pytest.raises(ProtocolViolation):
        list(wire.read_batch(batch, "east"))


def test_removals_are_events() -> None:
    echo = Service("default", "echo")
    assert codec.withdrawn("east", "spec/default/echo") == ExportGone("east", echo)
    assert codec.withdrawn("east", "load/default/echo/80/") == LoadGone("east", echo, 80, "")
    assert codec.withdrawn("east", "cluster") == ClusterGone("east")
    assert codec.withdrawn(HUB, "member/east") == MemberGone("east")
    assert codec.withdrawn("east", "bundle") is None
    assert codec.withdrawn("east", "load/default/echo/eighty/") is None


def test_time_on_the_wire_is_milliseconds() -> None:
    moment = datetime(2026, 11, 21, 12, 0, 0, 999_999, tzinfo=UTC)
    assert forms.moment(forms.milliseconds(moment)) == moment - timedelta(microseconds=999)
