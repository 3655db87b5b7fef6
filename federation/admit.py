"""What an owner may say: small checks, each with one rule to name when it refuses.

Owning a key is not owning a name: the registry fixes what a cluster may export and in which networks it lies,
and importers have a policy of their own. The hub runs these checks on what it relays, and every importer runs
them again. Nothing is repaired here: what does not fit is refused with the rule and one sentence for people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from federation.banned import is_ban_key
from federation.model import (
    HUB,
    Cluster,
    ExportSpec,
    Gateway,
    ImportPolicy,
    ImportRule,
    Load,
    Member,
    Network,
    Port,
    Service,
)
from federation.pattern import is_service_pattern, matches_service
from federation.ranges import why_outside
from pki.names import is_dns_label, matches_name
from pki.spiffe import TrustDomain

MOST_PORTS = 100
MOST_GATEWAYS = 100
MOST_ENDPOINTS = 1_000_000
MOST_CAPACITY = 1_000_000
MOST_SCOPE = 1000
MOST_PATTERNS = 100
MOST_RANGES = 100
MOST_PAIRS = 64
LONGEST_PAIRS = 16 * 1024
LONGEST_AFFINITY = 86400
"""Seconds, the limit that Kubernetes sets for `sessionAffinityConfig.clientIP.timeoutSeconds`."""

ADDRESS = "address"
"""The rule on where gateways and endpoints lie."""

PROTOCOLS = ("TCP", "UDP", "SCTP")

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_TOPOLOGY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, slots=True, order=True)
class Refused:
    """`rule` is a stable identifier, `detail` one sentence for people."""

    rule: str
    detail: str


def key(owner: str, text: str) -> Refused | None:
    """Whether `owner` may publish the sync key `text`: the hub speaks of members, bans and roots, a cluster of all
    else, and each of its own anchors, its own journals and what it holds.

    Its parts are names, a port and a zone, so that every store takes it.
    """
    if not _is_key(text):
        return Refused("key", f"{text[:253]!r} is not a key")
    of_hub = text == "roots" or text.startswith(("member/", "ban/"))
    if text not in ("bundle", "journal", "held") and of_hub != (owner == HUB):
        return Refused("owner", f"{owner} does not own {text}")
    return None


def _is_key(text: str) -> bool:
    match text.split("/"):
        case ["cluster"] | ["bundle"] | ["journal"] | ["held"] | ["request"] | ["roots"]:
            return True
        case ["ban", *_]:
            return is_ban_key(text)
        case ["member", name]:
            return is_dns_label(name)
        case ["spec", namespace, name]:
            return is_dns_label(namespace) and is_dns_label(name)
        case ["load", namespace, name, port, zone]:
            figures = _NUMBER.fullmatch(port) and _TOPOLOGY.fullmatch(zone)
            return is_dns_label(namespace) and is_dns_label(name) and figures is not None
        case _:
            return False


def export(spec: ExportSpec, owner: Member) -> Refused | None:
    """Whether `owner`, as the registry describes it, may export `spec`."""
    return _first(check(spec, owner) for check in EXPORT_RULES)


def load(word: Load, owner: Member) -> Refused | None:
    """Whether `word` is about an export that `owner` may have, with figures that are possible."""
    return _first(check(word, owner) for check in LOAD_RULES)


def cluster(word: Cluster, owner: Member) -> Refused | None:
    """Whether `owner` may say this of itself; one gateway out of its ranges refuses the whole word."""
    return _first(check(word, owner) for check in CLUSTER_RULES)


def member(word: Member, base: str) -> Refused | None:
    """Whether the registry may have such a member under the trust-domain base `base`."""
    return _first(check(word, base) for check in MEMBER_RULES)


def gateway(word: Gateway, ranges: Sequence[Network]) -> Refused | None:
    """Whether `word` is a gateway that others may dial within `ranges`."""
    if not is_dns_label(word.name) or not is_dns_label(word.cls):
        return Refused("name", f"gateway {word.name!r} of class {word.cls!r}: both must be DNS labels")
    if not 1 <= word.port <= 65535:
        return Refused("port", f"gateway {word.name} listens on {word.port}, expected 1 to 65535")
    return address(word.address, ranges)


def address(text: str, ranges: Sequence[Network]) -> Refused | None:
    """Whether a gateway or an endpoint of an owner with these `ranges` may have the IP address `text`."""
    why = why_outside(text, ranges)
    return None if why is None else Refused(ADDRESS, why)


def import_policy(policy: ImportPolicy, cluster: str, service: Service) -> Refused | None:
    """Whether we accept `service` from `cluster`: no `deny` rule covers it and some `allow` rule does."""
    if any(_covers(rule, cluster, service) for rule in policy.deny):
        return Refused("import-policy", f"our import policy denies {service} from {cluster}")
    if not any(_covers(rule, cluster, service) for rule in policy.allow):
        return Refused("import-policy", f"our import policy does not allow {service} from {cluster}")
    return None


def patterns(texts: Iterable[str]) -> Refused | None:
    """Whether `texts` can be stored as `may_export`."""
    listed = tuple(texts)
    if len(listed) > MOST_PATTERNS:
        return Refused("may-export", f"{len(listed)} patterns, at most {MOST_PATTERNS} are allowed")
    wrong = [text for text in listed if not is_service_pattern(text)]
    if wrong:
        return Refused(
            "may-export", f"{wrong[0]!r} is not a pattern <namespace>/<name> with '*' inside a part"
        )
    return None


def _first(outcomes: Iterable[Refused | None]) -> Refused | None:
    return next((refused for refused in outcomes if refused is not None), None)


def _covers(rule: ImportRule, cluster: str, service: Service) -> bool:
    return any(matches_name(one, cluster) for one in rule.clusters) and any(
        matches_service(one, service) for one in rule.services
    )


# ---- one rule each ------------------------------------------------------------------------------------------------


def _owner(word: ExportSpec | Load, owner: Member) -> Refused | None:
    if word.cluster != owner.name:
        return Refused("owner", f"{owner.name} speaks for {word.cluster}")
    return None


def _service_name(word: ExportSpec | Load, _: Member) -> Refused | None:
    if is_dns_label(word.service.namespace) and is_dns_label(word.service.name):
        return None
    return Refused("name", f"{str(word.service)!r}: namespace and name must be DNS labels")


def _may_export(word: ExportSpec | Load, owner: Member) -> Refused | None:
    if any(matches_service(pattern, word.service) for pattern in owner.may_export):
        return None
    allowed = ", ".join(owner.may_export) or "nothing"
    return Refused("may-export", f"{owner.name} may not export {word.service}: it may export {allowed}")


def _ports(spec: ExportSpec, _: Member) -> Refused | None:
    if not 1 <= len(spec.ports) <= MOST_PORTS:
        return Refused("ports", f"{spec.service} has {len(spec.ports)} ports, expected 1 to {MOST_PORTS}")
    if len({(port.number, port.protocol) for port in spec.ports}) < len(spec.ports):
        return Refused("ports", f"{spec.service} lists a port twice")
    return _first(_port(port, spec.service) for port in spec.ports)


def _port(port: Port, service: Service) -> Refused | None:
    if not 1 <= port.number <= 65535:
        return Refused("ports", f"{service} has port {port.number}, expected 1 to 65535")
    if port.protocol not in PROTOCOLS:
        return Refused(
            "ports", f"{service}:{port.number} has protocol {port.protocol!r}, expected {PROTOCOLS}"
        )
    if port.name and not is_dns_label(port.name):
        return Refused("ports", f"{service}:{port.number} is named {port.name!r}, expected a DNS label")
    if len(port.app_protocol) > 253 or not port.app_protocol.isprintable():
        return Refused(
            "ports", f"{service}:{port.number} has an appProtocol that is too long or not printable"
        )
    return None


def _scope(spec: ExportSpec, _: Member) -> Refused | None:
    if spec.scope is None:
        return None
    if len(spec.scope) > MOST_SCOPE or not all(is_dns_label(name) for name in spec.scope):
        return Refused("scope", f"the scope of {spec.service} must be at most {MOST_SCOPE} names of clusters")
    return None


def _affinity(spec: ExportSpec, _: Member) -> Refused | None:
    if spec.affinity is None or 1 <= spec.affinity.timeout <= LONGEST_AFFINITY:
        return None
    return Refused(
        "affinity",
        f"{spec.service} keeps clients {spec.affinity.timeout} s, expected 1 to {LONGEST_AFFINITY}",
    )


def _families(spec: ExportSpec, _: Member) -> Refused | None:
    if set(spec.families) <= {"IPv4", "IPv6"} and len(spec.families) <= 2:
        return None
    return Refused("families", f"{spec.service} has IP families {spec.families}, expected IPv4, IPv6 or both")


def _pairs(spec: ExportSpec, _: Member) -> Refused | None:
    pairs = (*spec.labels, *spec.annotations)
    if len(pairs) <= MOST_PAIRS and sum(len(name) + len(value) for name, value in pairs) <= LONGEST_PAIRS:
        return None
    return Refused(
        "size",
        f"{spec.service}: labels and annotations exceed {MOST_PAIRS} pairs or {LONGEST_PAIRS} characters",
    )


def _figures(word: Load, _: Member) -> Refused | None:
    if not 1 <= word.port <= 65535:
        return Refused("load", f"{word.service} has load on port {word.port}, expected 1 to 65535")
    if not 0 <= word.healthy <= word.total <= MOST_ENDPOINTS:
        return Refused(
            "load", f"{word.service}:{word.port} has {word.healthy} healthy of {word.total} endpoints"
        )
    if not 0 <= word.capacity <= MOST_CAPACITY:
        return Refused(
            "load", f"{word.service}:{word.port} has capacity {word.capacity}, over {MOST_CAPACITY}"
        )
    return None


def _zone(word: Load | Cluster, _: Member) -> Refused | None:
    if _TOPOLOGY.fullmatch(word.zone):
        return None
    return Refused("topology", f"zone {word.zone[:80]!r} is not a label value of at most 63 characters")


def _region(word: Cluster, _: Member) -> Refused | None:
    if _TOPOLOGY.fullmatch(word.region):
        return None
    return Refused("topology", f"region {word.region[:80]!r} is not a label value of at most 63 characters")


def _itself(word: Cluster, owner: Member) -> Refused | None:
    if word.name != owner.name:
        return Refused("owner", f"{owner.name} speaks for {word.name}")
    return None


def _gateways(word: Cluster, owner: Member) -> Refused | None:
    if len(word.gateways) > MOST_GATEWAYS:
        return Refused("gateways", f"{word.name} has {len(word.gateways)} gateways, over {MOST_GATEWAYS}")
    if len({one.name for one in word.gateways}) < len(word.gateways):
        return Refused("gateways", f"{word.name} lists a gateway twice")
    return _first(gateway(one, owner.ranges) for one in word.gateways)


def _member_name(word: Member, _: str) -> Refused | None:
    if is_dns_label(word.name) and word.name != HUB:
        return None
    return Refused(
        "name", f"{word.name!r} cannot be the name of a cluster: use a DNS label other than {HUB!r}"
    )


def _trust_domain(word: Member, base: str) -> Refused | None:
    expected = TrustDomain.of_cluster(word.name, base)
    if word.trust_domain == expected:
        return None
    return Refused("trust-domain", f"{word.name} has trust domain {word.trust_domain}, expected {expected}")


def _patterns(word: Member, _: str) -> Refused | None:
    return patterns(word.may_export)


def _ranges(word: Member, _: str) -> Refused | None:
    if len(word.ranges) > MOST_RANGES:
        return Refused("ranges", f"{word.name} has {len(word.ranges)} ranges, over {MOST_RANGES}")
    return None


SERVICE_RULES: tuple[Callable[[ExportSpec | Load, Member], Refused | None], ...] = (
    _owner,
    _service_name,
    _may_export,
)
EXPORT_RULES: tuple[Callable[[ExportSpec, Member], Refused | None], ...] = (
    *SERVICE_RULES,
    _ports,
    _scope,
    _affinity,
    _families,
    _pairs,
)
LOAD_RULES: tuple[Callable[[Load, Member], Refused | None], ...] = (*SERVICE_RULES, _figures, _zone)
CLUSTER_RULES: tuple[Callable[[Cluster, Member], Refused | None], ...] = (_itself, _region, _zone, _gateways)
MEMBER_RULES: tuple[Callable[[Member, str], Refused | None], ...] = (
    _member_name,
    _trust_domain,
    _patterns,
    _ranges,
)
