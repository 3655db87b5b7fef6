"""Name constraints (RFC 5280 §4.2.1.10): which names an authority may certify, written into its own certificate.

Off unless an operator turns them on, because verifiers differ: OpenSSL, Go and Java obey them for URIs (Go also lets
sub-domains through), older rustls ignores them, newer rustls and pyca refuse every chain that has them. What
keeps an authority to its trust domain here is that each verifier holds the bundle of one trust domain; constraints are
for those who hold only the root.

What this module obeys: URIs by their whole host, DNS names with everything below them. A constraint of any other kind
makes the certificate unusable here, rather than being passed over.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509

from pki.spiffe import TrustDomain


def permitting(trust_domain: TrustDomain) -> x509.NameConstraints:
    """The constraint to one trust domain: its name as the exact host of URIs, and its DNS zone."""
    host = trust_domain.name
    return x509.NameConstraints([x509.UniformResourceIdentifier(host), x509.DNSName(host)], None)


def violation(constraints: x509.NameConstraints, names: Iterable[x509.GeneralName]) -> str | None:
    """Why `constraints` do not allow certificates with `names` below them, or None if they do.

    A kind of name that no permitted subtree speaks of is not restricted by them (RFC 5280 §4.2.1.10).
    """
    permitted, excluded = constraints.permitted_subtrees or (), constraints.excluded_subtrees or ()
    for subtree in (*permitted, *excluded):
        if not isinstance(subtree, x509.UniformResourceIdentifier | x509.DNSName):
            return f"a constraint on {type(subtree).__name__} is not understood"
    for name in names:
        if any(_covers(subtree, name) for subtree in excluded):
            return f"{name.value} is excluded"
        alike = [subtree for subtree in permitted if type(subtree) is type(name)]
        if alike and not any(_covers(subtree, name) for subtree in alike):
            return f"{name.value} is not among {', '.join(str(subtree.value) for subtree in alike)}"
    return None


def _covers(subtree: x509.GeneralName, name: x509.GeneralName) -> bool:
    match subtree, name:
        case x509.DNSName(value=zone), x509.DNSName(value=host):
            return not zone or host.lower() == zone.lower() or host.lower().endswith(f".{zone.lower()}")
        case x509.UniformResourceIdentifier(value=wanted), x509.UniformResourceIdentifier(value=uri):
            host = uri.partition("://")[2].partition("/")[0].lower()
            return host.endswith(wanted.lower()) if wanted.startswith(".") else host == wanted.lower()
        case _:
            return False
