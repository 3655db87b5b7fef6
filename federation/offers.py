"""The hub's door for newer versions of members' bundles, which anybody may bring.

A registry that was put back from a copy knows a member by anchors that the member has left since. The certificate of
its agent leads to none of them, so the agent is refused before it can say anything. What it has to say is public and
proves itself, as each version is signed by an anchor of the one before: so it is taken here from whoever brings it,
and nothing else is. Nothing leads back, to another trust domain, or to a key that no anchor before has signed for.

Who knocks is told what the hub goes by, and costs little: so many a time are heard from one address, what is no newer
than what is held is not looked at any further, and of what claims to be, so many a time are, of one address and of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog
from cryptography import x509

from federation.clock import Clock
from federation.errors import FederationError
from federation.svid.quota import Level, Quota, spend
from pki import bundle as bundles
from pki.bundle import Bundle
from pki.spiffe import SpiffeId, TrustDomain

HEARD = Quota(rate=2, burst=128)
"""Bundles a second that are read and answered, of one address: behind which there may be many agents."""
OF_ONE = Quota(rate=0.2, burst=4)
OF_ALL = Quota(rate=2, burst=20)
"""Bundles a second of which signatures are verified."""
MOST_ADDRESSES = 1024
"""Of which it is remembered how often they knocked."""

log = structlog.get_logger()


class NotTaken(FederationError):
    """Nothing can be offered of this trust domain here."""


class TooMany(FederationError):
    """Too much was offered; after `wait` seconds it may be tried again."""

    def __init__(self, wait: float) -> None:
        super().__init__("too many bundles are offered", f"try again in {wait:.0f} s")
        self.wait = wait


class Members(Protocol):
    """What the registry has to do with it."""

    def bundles(self) -> Mapping[TrustDomain, Bundle]:
        """By what each member is recognised."""
        ...

    async def brought(self, cluster: str, offered: Bundle) -> None:
        """Somebody brings a bundle of a member."""
        ...


class Banned(Protocol):
    def why_banned(self, identity: SpiffeId, key: str) -> str | None:
        """Why whoever has this identity and this key (SPKI hash) is turned away."""
        ...


class Offers:
    """Of the federation `base`, whose `roots` vouch for new authorities."""

    def __init__(
        self,
        base: str,
        roots: Callable[[], Sequence[x509.Certificate]],
        members: Members,
        bans: Banned,
        clock: Clock,
    ) -> None:
        self._base = base
        self._roots = roots
        self._members = members
        self._bans = bans
        self._clock = clock
        self._all: Level | None = None
        self._each: dict[str, Level] = {}
        self._heard: dict[str, Level] = {}
        self._encoded: dict[TrustDomain, tuple[Bundle, bytes]] = {}

    async def hear(self, encoded: bytes, address: str) -> Bundle:
        """What the hub goes by, now that it has seen this. Raises NotTaken, TooMany, `InvalidBundle`, StoreError."""
        _count(self._heard, address, HEARD, self._clock.monotonic())
        name, version = bundles.claim(encoded)
        domain, held = next(
            ((each, bundle) for each, bundle in self._members.bundles().items() if each.name == name),
            (None, None),
        )
        cluster = None if domain is None else domain.cluster(self._base)
        if domain is None or held is None or cluster is None:
            raise NotTaken(f"{name[:255]!r} is no trust domain of a member", "see `federation cluster list`")
        if self._bans.why_banned(SpiffeId.agent(domain), "") is not None:
            raise NotTaken(
                f"{name} is banned", "an operator of the hub may take it back: federation ca unban"
            )
        if version <= held.version:
            return held
        self._verified(address)
        if not bundles.leads_on(held, encoded, *self._roots()):
            return held
        await self._members.brought(cluster, bundles.decode(encoded))
        now = self._members.bundles().get(domain, held)
        if now.version != held.version:
            log.warning(
                "a newer trust bundle was brought from outside a stream, as after a backup was put back",
                cluster=cluster,
                generation=now.generation,
                sequence=now.sequence,
                address=address,
            )
        return now

    def encoded(self, held: Bundle) -> bytes:
        """What `hear` answered, as it is sent: made once for each that the hub goes by."""
        known = self._encoded.get(held.trust_domain)
        if known is None or known[0] is not held:
            known = self._encoded[held.trust_domain] = held, bundles.encode(held)
        return known[1]

    def _verified(self, address: str) -> None:
        """Raises TooMany."""
        now = self._clock.monotonic()
        _count(self._each, address, OF_ONE, now)
        every = spend(self._all, OF_ALL, now)
        self._all = every.level
        if every.wait:
            raise TooMany(every.wait)


def _count(levels: dict[str, Level], address: str, quota: Quota, now: float) -> None:
    """Raises TooMany. What is known of an address for the longest without a knock is forgotten first."""
    one = spend(levels.pop(address, None), quota, now)
    levels[address] = one.level
    while len(levels) > MOST_ADDRESSES:
        del levels[next(iter(levels))]
    if one.wait:
        raise TooMany(one.wait)
