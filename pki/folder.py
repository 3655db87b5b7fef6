"""The folder of one authority: its certificates and its journal. The key is elsewhere, in a `KeyStore`.

A folder is believed only if its parts belong together: certificate and journal must be those of the key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable
from pki.algorithms import PublicKey, spki_hash
from pki.certificate import check_authority, load_pem, pem, public_key
from pki.errors import KeyFileError, KeyMissing, Untrusted, WrongPassphrase
from pki.journal import Journal
from pki.keys import KeyStore
from pki.signer import Clock, Signer

SELF_SIGNED = "self-signed.pem"
ROOT_SIGNED = "root-signed.pem"
JOURNAL = "journal"
LONGEST_FILE = 64 * 1024
LEFT = (
    "Neither a certificate nor a journal of it is here: if it is the rest of an attempt that was interrupted, give the"
    " passphrase of that attempt, or remove it"
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder (0700) that holds, or will hold, one authority."""

    path: Path

    def exists(self) -> bool:
        """Whether an authority has been made here."""
        return (self.path / SELF_SIGNED).exists()

    async def make(self, keys: KeyStore, epoch: int, clock: Clock) -> Signer:
        """Key and journal of a new authority. A key left by an attempt that crashed is taken up again.

        Raises `WrongPassphrase` for one that is of another passphrase.
        """
        if self.exists():
            raise KeyFileError(self.path, "holds an authority already; it is never replaced")
        try:
            key = await keys.load(key_name(epoch))
        except KeyMissing:
            key = await keys.create(key_name(epoch))
        except WrongPassphrase as error:
            if (self.path / JOURNAL).exists():
                raise
            raise WrongPassphrase(error.path, f"{error.reason}. {LEFT}") from error
        return await asyncio.to_thread(self._signer, key, clock, True)

    async def open(self, keys: KeyStore, epoch: int, clock: Clock) -> Signer:
        """Key and journal of the authority that was made here; raises `KeyFileError` or `JournalError`."""
        return await asyncio.to_thread(self._signer, await keys.load(key_name(epoch)), clock, False)

    async def read(self, name: str) -> x509.Certificate:
        """One certificate of an authority; raises `KeyFileError`."""
        return await asyncio.to_thread(self._read, name)

    async def write(self, name: str, certificate: x509.Certificate) -> None:
        """Keep a certificate; raises `WriteError`."""
        await asyncio.to_thread(durable.write, self.path / name, pem([certificate]))

    def check_belongs(self, name: str, certificate: x509.Certificate, key: PublicKey) -> None:
        """Raise `KeyFileError` unless the certificate is over this key."""
        if public_key(certificate) != key:
            raise KeyFileError(
                self.path / name, "is not over the key of this authority; restore both together"
            )

    def _signer(self, key: ec.EllipticCurvePrivateKey, clock: Clock, begin: bool) -> Signer:
        durable.private_folder(self.path)
        journal = Journal(self.path / JOURNAL, spki_hash(key.public_key()), clock.now(), begin=begin)
        durable.sweep(self.path)
        return Signer(key, journal, clock)

    def _read(self, name: str) -> x509.Certificate:
        path = self.path / name
        try:
            (certificate,) = load_pem(durable.read_private(path, LONGEST_FILE), most=1)
            check_authority(certificate)
        except FileNotFoundError as error:
            raise KeyFileError(path, "does not exist; restore it, or begin with an empty folder") from error
        except Untrusted as error:
            raise KeyFileError(path, f"is not the certificate of an authority: {error}") from error
        return certificate


def key_name(epoch: int) -> str:
    """What the key of an authority is called in a `KeyStore`."""
    return f"ca-{epoch}"
