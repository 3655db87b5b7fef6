from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.policy import Attestation, Attested, Denied, Grant, decide
from pki.profiles import AGENT, FEDERATION, GATEWAY, OPERATOR
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
]


def test_what_is_allowed_is_granted_and_nothing_else() -> None:
    identities = [identity for identity, _, _ in ALLOWED] + [
        SpiffeId.agent(HUB),
        SpiffeId.gateway(HUB, "eastwest"),
        SpiffeId.gateway(EAST, "other"),
        SpiffeId.federation(EAST),
        SpiffeId.operator(EAST, "alice"),
        SpiffeId.workload(EAST, "default", "echo"),
        *(
            SpiffeId(domain, path)
            for domain in (EAST, HUB)
            for path in ("/agent/x", "/federation/x", "/gateway", "/operator", "/root", "/gateway/eastwest/x")
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
    }


@given(st.timedeltas())
def test_a_lifetime_is_never_beyond_the_profile(lifetime: timedelta) -> None:
    outcome = decide(Attested(SpiffeId.gateway(EAST, "eastwest"), BY.TOKEN, lifetime), EAST)
    if timedelta(seconds=10) <= lifetime <= timedelta(hours=24):
        assert isinstance(outcome, Grant)
        assert outcome.lifetime == lifetime
    else:
        assert isinstance(outcome, Denied)


@pytest.mark.parametrize(
    ("lifetime", "allowed"),
    [
        (timedelta(0), False),
        (timedelta(seconds=-1), False),
        (timedelta(seconds=9), False),
        (timedelta(seconds=10), True),
        (timedelta(hours=24), True),
        (timedelta(hours=24, seconds=1), False),
        (timedelta.max, False),
    ],
)
def test_the_ends_of_a_lifetime(lifetime: timedelta, allowed: bool) -> None:
    outcome = decide(Attested(SpiffeId.gateway(EAST, "eastwest"), BY.TOKEN, lifetime), EAST)
    assert isinstance(outcome, Grant) is allowed


def test_a_name_too_long_for_dns_is_denied() -> None:
    long = TrustDomain(".".join(["a" * 63] * 3 + ["b" * 58]))
    outcome = decide(Attested(SpiffeId.agent(long), BY.SELF), long)
    assert isinstance(outcome, Denied)
    assert "253" in outcome.reason
