"""Who is banned: a whole cluster, one SPIFFE ID, or one key, by an operator of the hub, until he takes it back.

A ban is a fact of the hub that every agent hears. It is looked at per request, not per connection. All gateways of one
class in a cluster have one identity, so banning it bans them all; banning a key hits one of them, where it attests and
where it renews.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from hashlib import sha256

from federation.reason import ALLOWED, why_unspeakable
from pki.digest import is_digest
from pki.errors import PkiError
from pki.names import is_dns_label
from pki.spiffe import HUB, SpiffeId, TrustDomain

PREFIX = "ban/"
MOST_BANS = 1000

_ITSELF = "is the hub itself: without it nobody would hear of the end of the ban"


class BanKind(Enum):
    CLUSTER = "cluster"
    IDENTITY = "identity"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Ban:
    """`subject` is the name of a cluster, a SPIFFE ID, or the SHA-256 of a public key (SPKI, hex)."""

    kind: BanKind
    subject: str
    reason: str
    since: datetime

    @property
    def key(self) -> str:
        """Under which it is stored and told."""
        return ban_key(self.kind, self.subject)

    def __str__(self) -> str:
        return f"{self.kind.value} {self.subject} is banned: {self.reason}"


Bans = Mapping[str, Ban]
"""By `Ban.key`."""

WhyBanned = Callable[[SpiffeId, str], str | None]
"""Why whoever has, or wants, a certificate for an identity over a key (SPKI hash, hex) is turned away, or None."""


def nobody_is_banned(_identity: SpiffeId, _key: str) -> None:
    """For those who hear of no bans."""


def ban_key(kind: BanKind, subject: str) -> str:
    """Made of names alone, so that every store and stream takes it: an identity is hashed."""
    name = sha256(subject.encode()).hexdigest() if kind is BanKind.IDENTITY else subject
    return f"{PREFIX}{kind.value}/{name}"


def is_ban_key(text: str) -> bool:
    match text.split("/"):
        case ["ban", "cluster", name]:
            return is_dns_label(name)
        case ["ban", "identity" | "key", name]:
            return is_digest(name)
        case _:
            return False


def objection(ban: Ban, base: str) -> str | None:
    """Why there cannot be such a ban in a federation under `base`, or None."""
    if not ban.reason or why_unspeakable(ban.reason):
        return f"a ban needs a reason: {ALLOWED}"
    try:
        match ban.kind:
            case BanKind.CLUSTER if ban.subject == HUB:
                return f"{HUB} is no cluster: it {_ITSELF}"
            case BanKind.CLUSTER:
                TrustDomain.of_cluster(ban.subject, base)
            case BanKind.IDENTITY:
                return _about_identity(SpiffeId.parse(ban.subject), base)
            case BanKind.KEY if not is_digest(ban.subject):
                return (
                    "a key is named by the SHA-256 of its SubjectPublicKeyInfo, 64 characters of 0-9 and a-f"
                )
    except PkiError as error:
        return str(error)
    return None


def _about_identity(identity: SpiffeId, base: str) -> str | None:
    hub = TrustDomain.of_hub(base)
    if identity.trust_domain != hub and identity.trust_domain.cluster(base) is None:
        return f"{identity} is in no trust domain under {base}"
    if identity == SpiffeId.federation(hub):
        return f"{identity} {_ITSELF}"
    return None


def banned(bans: Bans, identity: SpiffeId, key: str, base: str) -> Ban | None:
    """The ban that concerns whoever holds a certificate for `identity` over `key` (SPKI hash, hex), or wants one."""
    if not bans:
        return None
    cluster = identity.trust_domain.cluster(base)
    return (
        (bans.get(ban_key(BanKind.CLUSTER, cluster)) if cluster is not None else None)
        or bans.get(ban_key(BanKind.IDENTITY, str(identity)))
        or bans.get(ban_key(BanKind.KEY, key))
    )


def banned_cluster(bans: Bans, name: str) -> Ban | None:
    return bans.get(ban_key(BanKind.CLUSTER, name)) if bans else None


def banned_gateways(bans: Bans, name: str, gateways: SpiffeId) -> Ban | None:
    """Why the gateways of the cluster `name`, which all are `gateways`, are neither dialled nor let in, or None."""
    return banned_cluster(bans, name) or (
        bans.get(ban_key(BanKind.IDENTITY, str(gateways))) if bans else None
    )
