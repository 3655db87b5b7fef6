"""The authorities of one trust domain over time: what issues, what is presented, and what is published of them.

How one follows the other is `pki.succession`'s; here is what they sign, and the root's word for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from cryptography import x509

from pki.algorithms import spki_hash
from pki.authority import NEW, Authority, Issued, Issuing, Order
from pki.bundle import Bundle
from pki.errors import PkiError, Refused
from pki.keys import KeyStore
from pki.ledger import Entry
from pki.lineage_file import Begun
from pki.rotation import Side
from pki.signer import Clock
from pki.spiffe import TrustDomain
from pki.succession import Place, Succession

_MadeOf = tuple[Bundle, tuple[tuple[x509.Certificate, x509.Certificate | None], ...]]
"""A version of a bundle, and the two forms of each authority."""


class Lineage(Succession[Authority], Issuing):
    """Made by `open`; has one user at a time; to be closed."""

    _crossing: asyncio.Lock
    _made: tuple[_MadeOf, Bundle] | None = None
    """The bundle as it was asked for last; it is asked for with each certificate, and changes once in a rotation."""

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `open` finds an authority; if not, it makes one."""
        return Authority.exists(directory)

    @classmethod
    async def open(
        cls, directory: Path, keys: KeyStore, trust_domain: TrustDomain, clock: Clock, epoch: int = 1
    ) -> Self:
        """As `opened`, with authorities of `trust_domain` in `directory`."""

        async def authority(folder: Path, number: int, begun: Begun | None) -> Authority:
            if Authority.exists(folder):
                return await Authority.load(folder, keys, trust_domain, clock)
            if begun is None:
                return await Authority.create(folder, keys, trust_domain, clock, number)
            who, why = begun.who, begun.reason(NEW)
            return await Authority.create(folder, keys, trust_domain, clock, number, who=who, why=why)

        made = await cls.opened(trust_domain, Place(directory, keys, clock, authority), epoch)
        made._crossing = asyncio.Lock()
        return made

    @property
    def self_signed(self) -> x509.Certificate:
        return self.issuer.self_signed

    @property
    def root_signed(self) -> x509.Certificate | None:
        return self.issuer.root_signed

    @property
    def forms(self) -> tuple[x509.Certificate, ...]:
        """The certificates of the issuer; a leaf lives within all of them."""
        return self.issuer.forms

    def entry(self, serial: int) -> Entry | None:
        """What the ledgers say of the certificate with this serial number, if it lives."""
        found = (authority.entry(serial) for authority in self._authorities.values())
        return next((entry for entry in found if entry is not None), None)

    def certified(self, key: str) -> tuple[Entry, ...]:
        """What the ledgers say of the certificates for a key (SPKI hash, hex); some may have ended."""
        return tuple(entry for each in self._authorities.values() for entry in each.certified(key))

    def bundle(self) -> Bundle:
        """The newest version of the bundle, with the root's word for its anchors, and for those of the versions that
        lead to it: it may have come after they were published, and who knows none of them begins where there is one.
        """
        made_of = (
            self._bundle,
            tuple((each.self_signed, each.root_signed) for each in self._authorities.values()),
        )
        if self._made is None or self._made[0] != made_of:
            earlier = tuple(self._vouched(version) for version in self._bundle.earlier)
            self._made = made_of, replace(self._vouched(self._bundle), earlier=earlier)
        return self._made[1]

    def _vouched(self, version: Bundle) -> Bundle:
        forms = {
            authority.self_signed: authority.root_signed
            for authority in self._authorities.values()
            if authority.root_signed is not None
        }
        subjects = {form.subject for anchor, form in forms.items() if anchor in version.anchors}
        before = [form for form in version.proof.rooted if form.subject not in subjects]
        rooted = (*before, *(form for anchor, form in forms.items() if anchor in version.anchors))
        return replace(version, proof=replace(version.proof, rooted=rooted))

    # ---- issuing ---------------------------------------------------------------------------------------------------

    async def issue_all(self, orders: Sequence[Order]) -> tuple[Issued | PkiError, ...]:
        """As `Authority.issue_all`, by the issuer of now; what is replaced may be of the other authority."""
        try:
            outcomes = await self._issue_all(orders)
        except PkiError as error:
            for order in orders:
                self.tally.add(order.grant.profile.name, error)
            raise
        for order, outcome in zip(orders, outcomes, strict=True):
            self.tally.add(order.grant.profile.name, outcome if isinstance(outcome, PkiError) else None)
        return outcomes

    async def _issue_all(self, orders: Sequence[Order]) -> tuple[Issued | PkiError, ...]:
        issuer = self.issuer
        orders = [replace(order, bundle=self._bundle.sequence) for order in orders]
        self._busy[issuer.epoch] += 1
        try:
            others = [each for each in self._authorities.values() if each is not issuer]
            if not others:
                return await issuer.issue_all(orders)
            async with self._crossing:
                return await _carried_over(orders, issuer, others[0])
        finally:
            self._busy[issuer.epoch] -= 1

    async def csr(self, side: Side = Side.OLD) -> bytes:
        """A request (PEM) to the root for the root-signed form."""
        return await self._authorities[side].csr()

    async def accept_root_signed(self, certificate: x509.Certificate, *roots: x509.Certificate) -> None:
        """Keep a root-signed form of one of the authorities; raises `Untrusted` if it is none, or `WriteError`."""
        known = {each.self_signed.subject: each for each in self._authorities.values()}
        await known.get(certificate.subject, self.issuer).accept_root_signed(certificate, *roots)


async def _carried_over(
    orders: Sequence[Order], issuer: Authority, other: Authority
) -> tuple[Issued | PkiError, ...]:
    """Fulfil `orders` though the ledger of `other` has a say in them: a key may belong to somebody there, and what is
    replaced may be its. It learns of that when the successor is there: a crash in between makes somebody wait longer.
    """
    replaced: dict[int, str] = {}
    checked = [_checked(order, other, replaced) for order in orders]
    free = [order for order in checked if isinstance(order, Order)]
    known = [order.replaces is not None and other.knows(order.replaces) for order in free]
    fresh = [replace(each, replaces=None) if old else each for each, old in zip(free, known, strict=True)]
    signed = await issuer.issue_all(fresh)
    for order, old, outcome in zip(free, known, signed, strict=True):
        if old and order.replaces is not None and not isinstance(outcome, PkiError):
            await other.supersede(order.replaces, str(order.grant.spiffe_id), spki_hash(order.key))
    outcomes = iter(signed)
    return tuple(next(outcomes) if isinstance(each, Order) else each for each in checked)


def _checked(order: Order, other: Authority, replaced: dict[int, str]) -> Order | PkiError:
    """`order`, unless `other` objects to it; `replaced` has what the orders before it replace, and by which keys."""
    identity, key = str(order.grant.spiffe_id), spki_hash(order.key)
    holder = other.holder(key)
    if holder not in (None, identity):
        return Refused("key", f"it belongs to {holder} already; make a new one")
    entry = None if order.replaces is None else other.entry(order.replaces)
    if entry is None:
        return order
    if entry.identity != identity:
        return Refused("renewal", f"the current certificate is for {entry.identity}")
    if (entry.successors | {replaced.setdefault(entry.serial, key)}) - {key}:
        return Refused("renewal", "the current certificate has been replaced already; attest again")
    return order
