"""Who may get which certificate: a `Grant`, or a `Denied` with its reason.

The identity comes from how the caller was attested, never from its request; a request can only ask for a
life. What no rule allows is denied. An authority grants only within its own trust domain. Where less is granted
than was asked for, the answer names what limits it; the operator's `Limits` bind workloads and none of our own
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from pki.algorithms import USUAL_KINDS, KeyKind
from pki.limits import LONGEST, NAMES, SHORTEST, UNLIMITED, Limits
from pki.names import LONGEST_DNS_NAME, is_dns_label, is_dns_name
from pki.profiles import AGENT, FEDERATION, GATEWAY, OPERATOR, SHORTEST_LEAF, SVID, Profile
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
    """An operator of this hub or agent asked for it."""


@dataclass(frozen=True, slots=True)
class Attested:
    """A caller whose identity has been established; `lifetime` is what it asks for, None for the usual."""

    spiffe_id: SpiffeId
    by: Attestation
    lifetime: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a certificate will say; nothing of it comes from the request for the certificate.

    `limited_by` names what makes `lifetime` shorter than `requested` (or than usual, when nothing was
    requested): a setting, or `profile <name>`. `keys` are the kinds of keys that it may be given to.
    """

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    profile: Profile
    lifetime: timedelta
    requested: timedelta | None = None
    limited_by: str | None = None
    keys: frozenset[KeyKind] = USUAL_KINDS


@dataclass(frozen=True, slots=True)
class Denied:
    """`limited_by` names the setting of the operator that stands against it, if it is one."""

    spiffe_id: SpiffeId
    reason: str
    limited_by: str | None = None

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
    "ns": _Rule(SVID, frozenset({Attestation.TOKEN, Attestation.RENEWAL, Attestation.ADMINISTRATOR})),
    "operator": _Rule(OPERATOR, frozenset({Attestation.ADMINISTRATOR, Attestation.RENEWAL})),
}


PROCESSES = frozenset({"agent", "federation", "gateway", "operator"})
"""The roles that are ours; every other identity is a workload's."""


def role_of(spiffe_id: SpiffeId) -> str:
    """The first segment of its path: one of `PROCESSES`, or a workload's."""
    return spiffe_id.path[1:].partition("/")[0]


_NO_RULE = "no rule grants this identity"


def decide(who: Attested, authority: TrustDomain, limits: Limits = UNLIMITED) -> Grant | Denied:
    """What `authority` gives to an attested caller; `limits` are its operator's, for workloads."""
    spiffe_id = who.spiffe_id
    if spiffe_id.trust_domain != authority:
        return Denied(spiffe_id, f"this authority speaks for {authority} only")
    role, name = role_of(spiffe_id), spiffe_id.path[1:].partition("/")[2]
    rule = _RULES.get(role)
    if rule is None:
        return Denied(spiffe_id, _NO_RULE)
    if (reason := _misplaced(role, name, authority)) is not None:
        return Denied(spiffe_id, reason)
    if who.by not in rule.by:
        whose = "it is of a process of the federation" if role in PROCESSES else "it is of a workload"
        return Denied(spiffe_id, f"{whose}, and is not given by {who.by.value}")
    names = dns_names(spiffe_id)
    if any(len(text) > LONGEST_DNS_NAME for text in names):
        return Denied(spiffe_id, f"its DNS name would be longer than {LONGEST_DNS_NAME} bytes")
    if role in PROCESSES:
        limits = UNLIMITED
    elif not any(template.covers(spiffe_id.path) for template in limits.names):
        return Denied(spiffe_id, f"{NAMES} allows {', '.join(limits.names) or 'no name'}", NAMES)
    lifetime, limited_by = _lifetime(who.lifetime, rule.profile, limits)
    if lifetime is None:
        return Denied(
            spiffe_id, f"a lifetime of {who.lifetime} is shorter than {limits.shortest}", limited_by
        )
    return Grant(spiffe_id, names, rule.profile, lifetime, who.lifetime, limited_by, limits.keys)


def _lifetime(
    requested: timedelta | None, profile: Profile, limits: Limits
) -> tuple[timedelta | None, str | None]:
    """The life that is granted, None for none, and what limits it; the usual one bends to the limits."""
    wanted = max(profile.lifetime, limits.shortest) if requested is None else requested
    if wanted < limits.shortest:
        return None, SHORTEST if limits.shortest > SHORTEST_LEAF else None
    if limits.longest < min(wanted, profile.longest):
        return limits.longest, LONGEST
    if wanted > profile.longest:
        return profile.longest, f"profile {profile.name}"
    return wanted, None


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
        case "agent" | "gateway" | "ns" if of_hub:
            return "the hub's own trust domain has no clusters' roles"
        case "agent" | "federation" if name:
            return _NO_RULE
        case "gateway" if name not in GATEWAY_CLASSES:
            return f"the classes of gateways are {', '.join(sorted(GATEWAY_CLASSES))}"
        case "operator" if not is_dns_label(name):
            return "the name of an operator is a DNS label"
        case "ns" if not _is_workload(name):
            return "a workload is /ns/<namespace>/sa/<service account>, named as in Kubernetes"
    return None


def _is_workload(name: str) -> bool:
    """Kubernetes: a namespace is a DNS label, a service account a DNS name (RFC 1123)."""
    namespace, _, rest = name.partition("/")
    kind, _, account = rest.partition("/")
    return is_dns_label(namespace) and kind == "sa" and is_dns_name(account)
