"""A member of the federation as the hub stores it: who it is, what it may do, by what it is recognised.

Of its authorities a row has two: the one that everybody goes by, and the one that is to follow it. How one takes the
place of the other is `federation.root_word`'s.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_network

import msgspec

from federation.errors import InvalidValue
from federation.model import Member, MemberState, Network, Position
from pki import bundle as bundles
from pki.bundle import FIRST_SEQUENCE, Bundle
from pki.certificate import load_der
from pki.spiffe import TrustDomain
from pki.token import FIRST_EPOCH


class MemberRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cluster as it is stored.

    `key` is the hash of its authority's public key, which bound the join token, `epoch` the one in its subject;
    `rooted` the root's certificate over that key (DER); `bundle` the newest bundle that the cluster published with
    proof, None before the first. Until a ceremony has signed `request` (a CSR), `rooted` is empty or another root's,
    and before the first the cluster is known by its own `anchor` (DER) alone: by this hub, to whom it has shown a
    token, and by nobody else. What begins with `next_` is of the authority that is to follow.
    """

    name: str
    may_export: tuple[str, ...]
    ranges: tuple[str, ...]
    joined_at: datetime
    state: MemberState = MemberState.ACTIVE
    key: str
    epoch: int = FIRST_EPOCH
    rooted: bytes = b""
    bundle: bytes | None = None
    anchor: bytes = b""
    request: bytes = b""
    next_rooted: bytes = b""
    next_anchor: bytes = b""
    next_request: bytes = b""

    @property
    def wanted(self) -> bytes:
        """What a ceremony has to sign first: others believe what follows by what is there before. Empty for nothing."""
        return self.request or self.next_request

    @property
    def waits(self) -> bool:
        """Whether a ceremony has yet to sign what this cluster asked for."""
        return bool(self.wanted)

    def member(self, base: str) -> Member:
        """What is told to everybody; its position is given to it when it is published. Of what the root signed it is
        the cluster's newest, which alone it asked for.
        """
        return Member(
            self.name,
            TrustDomain.of_cluster(self.name, base),
            self.may_export,
            networks(self.ranges),
            self.joined_at,
            self.state,
            Position(),
            self.next_rooted or self.rooted,
        )

    def trusted(self, base: str) -> Bundle:
        """By what the cluster's agent is recognised: what it published, until then what it showed at its join."""
        if self.bundle is not None:
            return bundles.decode(self.bundle)
        shown = load_der(self.rooted or self.anchor)
        return Bundle(TrustDomain.of_cluster(self.name, base), FIRST_SEQUENCE, (shown,))


def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Address ranges in CIDR notation. Raises InvalidValue for one that is none."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise InvalidValue(f"not an address range: {error}", "write CIDR, for example 10.1.0.0/16") from error
