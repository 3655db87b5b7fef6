from __future__ import annotations

from ipaddress import ip_network

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pki.constraints import permitting, violation
from pki.spiffe import SpiffeId, TrustDomain

EAST = TrustDomain("east.mesh.example")
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: TrustDomain(".".join(labels)))


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier._init_without_validation(text)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (uri("spiffe://east.mesh.example"), True),
        (uri("spiffe://east.mesh.example/agent"), True),
        (uri("spiffe://west.mesh.example/agent"), False),
        (uri("spiffe://a.east.mesh.example/agent"), False),
        (uri("spiffe://mesh.example/agent"), False),
        (uri("spiffe://east.mesh.example.evil.example/agent"), False),
        (uri("spiffe://east.mesh.example@west.mesh.example/agent"), False),
        (uri("spiffe://east.mesh.example:443/agent"), False),
        (uri("east.mesh.example"), False),
        (uri(""), False),
        (x509.DNSName("east.mesh.example"), True),
        (x509.DNSName("agent.east.mesh.example"), True),
        (x509.DNSName("agent.EAST.mesh.example"), True),
        (x509.DNSName("notthis-east.mesh.example"), False),
        (x509.DNSName("agent.west.mesh.example"), False),
        (x509.DNSName("example"), False),
    ],
)
def test_c10_one_trust_domain_and_its_dns_zone_are_permitted(name: x509.GeneralName, allowed: bool) -> None:
    assert (violation(permitting(EAST), [name]) is None) is allowed


@given(DOMAINS, DOMAINS)
def test_c10_nobody_may_certify_another_trust_domain(one: TrustDomain, other: TrustDomain) -> None:
    found = violation(permitting(one), [uri(str(SpiffeId(other, "/agent")))])
    assert (found is None) is (one == other)


def test_excluded_names_and_hosts_of_a_zone() -> None:
    zone = x509.NameConstraints([uri(".mesh.example")], [uri("west.mesh.example"), x509.DNSName("")])
    assert violation(zone, [uri("spiffe://east.mesh.example/agent")]) is None
    assert "excluded" in str(violation(zone, [uri("spiffe://west.mesh.example/agent")]))
    assert "not among" in str(violation(zone, [uri("spiffe://mesh.example/agent")]))
    assert "excluded" in str(violation(zone, [x509.DNSName("any.example")]))


def test_what_is_not_restricted_and_what_is_not_understood() -> None:
    dns_only = x509.NameConstraints([x509.DNSName("east.mesh.example")], None)
    assert violation(dns_only, [uri("spiffe://west.mesh.example/agent")]) is None
    for strange in (x509.IPAddress(ip_network("0.0.0.0/0")), x509.RFC822Name("mesh.example")):
        assert "not understood" in str(violation(x509.NameConstraints([strange], None), []))
        assert "not understood" in str(violation(x509.NameConstraints(None, [strange]), []))
