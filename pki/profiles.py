"""The kinds of certificates that we make, as values: what each may do and how long it lives.

| profile | signed by | lives | path length | names |
|---|---|---|---|---|
| root | itself | 10 years | none | – |
| cluster-ca | itself | 1 year | 0 | URI of its trust domain |
| cluster-ca-rooted | the root | 1 year and 1 day | 0 | URI of its trust domain |
| cluster-ca-constrained | the root | 1 year and 1 day | 0 | the same, and may certify no other trust domain's |
| intermediate | the root | 1 year | 0 | URI of another system's trust domain, or DNS for Linkerd, or none |
| agent, gateway, federation, operator | a cluster CA | 24 hours | – | SPIFFE ID; DNS if gRPC dials it |
| svid | a cluster CA | 1 hour | – | SPIFFE ID of a workload |

The two cluster-ca forms carry one key, one subject and one key identifier, so that a leaf is valid under
both. The root has no path length, so that a bridge from a later root fits under it. Name constraints are an
operator's choice for the root-signed form (`pki.constraints`): several verifiers reject or ignore those for URIs,
and each verifier here picks the single bundle of the leaf's own trust domain instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from pki.algorithms import PublicKey

BACKDATE = timedelta(minutes=5)
"""How far `not_before` lies in the past, so that a peer whose clock is a little behind accepts at once."""

SHORTEST_LEAF = timedelta(seconds=10)
LONGEST_LEAF = timedelta(days=7)
"""Up to this life a certificate may say that no revocation information exists (RFC 9608)."""

HIGHEST_EPOCH = 999_999


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of certificate: `lifetime` unless asked otherwise, `longest` at most.

    A `constrained` authority carries name constraints to its own trust domain.
    """

    name: str
    authority: bool
    lifetime: timedelta
    longest: timedelta
    path_length: int | None = None
    constrained: bool = False


ROOT = Profile("root", True, timedelta(days=3650), timedelta(days=3650))
CLUSTER_CA = Profile("cluster-ca", True, timedelta(days=365), timedelta(days=365), path_length=0)
CLUSTER_CA_ROOTED = Profile(
    "cluster-ca-rooted", True, timedelta(days=366), timedelta(days=366), path_length=0
)
"""A day longer than the self-signed form, so that two clocks do not make an anchor outlive its proof."""
CLUSTER_CA_CONSTRAINED = replace(CLUSTER_CA_ROOTED, name="cluster-ca-constrained", constrained=True)
"""The root-signed form where the operator wants name constraints."""

INTERMEDIATE = Profile("intermediate", True, timedelta(days=365), timedelta(days=365), path_length=0)
"""For another system (`pki.intermediate`), which keeps the key."""

AGENT = Profile("agent", False, timedelta(hours=24), timedelta(hours=24))
GATEWAY = Profile("gateway", False, timedelta(hours=24), timedelta(hours=24))
FEDERATION = Profile("federation", False, timedelta(hours=24), timedelta(hours=24))
OPERATOR = Profile("operator", False, timedelta(hours=24), LONGEST_LEAF)
SVID = Profile("svid", False, timedelta(hours=1), timedelta(hours=24))


def authority_subject(domain: str, epoch: int, key: PublicKey) -> x509.Name:
    """The subject of an authority for `domain` (a DNS name): different for every epoch and every key.

    Domain components as in RFC 2247, then `CN=CA` and a serial number of epoch and key. Two authorities with
    one subject make verifiers try, and fail with, the wrong one.
    """
    if not 1 <= epoch <= HIGHEST_EPOCH:
        raise ValueError(f"epoch {epoch} is not within 1 to {HIGHEST_EPOCH}")
    components = [
        x509.NameAttribute(NameOID.DOMAIN_COMPONENT, label) for label in reversed(domain.split("."))
    ]
    key_id = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()
    return x509.Name(
        [
            *components,
            x509.NameAttribute(NameOID.COMMON_NAME, "CA"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{epoch}-{key_id[:16]}"),
        ]
    )


def epoch_of(subject: x509.Name) -> int | None:
    """The epoch that a subject made by `authority_subject` carries, or None for any other subject."""
    numbers = subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    if len(numbers) != 1 or not isinstance(numbers[0].value, str):
        return None
    text, dash, _ = numbers[0].value.partition("-")
    if not dash or not text.isascii() or not text.isdigit() or len(text) > len(str(HIGHEST_EPOCH)):
        return None
    return int(text)
