"""The hub keeps a current revocation list of its root: made ahead of time, on disk, for whoever asks.

A root whose key is elsewhere (in a safe, in Vault) publishes its list there; here it can only be told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from cryptography import x509

from federation.clock import Clock
from federation.errors import FederationError
from pki import durable, revocation
from pki.errors import PkiError
from pki.revocation import Reason
from pki.revoking import Revocations

FILE = "revoked.crl"
LIST_PATH = "/crl/root.crl"
"""Where it is published over plain HTTP: it is signed, and TLS would ask for a list in turn (RFC 5280 §8)."""
LIST_TYPE = "application/pkix-crl"
"""RFC 2585 §4.2."""
LONGEST_FILE = 4 * 1024 * 1024
LOOK_EVERY = 600.0
"""Seconds after which the age of the list is looked at again."""

log = structlog.get_logger()


class RevocationList:
    """The list of `revocations`, those of the root that signs now, kept in `folder`; None if its key is not here."""

    def __init__(self, revocations: Callable[[], Revocations] | None, folder: Path, clock: Clock) -> None:
        self._revocations = revocations
        self._path = folder / FILE
        self._clock = clock
        self._current: x509.CertificateRevocationList | None = None
        self._signing = asyncio.Lock()
        self.problem: str | None = None

    @property
    def current(self) -> x509.CertificateRevocationList | None:
        """None if the key of the root is not here, or while the first list could not be made."""
        return self._current

    @property
    def revocations(self) -> Revocations:
        """Raises FederationError if the key of the root is not here."""
        if self._revocations is None:
            raise FederationError(
                "the key of the root is not in this hub, so it can neither revoke nor sign a list",
                "a root in Vault has its own list (crl in its mount); for a root in a safe, ban the cluster here, and "
                "tell those who trust the root",
            )
        return self._revocations()

    def file(self) -> tuple[str, bytes] | None:
        """The list as it is published: its media type, and DER."""
        return None if self._current is None else (LIST_TYPE, revocation.der(self._current))

    async def start(self) -> None:
        """Take the list on disk, or make one. What cannot be made now is made later."""
        if self._revocations is not None:
            self._current = await asyncio.to_thread(self._read, self._revocations())
            await self._renew()

    async def run(self) -> None:
        """Make the next list in time, for ever."""
        while True:
            await self._clock.sleep(LOOK_EVERY)
            await self._renew()

    async def revoke(self, serials: Sequence[int], reason: Reason, *, who: str, why: str) -> None:
        """Revoke, and publish the list that says so. Raises `Refused`, `JournalError`, FederationError.

        What is in the journal is revoked, even if the list cannot be made now: `run` makes it.
        """
        revocations = self.revocations
        await revocations.revoke(serials, reason, who=who, why=why)
        log.warning("revoked", serials=[f"{serial:x}" for serial in serials], reason=reason.value, why=why)
        async with self._signing:
            await self._sign(revocations)

    async def _renew(self) -> None:
        if self._revocations is None:
            return
        revocations = self._revocations()
        async with self._signing:
            current = self._current
            if current is not None and self._is_whole(revocations, current):
                self.problem = None
                return
            try:
                await self._sign(revocations)
            except (PkiError, OSError) as error:
                self.problem = f"the revocation list cannot be made: {error}"
                log.error("the revocation list cannot be made; will try again", problem=str(error))

    def _is_whole(self, revocations: Revocations, current: x509.CertificateRevocationList) -> bool:
        listed = len(current) == len(revocations.revoked()) and current.issuer == revocations.root.subject
        return listed and not revocation.is_due(current, self._clock.now())

    async def _sign(self, revocations: Revocations) -> None:
        made = await revocations.sign_list()
        await asyncio.to_thread(durable.write, self._path, revocation.der(made))
        self._current = made
        self.problem = None
        log.info("revocation list made", number=revocation.number_of(made), revoked=len(made))

    def _read(self, revocations: Revocations) -> x509.CertificateRevocationList | None:
        """The list on disk, if it is the newest that was signed: another one is made instead."""
        try:
            found = revocation.load_list(durable.read_private(self._path, LONGEST_FILE))
            revocation.check_list(found, revocations.root)
        except FileNotFoundError:
            return None
        except PkiError as error:
            log.warning("the revocation list on disk is no good", problem=str(error))
            return None
        return found if revocation.number_of(found) == revocations.number else None
