"""Each rule refuses what it is for, and nothing else: a good word changed in one place names that rule."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from federation import admit
from federation.model import (
    HUB,
    Affinity,
    Cluster,
    ExportSpec,
    Gateway,
    ImportPolicy,
    ImportRule,
    Load,
    Member,
    Port,
    Service,
)
from pki.spiffe import TrustDomain
from tests.federation.world import BASE, ECHO, HTTP, cluster, load, member, spec

WEST = member("west", may_export=("default/*",))
SPEC = spec("west")


def refused_by(outcome: admit.Refused | None) -> str | None:
    return None if outcome is None else outcome.rule


def test_a_good_word_is_admitted() -> None:
    assert admit.export(SPEC, WEST) is None
    assert admit.load(load("west"), WEST) is None
    assert admit.cluster(cluster("west", gateways=2), WEST) is None
    assert admit.member(WEST, BASE) is None


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("owner", replace(SPEC, cluster="central")),
        ("name", replace(SPEC, service=Service("default", "Echo"))),
        ("name", replace(SPEC, service=Service("default", "../echo"))),
        ("name", replace(SPEC, service=Service("default", "x" * 64))),
        ("may-export", replace(SPEC, service=Service("kube-system", "echo"))),
        ("ports", replace(SPEC, ports=())),
        ("ports", replace(SPEC, ports=tuple(Port(f"p{n}", n) for n in range(1, 102)))),
        ("ports", replace(SPEC, ports=(HTTP, Port("again", 80)))),
        ("ports", replace(SPEC, ports=(Port("http", 0),))),
        ("ports", replace(SPEC, ports=(Port("http", 65536),))),
        ("ports", replace(SPEC, ports=(Port("http", 80, "ICMP"),))),
        ("ports", replace(SPEC, ports=(Port("no/name", 80),))),
        ("ports", replace(SPEC, ports=(Port("http", 80, "TCP", "h\n2"),))),
        ("scope", replace(SPEC, scope=frozenset({"Not A Cluster"}))),
        ("scope", replace(SPEC, scope=frozenset(f"c{n}" for n in range(1001)))),
        ("affinity", replace(SPEC, affinity=Affinity(0))),
        ("affinity", replace(SPEC, affinity=Affinity(86401))),
        ("families", replace(SPEC, families=("IPv5",))),
        ("size", replace(SPEC, annotations=(("note", "x" * 16384),))),
        ("size", replace(SPEC, labels=tuple((f"l{n}", "") for n in range(65)))),
    ],
)
def test_exports_are_refused_by_rule(rule: str, wrong: ExportSpec) -> None:
    assert refused_by(admit.export(wrong, WEST)) == rule


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("owner", load("central")),
        ("may-export", load("west", service=Service("kube-system", "echo"))),
        ("load", load("west", 3, 2)),
        ("load", load("west", -1, 2)),
        ("load", load("west", 0, 1_000_001)),
        ("load", load("west", capacity=1_000_001)),
        ("load", load("west", capacity=-1)),
        ("load", load("west", port=0)),
        ("topology", load("west", zone="a/b")),
    ],
)
def test_loads_are_refused_by_rule(rule: str, wrong: Load) -> None:
    assert refused_by(admit.load(wrong, WEST)) == rule


def with_gateway(**changes: str | int) -> Cluster:
    good = {"name": "gw", "cls": "eastwest", "address": "10.2.0.9", "port": 15443}
    return replace(cluster("west"), gateways=(Gateway(**{**good, **changes}),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("owner", cluster("central")),
        ("topology", cluster("west", region="e u")),
        ("gateways", cluster("west", gateways=101)),
        ("gateways", replace(cluster("west"), gateways=cluster("west").gateways * 2)),
        ("address", with_gateway(address="10.1.0.9")),
        ("address", with_gateway(address="gateway.example")),
        ("address", with_gateway(address="127.0.0.1")),
        ("port", with_gateway(port=0)),
        ("name", with_gateway(name="a b")),
        ("name", with_gateway(cls="")),
    ],
)
def test_clusters_are_refused_by_rule(rule: str, wrong: Cluster) -> None:
    assert refused_by(admit.cluster(wrong, WEST)) == rule


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("name", replace(WEST, name=HUB)),
        ("name", replace(WEST, name="We st")),
        ("trust-domain", replace(WEST, trust_domain=TrustDomain.of_cluster("east", BASE))),
        ("may-export", replace(WEST, may_export=("default",))),
        ("may-export", replace(WEST, may_export=("a/b",) * 101)),
        ("ranges", replace(WEST, ranges=(ip_network("10.0.0.0/8"),) * 101)),
    ],
)
def test_members_are_refused_by_rule(rule: str, wrong: Member) -> None:
    assert refused_by(admit.member(wrong, BASE)) == rule


def test_what_is_just_within_the_limits_is_admitted() -> None:
    for number in (1, 65535):
        assert admit.gateway(with_gateway(port=number).gateways[0], WEST.ranges) is None
        assert admit.export(replace(SPEC, ports=(Port("http", number),)), WEST) is None
        assert admit.load(load("west", port=number), WEST) is None
    for fits in (
        replace(SPEC, ports=tuple(Port(f"p{n}", n) for n in range(1, admit.MOST_PORTS + 1))),
        replace(SPEC, ports=(Port("http", 80, "TCP", "x" * 253),)),
        replace(SPEC, scope=frozenset(f"c{n}" for n in range(admit.MOST_SCOPE))),
        replace(SPEC, affinity=Affinity(1)),
        replace(SPEC, affinity=Affinity(admit.LONGEST_AFFINITY)),
        replace(SPEC, families=("IPv4", "IPv6")),
        replace(SPEC, labels=tuple((f"l{n}", "") for n in range(admit.MOST_PAIRS))),
        replace(SPEC, annotations=(("note", "x" * (admit.LONGEST_PAIRS - len("note"))),)),
    ):
        assert admit.export(fits, WEST) is None
    most = load("west", admit.MOST_ENDPOINTS, admit.MOST_ENDPOINTS, capacity=admit.MOST_CAPACITY)
    assert admit.load(most, WEST) is None
    assert admit.load(load("west", 0, 0, capacity=0), WEST) is None
    assert admit.cluster(cluster("west", gateways=admit.MOST_GATEWAYS), WEST) is None
    assert admit.member(replace(WEST, may_export=("a/b",) * admit.MOST_PATTERNS), BASE) is None
    ranges = (ip_network("10.0.0.0/8"),) * admit.MOST_RANGES
    assert admit.member(replace(WEST, ranges=ranges), BASE) is None


@pytest.mark.parametrize(
    ("owner", "key", "rule"),
    [
        ("west", "cluster", None),
        ("west", "bundle", None),
        ("west", "spec/default/echo", None),
        ("west", "load/default/echo/80/", None),
        ("west", "load/default/echo/80/zone-a", None),
        ("west", "member/west", "owner"),
        (HUB, "member/west", None),
        (HUB, "spec/default/echo", "owner"),
        (HUB, "bundle", None),
        (HUB, "roots", None),
        ("west", "roots", "owner"),
        ("west", "load/default/echo/80/eu-1a", None),
        ("west", "spec/default/Echo", "key"),
        ("west", "spec/default/e cho", "key"),
        ("west", "spec/default/" + "x" * 64, "key"),
        ("west", "load/default/echo/80/" + "z" * 64, "key"),
        ("west", "load/default/echo/http/", "key"),
        ("west", "load/default/echo/080/", "key"),
        ("west", "load/default/echo/80/a b", "key"),
        (HUB, "member/W\u00e4st", "key"),
        ("west", "spec/default", "key"),
        ("west", "cluster/west", "key"),
        ("west", "", "key"),
        ("west", "root", "key"),
    ],
)
def test_keys_belong_to_their_owner(owner: str, key: str, rule: str | None) -> None:
    assert refused_by(admit.key(owner, key)) == rule


def test_a_member_without_patterns_exports_nothing() -> None:
    outcome = admit.export(SPEC, replace(WEST, may_export=()))
    assert outcome == admit.Refused("may-export", "west may not export default/echo: it may export nothing")


def test_deny_comes_before_allow_and_nothing_is_allowed_by_default() -> None:
    west_only = ImportPolicy(allow=(ImportRule(clusters=("west",)),))
    no_echo = ImportPolicy(deny=(ImportRule(services=("*/echo",)),))
    assert admit.import_policy(ImportPolicy(), "west", ECHO) is None
    assert admit.import_policy(west_only, "west", ECHO) is None
    assert refused_by(admit.import_policy(west_only, "central", ECHO)) == "import-policy"
    assert refused_by(admit.import_policy(no_echo, "west", ECHO)) == "import-policy"
    assert refused_by(admit.import_policy(ImportPolicy(allow=()), "west", ECHO)) == "import-policy"
