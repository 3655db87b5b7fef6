from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.algorithms import KeyKind
from pki.limits import Limits, NameTemplate
from pki.policy import Attestation, Attested, Denied, Grant, decide
from pki.profiles import AGENT, FEDERATION, GATEWAY, OPERATOR, SVID
from pki.spiffe import SpiffeId, TrustDomain

EAST = TrustDomain("east.mesh.example")
WEST = TrustDomain("west.mesh.example")
HUB = TrustDomain("hub.mesh.example")
BY = Attestation

ALLOWED = [
    (SpiffeId.agent(EAST), BY.SELF, AGENT),
    (SpiffeId.federation(HUB), BY.SELF, FEDERATION),
    (SpiffeId.gateway(EAST, "eastwest"), BY.TOKEN, GATEWAY),
    (SpiffeId.gateway(EAST, "eastwest"), BY.RENEWAL, GATEWAY),
    (SpiffeId.gateway(EAST, "ingress"), BY.TOKEN, GATEWAY),
    (SpiffeId.gateway(EAST, "ingress"), BY.RENEWAL, GATEWAY),
    (SpiffeId.operator(HUB, "alice"), BY.ADMINISTRATOR, OPERATOR),
    (SpiffeId.operator(HUB, "alice"), BY.RENEWAL, OPERATOR),
    (SpiffeId.workload(EAST, "shop", "cart"), BY.TOKEN, SVID),
    (SpiffeId.workload(EAST, "shop", "cart"), BY.RENEWAL, SVID),
    (SpiffeId.workload(EAST, "shop", "cart"), BY.ADMINISTRATOR, SVID),
]


def test_what_is_allowed_is_granted_and_nothing_else() -> None:
    identities = [identity for identity, _, _ in ALLOWED] + [
        SpiffeId.agent(HUB),
        SpiffeId.gateway(HUB, "eastwest"),
        SpiffeId.gateway(EAST, "other"),
        SpiffeId.federation(EAST),
        SpiffeId.operator(EAST, "alice"),
        SpiffeId.workload(HUB, "default", "echo"),
        SpiffeId.workload(EAST, "Default", "echo"),
        SpiffeId.workload(EAST, "default", "Echo"),
        *(
            SpiffeId(domain, path)
            for domain in (EAST, HUB)
            for path in (
                "/agent/x",
                "/federation/x",
                "/gateway",
                "/operator",
                "/root",
                "/gateway/eastwest/x",
                "/ns",
                "/ns/a",
                "/ns/a/sa",
                "/ns/a/sa/b/c",
                "/ns/a/pod/b",
                "/ns/a.b/sa/c",
                "/sa/a/ns/b",
            )
        ),
        SpiffeId(HUB, "/operator/Alice"),
    ]
    granted = {
        (identity, by): outcome.profile
        for identity in identities
        for by in Attestation
        if isinstance(outcome := decide(Attested(identity, by), identity.trust_domain), Grant)
    }
    assert granted == {(identity, by): profile for identity, by, profile in ALLOWED}


@pytest.mark.parametrize(("identity", "by", "profile"), ALLOWED)
def test_another_authority_denies_the_same(identity: SpiffeId, by: Attestation, profile: object) -> None:
    for authority in {EAST, WEST, HUB} - {identity.trust_domain}:
        outcome = decide(Attested(identity, by), authority)
        assert isinstance(outcome, Denied)
        assert str(authority) in outcome.reason
        assert profile


def test_only_those_whom_grpc_dials_have_a_dns_name() -> None:
    names = {}
    for identity, by, _ in ALLOWED:
        outcome = decide(Attested(identity, by), identity.trust_domain)
        assert isinstance(outcome, Grant)
        names[identity.path] = outcome.dns_names
    assert names == {
        "/agent": ("agent.east.mesh.example",),
        "/federation": ("federation.hub.mesh.example",),
        "/gateway/eastwest": (),
        "/gateway/ingress": (),
        "/operator/alice": (),
        "/ns/shop/sa/cart": (),
    }


GATEWAY_ID = SpiffeId.gateway(EAST, "eastwest")
WORKLOAD = SpiffeId.workload(EAST, "shop", "cart")
SHORT, LONG = timedelta(seconds=10), timedelta(hours=24)
TIGHT = Limits(shortest=timedelta(minutes=5), longest=timedelta(minutes=30))


@given(st.timedeltas())
def test_r6_a_lifetime_is_what_was_asked_for_or_the_limit_that_is_named(lifetime: timedelta) -> None:
    outcome = decide(Attested(GATEWAY_ID, BY.TOKEN, lifetime), EAST)
    if lifetime < SHORT:
        assert isinstance(outcome, Denied)
    else:
        assert isinstance(outcome, Grant)
        assert outcome.requested == lifetime
        assert outcome.lifetime == min(lifetime, LONG)
        assert outcome.limited_by == (None if lifetime <= LONG else "profile gateway")


