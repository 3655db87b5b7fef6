"""The one way to a certificate: intent on disk, signature, second look, result on disk, release.

A `Signer` is one key, the journal of what it signed and the clock. The steps run in a thread of its own, one
certificate after the other, because the key may be slow or remote. It does not decide who gets what: it is
handed a plan.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import issue
from pki.algorithms import spki_hash
from pki.certificate import der
from pki.errors import Refused
from pki.issue import Template
from pki.journal import Journal
from pki.ledger import Failed, Intent, Released
from pki.skew import check_forward
from pki.validate import check_issued

T = TypeVar("T")

LEAST_SERIAL_BITS = 64

Plan = Callable[[int, datetime], Template]
"""Makes the template, given a fresh serial number and the time."""


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...


class Signer:
    """Signs with `key`; owns `journal`, and closes it. `key` may block and may live elsewhere."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, journal: Journal, clock: Clock) -> None:
        self.public_key = key.public_key()
        self.journal = journal
        self.private_key = key
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="signer")

    async def sign(
        self,
        plan: Plan,
        issuer: Sequence[x509.Certificate],
        *,
        who: str,
        why: str,
        replaces: x509.Certificate | None = None,
    ) -> x509.Certificate:
        """One certificate as planned; `issuer` are the forms of this authority, none for its own anchor.

        Raises `Refused` (by the plan, or a key that belongs to somebody else), `JournalError`, `ClockError`,
        `Untrusted` (the second look), or what the key raises. Then nothing was released.
        """
        return await self.run(lambda: self._sign(plan, issuer, who, why, replaces))

    async def check(self, plan: Plan) -> None:
        """Raise `Refused` if `sign` would now refuse the plan of a subordinate's first certificate, or its key."""

        def look() -> None:
            now = self._clock.now()
            self._check_key(_intent(plan(self.fresh_serial(), now), now, "", "", None), own=False)

        await self.run(look)

    async def run(self, work: Callable[[], T]) -> T:
        """Do something else with the key, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def fresh_serial(self) -> int:
        """159 random bits from the operating system, never used before (RFC 5280 §4.1.2.2)."""
        while True:
            serial = x509.random_serial_number()
            if serial.bit_length() >= LEAST_SERIAL_BITS and not self.journal.uses(serial):
                return serial

    async def close(self) -> None:
        """Finish what is being signed, then let go of the journal."""
        await asyncio.to_thread(self._thread.shutdown)
        self.journal.close()

    def _sign(
        self,
        plan: Plan,
        issuer: Sequence[x509.Certificate],
        who: str,
        why: str,
        replaces: x509.Certificate | None,
    ) -> x509.Certificate:
        now = self._clock.now()
        if self.journal.last is not None:
            check_forward(now, self.journal.last, "the last entry of our own journal")
        self.journal.forget(now)
        template = plan(self.fresh_serial(), now)
        intent = _intent(template, now, who, why, replaces)
        self._check_key(intent, own=not issuer)
        if replaces is not None:
            self._check_lineage(intent, replaces)
        self.journal.append(intent)
        released = False
        try:
            certificate = check_issued(issue.sign(template, self.private_key), template, issuer)
            digest = hashlib.sha256(der(certificate)).hexdigest()
            self.journal.append(Released(self._clock.now(), intent.serial, digest))
            released = True
        finally:
            if not released:
                self.journal.append(Failed(self._clock.now(), intent.serial, "not signed, or not as planned"))
        return certificate

    def _check_key(self, intent: Intent, own: bool) -> None:
        """A key has one identity for as long as a certificate lives, and an authority's key is no one else's."""
        if not own and intent.spki == spki_hash(self.public_key):
            raise Refused("key", "it is the key of the authority itself")
        holder = self.journal.holder(intent.spki)
        if holder is not None and holder != intent.identity:
            raise Refused("key", f"it belongs to {holder} already; make a new one")

    def _check_lineage(self, intent: Intent, replaces: x509.Certificate) -> None:
        """Only the latest certificate of a holder is renewed; a copy of an older one is of no use.

        A successor with the same key does not count: then the answer to an earlier request was lost.
        """
        entry = self.journal.entry(replaces.serial_number)
        if entry is None:
            raise Refused("renewal", "the current certificate is not in our ledger; attest again")
        if entry.identity != intent.identity:
            raise Refused("renewal", f"the current certificate is for {entry.identity}")
        if entry.successors - {intent.spki}:
            raise Refused("renewal", "the current certificate has been replaced already; attest again")


def _intent(
    template: Template, now: datetime, who: str, why: str, replaces: x509.Certificate | None
) -> Intent:
    return Intent(
        at=now,
        serial=f"{template.serial:x}",
        digest=template.digest().hex(),
        profile=template.profile.name,
        identity=template.uri or template.subject.rfc4514_string(),
        spki=spki_hash(template.public_key),
        not_after=template.not_after,
        who=who,
        why=why,
        replaces=None if replaces is None else f"{replaces.serial_number:x}",
    )
