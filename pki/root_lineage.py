"""The roots of a federation over time: the one that signs, the one that is to follow it, and the set that members hold.

It stands where a `pki.root.RootAuthority` stands. Only a root whose key is here is followed by another one so: one in a
vault or in a safe is replaced where its key is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import intermediate
from pki.certificate import authority_key_id, subject_key_id
from pki.keys import KeyStore
from pki.ledger import Entry
from pki.lineage_file import Begun
from pki.profiles import CLUSTER_CA_ROOTED, INTERMEDIATE
from pki.revoking import Revocations
from pki.root import NEW, RootAuthority
from pki.rotation import Phase, Side
from pki.signer import Clock
from pki.spiffe import TrustDomain
from pki.succession import Place, Succession


class RootLineage(Succession[RootAuthority]):
    """Made by `open`; has one user at a time; to be closed. Its `trust_domain` is the base of all others."""

    roots = True

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `open` finds a root; if not, it makes one."""
        return RootAuthority.exists(directory)

    @classmethod
    async def open(
        cls, directory: Path, keys: KeyStore, base: str, clock: Clock, constrained: bool = False
    ) -> Self:
        """As `opened`, with the roots of `base` in `directory`; `constrained` as for a `RootAuthority`."""

        async def authority(folder: Path, epoch: int, begun: Begun | None) -> RootAuthority:
            if RootAuthority.exists(folder):
                return await RootAuthority.load(folder, keys, base, clock, constrained)
            if begun is None:
                return await RootAuthority.create(folder, keys, base, clock, constrained, epoch)
            who, why = begun.who, begun.reason(NEW)
            return await RootAuthority.create(folder, keys, base, clock, constrained, epoch, who=who, why=why)

        return await cls.opened(TrustDomain.parse(str(base)), Place(directory, keys, clock, authority), 1)

    @property
    def base(self) -> str:
        return self.trust_domain.name

    @property
    def certificate(self) -> x509.Certificate:
        """Of the root that signs."""
        return self.issuer.certificate

    def side_of(self, form: x509.Certificate) -> Side | None:
        """Which of the roots has signed this form of an authority, as it says itself; None if neither."""
        key = authority_key_id(form)
        found = (side for side, each in self.authorities.items() if subject_key_id(each.certificate) == key)
        return next(found, None)

    # ---- as a root -------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """At once: the key is here."""

    def newest(self, trust_domain: TrustDomain) -> Entry | None:
        """As `RootAuthority.newest`, of the root that signs."""
        return self.issuer.newest(trust_domain)

    async def sign_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str
    ) -> x509.Certificate:
        """As `RootAuthority.sign_cluster_ca`, by the root that signs now.

        One that signs once more, because the next one was given up, meets what it has signed before; the authority that
        is there now may not be the newest of these, as a rotation of that may have been given up too.
        """
        again, issuer = self.rotation is not None and self.rotation.phase is Phase.REVERTING, self.issuer
        self._busy[issuer.epoch] += 1
        try:
            with self.tally.counting(CLUSTER_CA_ROOTED.name):
                return await issuer.sign_cluster_ca(request, trust_domain, who=who, why=why, again=again)
        finally:
            self._busy[issuer.epoch] -= 1

    async def sign_intermediate(
        self, request: bytes, grant: intermediate.Grant, *, who: str, why: str
    ) -> x509.Certificate:
        """As `RootAuthority.sign_intermediate`, by the root that signs now."""
        with self.tally.counting(INTERMEDIATE.name):
            return await self.issuer.sign_intermediate(request, grant, who=who, why=why)

    async def check_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, newest: bool = False
    ) -> ec.EllipticCurvePublicKey:
        """As `RootAuthority.check_cluster_ca`, by the root that signs now."""
        return await self.issuer.check_cluster_ca(request, trust_domain, newest=newest)

    def revocations(self, clock: Clock) -> Revocations:
        """What the root that signs now has revoked, and its lists."""
        return self.issuer.revocations(clock)