@pytest.mark.parametrize(
    ("requested", "granted", "limited_by"),
    [
        (timedelta(0), None, None),
        (timedelta(seconds=-1), None, None),
        (timedelta(seconds=9), None, None),
        (timedelta.min, None, None),
        (SHORT, SHORT, None),
        (LONG, LONG, None),
        (LONG + timedelta(seconds=1), LONG, "profile svid"),
        (timedelta.max, LONG, "profile svid"),
        (None, timedelta(hours=1), None),
    ],
)
def test_r6_the_ends_of_a_lifetime(
    requested: timedelta | None, granted: timedelta | None, limited_by: str | None
) -> None:
    outcome = decide(Attested(WORKLOAD, BY.TOKEN, requested), EAST)
    assert (outcome.lifetime if isinstance(outcome, Grant) else None) == granted
    assert outcome.limited_by == limited_by


@pytest.mark.parametrize(
    ("requested", "granted", "limited_by"),
    [
        (None, timedelta(minutes=30), "issuing.longest"),
        (timedelta(hours=2), timedelta(minutes=30), "issuing.longest"),
        (timedelta(days=30), timedelta(minutes=30), "issuing.longest"),
        (timedelta(minutes=30), timedelta(minutes=30), None),
        (timedelta(minutes=5), timedelta(minutes=5), None),
        (timedelta(minutes=4), None, "issuing.shortest"),
    ],
)
def test_r6_the_operators_limits_bind_workloads(
    requested: timedelta | None, granted: timedelta | None, limited_by: str | None
) -> None:
    outcome = decide(Attested(WORKLOAD, BY.TOKEN, requested), EAST, TIGHT)
    assert (outcome.lifetime if isinstance(outcome, Grant) else None) == granted
    assert outcome.limited_by == limited_by


def test_the_usual_life_bends_to_both_limits() -> None:
    long = Limits(shortest=timedelta(hours=2), longest=timedelta(hours=3))
    outcome = decide(Attested(WORKLOAD, BY.TOKEN), EAST, long)
    assert isinstance(outcome, Grant)
    assert (outcome.lifetime, outcome.limited_by) == (timedelta(hours=2), None)


def test_limits_bind_none_of_our_own_processes() -> None:
    nothing = Limits(shortest=timedelta(days=6), longest=timedelta(days=7), keys=frozenset(), names=())
    for identity, by, profile in ALLOWED:
        outcome = decide(Attested(identity, by), identity.trust_domain, nothing)
        if profile is SVID:
            assert isinstance(outcome, Denied)
        else:
            assert outcome == decide(Attested(identity, by), identity.trust_domain)


@pytest.mark.parametrize(
    ("templates", "allowed"),
    [
        (("/ns/*/sa/*",), True),
        (("/ns/shop/sa/*",), True),
        (("/ns/other/sa/*", "/ns/s*p/sa/c*"), True),
        (("/ns/shop/sa/cart",), True),
        (("/ns/shop/sa/car",), False),
        (("/ns/other/sa/*",), False),
        (("/ns/*",), False),
        (("/ns/*/sa/*/x",), False),
        ((), False),
    ],
)
def test_r7_only_names_of_the_templates_are_given(templates: tuple[str, ...], allowed: bool) -> None:
    limits = Limits(names=tuple(map(NameTemplate.parse, templates)))
    outcome = decide(Attested(WORKLOAD, BY.TOKEN), EAST, limits)
    assert isinstance(outcome, Grant) is allowed
    if isinstance(outcome, Denied):
        assert outcome.limited_by == "issuing.names"
        assert f"issuing.names allows {', '.join(templates) or 'no name'}" in str(outcome)


def test_r3_the_grant_says_which_keys_it_is_for() -> None:
    usual = decide(Attested(WORKLOAD, BY.TOKEN), EAST)
    assert isinstance(usual, Grant)
    assert usual.keys == {KeyKind.P256, KeyKind.P384, KeyKind.RSA}
    narrow = decide(Attested(WORKLOAD, BY.TOKEN), EAST, Limits(keys=frozenset({KeyKind.ED25519})))
    assert isinstance(narrow, Grant)
    assert narrow.keys == {KeyKind.ED25519}


def test_a_name_too_long_for_dns_is_denied() -> None:
    def given(last: int) -> Grant | Denied:
        domain = TrustDomain(".".join(["a" * 63] * 3 + ["b" * last]))
        return decide(Attested(SpiffeId.agent(domain), BY.SELF), domain)

    longest, longer = given(55), given(56)
    assert isinstance(longest, Grant)
    assert [len(name) for name in longest.dns_names] == [253]
    assert isinstance(longer, Denied)
    assert "253" in longer.reason
