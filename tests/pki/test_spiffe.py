from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import InvalidName, InvalidSpiffeId
from pki.spiffe import SpiffeId, TrustDomain

EAST = TrustDomain.parse("east.mesh.example")

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
trust_domains = st.lists(labels, min_size=1, max_size=5).map(lambda parts: TrustDomain(".".join(parts)))
segments = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(lambda s: s not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///x",
        "spiffe://east.mesh.example",
        "spiffe://east.mesh.example/",
        "spiffe://east.mesh.example/agent/",
        "spiffe://east.mesh.example//agent",
        "spiffe://east.mesh.example/./agent",
        "spiffe://east.mesh.example/a/../agent",
        "spiffe://east.mesh.example/%2e%2e/agent",
        "spiffe://east.mesh.example/agent?x=1",
        "spiffe://east.mesh.example/agent?",
        "spiffe://east.mesh.example/agent#f",
        "spiffe://east.mesh.example/agent\n",
        "spiffe://east.mesh.example/ag ent",
        "spiffe://east.mesh.example/agent\x00",
        "spiffe://east.mesh.example/ägent",
        "spiffe://user@east.mesh.example/agent",
        "spiffe://b@a/x",
        "spiffe://east.mesh.example:443/agent",
        "spiffe://East.mesh.example/agent",
        "spiffe://east.mesh.example./agent",
        "spiffe://.mesh.example/agent",
        "spiffe://east..example/agent",
        "spiffe://-east.example/agent",
        "spiffe://eäst.example/agent",
        "spiffe://east.example\n/agent",
        "spiffe://[::1]/agent",
        "SPIFFE://east.mesh.example/agent",
        "Spiffe://east.mesh.example/agent",
        "https://east.mesh.example/agent",
        "spiffe:east.mesh.example/agent",
        " spiffe://east.mesh.example/agent",
        "spiffe://" + ".".join(["a" * 63] * 5) + "/agent",
        "spiffe://" + "a" * 64 + "/agent",
        "spiffe://east.mesh.example/" + "a" * 2048,
    ],
)
def test_c2_hostile_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(text)


def test_c2_limits_are_inclusive() -> None:
    prefix = "spiffe://a/"
    assert len(str(SpiffeId.parse(prefix + "x" * (2048 - len(prefix))))) == 2048
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(prefix + "x" * (2049 - len(prefix)))
    longest = ".".join(["a" * 63] * 3 + ["b" * 63])
    assert len(longest) == 255
    assert TrustDomain.parse(longest).name == longest


@given(trust_domains, paths)
def test_text_and_value_are_one_to_one(trust_domain: TrustDomain, path: str) -> None:
    spiffe_id = SpiffeId(trust_domain, path)
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id
    assert TrustDomain.parse_uri(trust_domain.uri) == trust_domain


@given(
    st.text(max_size=60)
    | st.text(alphabet="spife:/.%@?#aA0-_\x00", max_size=60).map(lambda s: "spiffe://" + s)
)
def test_c2_what_parses_is_what_was_written(text: str) -> None:
    try:
        parsed = SpiffeId.parse(text)
    except InvalidSpiffeId:
        return
    assert str(parsed) == text
    assert text.isascii()
    assert not set(text) & set("%@?# \x00")


def test_well_known_identities() -> None:
    assert str(SpiffeId.agent(EAST)) == "spiffe://east.mesh.example/agent"
    assert str(SpiffeId.gateway(EAST, "eastwest")) == "spiffe://east.mesh.example/gateway/eastwest"
    assert str(SpiffeId.workload(EAST, "default", "echo")) == "spiffe://east.mesh.example/ns/default/sa/echo"
    hub = TrustDomain.of_hub("mesh.example")
    assert str(SpiffeId.federation(hub)) == "spiffe://hub.mesh.example/federation"
    assert str(SpiffeId.operator(hub, "alice")) == "spiffe://hub.mesh.example/operator/alice"
    with pytest.raises(InvalidName):
        SpiffeId.gateway(EAST, "east/west")
    with pytest.raises(InvalidName):
        SpiffeId.operator(hub, "../federation")


def test_cluster_and_trust_domain() -> None:
    assert TrustDomain.of_cluster("east", "mesh.example") == EAST
    assert EAST.cluster("mesh.example") == "east"
    assert EAST.cluster("example") is None
    assert EAST.cluster("other.example") is None
    assert TrustDomain("a.east.mesh.example").cluster("mesh.example") is None
    assert TrustDomain("mesh.example").cluster("mesh.example") is None
    assert TrustDomain.of_hub("mesh.example").cluster("mesh.example") is None
    for name in ("hub", "East", "a.b", "", "-a", "../a"):
        with pytest.raises(InvalidName):
            TrustDomain.of_cluster(name, "mesh.example")


@given(labels.filter(lambda name: name != "hub"), trust_domains)
def test_cluster_names_survive_the_round_trip(name: str, base: TrustDomain) -> None:
    assert TrustDomain.of_cluster(name, base.name).cluster(base.name) == name
