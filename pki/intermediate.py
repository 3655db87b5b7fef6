"""Which intermediate another system may get from the root, and what it will say.

It is an authority of that system's own, over a key of its own: the key of a cluster's authority is never handed out,
and under that authority (path length 0) there is no room. So the root signs it, and it can be taken from that system
without touching anything of ours.

It never speaks for a trust domain of ours. A certificate by the root that names a trust domain is how a new one is
introduced to the others (`pki.bundle`): a mesh that held one for `east.<base>` could introduce keys for east. Nothing
of ours trusts the root as an anchor of peers, so what such an intermediate issues is believed only by those who were
given the root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pki.algorithms import PublicKey
from pki.errors import Refused
from pki.names import LONGEST_DNS_NAME
from pki.profiles import INTERMEDIATE
from pki.spiffe import TrustDomain

SHORTEST_INTERMEDIATE = timedelta(days=1)
CURVE = "secp256r1"
"""Linkerd takes no other, and the others take this one."""

USUAL_TRUST_DOMAIN = TrustDomain("cluster.local")
"""What Istio and Linkerd speak for unless they were told otherwise."""

_OF_CONSUL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.consul")
"""The id of a cluster of Consul is a UUID."""

LONGEST_COMMON_NAME = 64
"""RFC 5280, ub-common-name."""


class Consumer(StrEnum):
    """A system that signs with an intermediate of its own."""

    ISTIO = "istio"
    LINKERD = "linkerd"
    CONSUL = "consul"
    CERT_MANAGER = "cert-manager"


@dataclass(frozen=True, slots=True)
class Grant:
    """What an intermediate for `cluster` will say; nothing of it comes from the request but the key."""

    consumer: Consumer
    cluster: str
    base: str
    lifetime: timedelta
    common_name: str
    trust_domain: TrustDomain | None
    dns_names: tuple[str, ...] = ()

    def subject(self, key: PublicKey) -> x509.Name:
        """Different for every key: two authorities with one subject make verifiers try the wrong one."""
        key_id = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.base[:LONGEST_COMMON_NAME]),
                x509.NameAttribute(NameOID.COMMON_NAME, self.common_name),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, key_id[:16]),
            ]
        )

    def request(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """A CSR (PEM) by the holder of `key`, with the subject and the names that are granted.

        A root that is here reads its key alone; one in Vault takes the rest from it, after comparing.
        """
        builder = x509.CertificateSigningRequestBuilder().subject_name(self.subject(key.public_key()))
        if self.names is not None:
            builder = builder.add_extension(self.names, critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    @property
    def names(self) -> x509.SubjectAlternativeName | None:
        """Its alternative names, if it has any."""
        uri: list[x509.GeneralName] = [] if self.uri is None else [x509.UniformResourceIdentifier(self.uri)]
        names = [*uri, *(x509.DNSName(name) for name in self.dns_names)]
        return x509.SubjectAlternativeName(names) if names else None

    @property
    def uri(self) -> str | None:
        """The SPIFFE ID of the trust domain that it signs for, as X509-SVID §3.1 has it in a signing certificate."""
        speaks = self.trust_domain if self.consumer is not Consumer.LINKERD else None
        return None if speaks is None else speaks.uri


def decide(
    consumer: Consumer, cluster: str, base: str, trust_domain: TrustDomain | None, lifetime: timedelta | None
) -> Grant:
    """What `consumer` in `cluster` gets; None stands for the usual. Raises `Refused`."""
    wanted = INTERMEDIATE.lifetime if lifetime is None else lifetime
    if not SHORTEST_INTERMEDIATE <= wanted <= INTERMEDIATE.longest:
        shortest, longest = SHORTEST_INTERMEDIATE.days, INTERMEDIATE.longest.days
        raise Refused(
            "lifetime",
            f"requested {wanted}, granted are {shortest} to {longest} days (profile {INTERMEDIATE.name})",
        )
    domain = trust_domain
    if consumer in (Consumer.ISTIO, Consumer.LINKERD):
        domain = trust_domain or USUAL_TRUST_DOMAIN
    if domain is not None and _meet(domain.name, base):
        raise Refused(
            "trust domain",
            f"{domain} lies under {base} or above it; another system speaks for a trust domain of its own",
        )
    if consumer is Consumer.CONSUL and (domain is None or _OF_CONSUL.fullmatch(domain.name) is None):
        raise Refused(
            "trust domain",
            "Consul takes an authority for its own one only: its cluster id and .consul, as"
            " /v1/connect/ca/roots shows it",
        )
    if consumer is Consumer.LINKERD:
        return _linkerd(cluster, base, domain or USUAL_TRUST_DOMAIN, wanted)
    return Grant(
        consumer, cluster, base, wanted, f"{consumer.value} of {cluster}"[:LONGEST_COMMON_NAME], domain
    )


def _linkerd(cluster: str, base: str, domain: TrustDomain, lifetime: timedelta) -> Grant:
    """Linkerd's identity controller looks for its own name in its issuer."""
    name = f"identity.linkerd.{domain}"
    if len(name) > min(LONGEST_DNS_NAME, LONGEST_COMMON_NAME):
        raise Refused("trust domain", f"{name} is longer than {LONGEST_COMMON_NAME} bytes")
    return Grant(Consumer.LINKERD, cluster, base, lifetime, name, domain, (name,))


def _meet(one: str, other: str) -> bool:
    """No trust domain is a DNS sub-domain of another: Go takes a sub-domain for part of a constraint."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")
