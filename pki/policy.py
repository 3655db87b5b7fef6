"""Who may get which certificate: a `Grant`, or a `Denied` with its reason.

The identity comes from how the caller was attested, never from its request; a request can only ask for a
shorter life. What no rule allows is denied. An authority grants only within its own trust domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from pki.names import LONGEST_DNS_NAME, is_dns_label
from pki.profiles import AGENT, FEDERATION, GATEWAY, OPERATOR, SHORTEST_LEAF, Profile
from pki.spiffe import HUB, SpiffeId, TrustDomain

GATEWAY_CLASSES = frozenset({"eastwest", "ingress"})


class Attestation(StrEnum):
    """How the holder of the key proved who it is."""

    SELF = "self"
    """It is the process that holds the authority."""
    TOKEN = "token"
    """It redeemed a one-time token for this identity."""
    RENEWAL = "renewal"
    """It speaks mutual TLS with a current certificate of this identity."""
    ADMINISTRATOR = "administrator"
    """An operator of the hub asked for it."""


@dataclass(frozen=True, slots=True)
class Attested:
    """A caller whose identity has been established; `lifetime` is what it asks for, None for the usual."""

    spiffe_id: SpiffeId
    by: Attestation
    lifetime: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a certificate will say; nothing of it comes from the request for the certificate."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    profile: Profile
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Denied:
    spiffe_id: SpiffeId
    reason: str

    def __str__(self) -> str:
        return f"no certificate for {self.spiffe_id}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Rule:
    profile: Profile
    by: frozenset[Attestation]


_RULES: Mapping[str, _Rule] = {
    "agent": _Rule(AGENT, frozenset({Attestation.SELF})),
    "federation": _Rule(FEDERATION, frozenset({Attestation.SELF})),
    "gateway": _Rule(GATEWAY, frozenset({Attestation.TOKEN, Attestation.RENEWAL})),
    "operator": _Rule(OPERATOR, frozenset({Attestation.ADMINISTRATOR, Attestation.RENEWAL})),
}


_NO_RULE = "no rule grants this identity"


def decide(who: Attested, authority: TrustDomain) -> Grant | Denied:
    """What `authority` gives to an attested caller."""
    spiffe_id = who.spiffe_id
    if spiffe_id.trust_domain != authority:
        return Denied(spiffe_id, f"this authority speaks for {authority} only")
    role, _, name = spiffe_id.path[1:].partition("/")
    rule = _RULES.get(role)
    if rule is None:
        return Denied(spiffe_id, _NO_RULE)
    if (reason := _misplaced(role, name, authority)) is not None:
        return Denied(spiffe_id, reason)
    if who.by not in rule.by:
        return Denied(spiffe_id, f"this identity is not given by {who.by.value}")
    lifetime = rule.profile.lifetime if who.lifetime is None else who.lifetime
    if not SHORTEST_LEAF <= lifetime <= rule.profile.longest:
        return Denied(
            spiffe_id, f"a lifetime of {lifetime} is not within {SHORTEST_LEAF} to {rule.profile.longest}"
        )
    names = dns_names(spiffe_id)
    if any(len(text) > LONGEST_DNS_NAME for text in names):
        return Denied(spiffe_id, f"its DNS name would be longer than {LONGEST_DNS_NAME} bytes")
    return Grant(spiffe_id, names, rule.profile, lifetime)


def dns_names(spiffe_id: SpiffeId) -> tuple[str, ...]:
    """The DNS SAN `agent.<trust domain>` or `federation.<trust domain>`: gRPC clients dial only these two."""
    if spiffe_id.path in ("/agent", "/federation"):
        return (f"{spiffe_id.path[1:]}.{spiffe_id.trust_domain}",)
    return ()


def _misplaced(role: str, name: str, authority: TrustDomain) -> str | None:
    """Why this role with this name cannot exist in this trust domain, or None if it can."""
    of_hub = authority.name.partition(".")[0] == HUB
    match role:
        case "federation" | "operator" if not of_hub:
            return "only the hub's own trust domain has it"
        case "agent" | "gateway" if of_hub:
            return "the hub's own trust domain has no clusters' roles"
        case "agent" | "federation" if name:
            return _NO_RULE
        case "gateway" if name not in GATEWAY_CLASSES:
            return f"the classes of gateways are {', '.join(sorted(GATEWAY_CLASSES))}"
        case "operator" if not is_dns_label(name):
            return "the name of an operator is a DNS label"
    return None
