"""Revoking with the key of a root: first into its journal, then onto a list.

The number of a list is in the journal before the list is signed, so it rises over crashes and lost files.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from pki.errors import Refused
from pki.ledger import Entry, Listed, Revoked
from pki.profiles import ROOT
from pki.revocation import LIFETIME, Reason, sign_list
from pki.signer import Clock, Signer
from pki.skew import check_forward


class Revocations:
    """What one root has revoked. Signs in the thread of its signer."""

    def __init__(self, signer: Signer, root: x509.Certificate, clock: Clock) -> None:
        self.root = root
        self._signer = signer
        self._clock = clock

    @property
    def number(self) -> int:
        """That of the newest list, 0 before the first."""
        return self._signer.journal.number

    def revoked(self) -> tuple[Revoked, ...]:
        """Everything that was ever revoked."""
        return self._signer.journal.revoked()

    def whose(self) -> dict[str, str]:
        """The identity in what was revoked, by serial number, as far as the newest part of the journal says it."""
        return self._signer.journal.whose()

    def living(self) -> tuple[Entry, ...]:
        """The authorities that this root signed, which have not ended and are not revoked."""
        gone = {int(one.serial, 16) for one in self.revoked()}
        found = self._signer.journal.ledger(self._clock.now())
        return tuple(one for one in found if one.profile != ROOT.name and one.serial not in gone)

    async def revoke(self, serials: Sequence[int], reason: Reason, *, who: str, why: str) -> None:
        """Note, all or none and for ever, that these must not be believed; the next list says so.

        Raises `Refused` for one that is not `living`, or `JournalError`.
        """

        def note() -> None:
            living = {one.serial for one in self.living()}
            for serial in serials:
                if serial not in living:
                    raise Refused("serial", f"{serial:x} is no living certificate that this root signed")
            now = self._clock.now()
            self._signer.journal.append(
                *(Revoked(now, f"{serial:x}", reason.value, who, why) for serial in dict.fromkeys(serials))
            )

        await self._signer.run(note)

    async def sign_list(self) -> x509.CertificateRevocationList:
        """The next list. Raises `JournalError`, `ClockError`, `Untrusted`, or what the key raises."""

        def sign() -> x509.CertificateRevocationList:
            journal, now = self._signer.journal, self._clock.now()
            if journal.last is not None:
                check_forward(now, journal.last, "the last entry of our own journal")
            number = journal.number + 1
            journal.append(Listed(now, number, now.replace(microsecond=0) + LIFETIME))
            return sign_list(self.root, self._signer.private_key, journal.revoked(), number, now)

        return await self._signer.run(sign)
