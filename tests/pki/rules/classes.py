"""One certificate of every profile there is, made the way that the product makes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import intermediate, issue, profiles
from pki.intermediate import Consumer
from pki.profiles import Profile
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.world import BASE, NOW, Ca, World, constrained, granted, new_key, serial

HUB, EAST = TrustDomain.of_hub(BASE), TrustDomain.of_cluster("east", BASE)
OTHERS = TrustDomain("cluster.local")
CONSUL = TrustDomain.parse("36cb52cd-4058-f811-0432-6798a240c5d3.consul")

PROFILES = {value.name: value for value in vars(profiles).values() if isinstance(value, Profile)}
AUTHORITIES = sorted(name for name, profile in PROFILES.items() if profile.authority)
LEAVES = sorted(name for name, profile in PROFILES.items() if not profile.authority)

IDENTITIES = {
    "agent": SpiffeId.agent(EAST),
    "gateway": SpiffeId.gateway(EAST, "eastwest"),
    "federation": SpiffeId.federation(HUB),
    "operator": SpiffeId.operator(HUB, "alice"),
    "svid": SpiffeId.workload(EAST, "shop", "cart"),
}


@dataclass(frozen=True)
class Made:
    """A certificate, its key, what is presented with it, and the anchors under which it is to be believed."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...]
    anchors: tuple[x509.Certificate, ...]

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate, *self.above)


def of(profile: str, world: World, now: datetime = NOW) -> Made:
    """A certificate of this profile. A profile that is not known here fails: say how its certificates are made."""
    match profile:
        case "root":
            return Made(world.root, world.root_key, (), (world.root,))
        case "cluster-ca":
            return Made(world.east.self_signed, world.east.key, (), (world.east.self_signed,))
        case "cluster-ca-rooted":
            return Made(world.east.rooted, world.east.key, (), (world.root,))
        case "cluster-ca-constrained":
            return Made(constrained(world.east, world).rooted, world.east.key, (), (world.root,))
        case "intermediate":
            return another_systems(Consumer.ISTIO, world)
        case _ if profile in IDENTITIES:
            return a_leaf(IDENTITIES[profile], world, now)
    raise AssertionError(f"no certificate of profile {profile} is made here")


def another_systems(consumer: Consumer, world: World) -> Made:
    """The authority of another system."""
    domain = CONSUL if consumer is Consumer.CONSUL else OTHERS
    grant = intermediate.decide(consumer, "east", BASE, domain, None)
    key = new_key()
    plan = issue.intermediate_authority(grant, key.public_key(), world.root, serial(), NOW)
    return Made(issue.sign(plan, world.root_key), key, (), (world.root,))


def a_leaf(identity: SpiffeId, world: World, now: datetime = NOW, ca: Ca | None = None) -> Made:
    """A leaf with the root-signed form of its authority."""
    issuer = ca or (world.hub if identity.trust_domain == HUB else world.east)
    key = new_key()
    plan = issue.leaf(granted(identity), key.public_key(), issuer.forms, serial(), now)
    return Made(issue.sign(plan, issuer.key), key, (issuer.rooted,), (issuer.self_signed, world.root))


def every_class(world: World) -> Sequence[tuple[str, x509.Certificate]]:
    """By name, one certificate of each profile and of each other system."""
    made = [(name, of(name, world).certificate) for name in PROFILES]
    return made + [
        (f"intermediate of {consumer}", another_systems(consumer, world).certificate) for consumer in Consumer
    ]
