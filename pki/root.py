"""The root of an installation. It signs authorities, those of clusters and those of other systems, and no leaf, ever.

Whoever asks must hold the key, and is told by the caller of `sign_cluster_ca` which trust domain it may have:
what a request may say is `pki.subordinate`'s rule.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pki import bundle, durable, intermediate, issue
from pki.bundle import FIRST_SEQUENCE, Bundle
from pki.errors import KeyFileError
from pki.folder import SELF_SIGNED, Folder, key_name
from pki.journal import Head, Journal
from pki.keys import KeyStore
from pki.keys.file import FileKeyStore
from pki.ledger import Entry
from pki.names import LONGEST_DNS_NAME
from pki.profiles import CLUSTER_CA_CONSTRAINED, CLUSTER_CA_ROOTED, authority_subject, epoch_of
from pki.revoking import Revocations
from pki.root_rules import check_root
from pki.signer import Clock, Plan, Signer
from pki.spiffe import TrustDomain
from pki.subordinate import Subordinate, read_foreign, read_request

NEW = "a new root"

TAKEN_OVER = "taken-over"
"""The file that says for which base a root serves that others made: its subject does not."""


class RootAuthority:
    """The root for all trust domains under `base`. Made by `create` or `load`; to be closed.

    `constrained`: the authorities of clusters get name constraints from now on (`pki.constraints`).
    """

    def __init__(
        self, signer: Signer, base: str, certificate: x509.Certificate, constrained: bool = False
    ) -> None:
        self.base = base
        self.certificate = certificate
        self._signer = signer
        self._profile = CLUSTER_CA_CONSTRAINED if constrained else CLUSTER_CA_ROOTED

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `load` will find a root; if not, `create` makes one."""
        return Folder(directory).exists()

    @classmethod
    async def create(
        cls,
        directory: Path,
        keys: KeyStore,
        base: str,
        clock: Clock,
        constrained: bool = False,
        epoch: int = 1,
        *,
        who: str = "root",
        why: str = NEW,
    ) -> Self:
        """A new root; `who` wanted it and `why` is for its journal.

        Raises `KeyFileError` when there is one already, `WriteError`, `JournalError`.
        """
        domain = TrustDomain.parse(base)
        folder = Folder(directory)
        signer = await folder.make(keys, epoch, clock)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(signer.close)
            certificate = await signer.sign(
                lambda serial, now: issue.root_authority(domain.name, epoch, signer.public_key, serial, now),
                (),
                who=who,
                why=why,
            )
            await folder.write(SELF_SIGNED, certificate)
            undo.pop_all()
        return cls(signer, base, certificate, constrained)

    @classmethod
    async def take_over(
        cls,
        directory: Path,
        keys: FileKeyStore,
        base: str,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        clock: Clock,
    ) -> Self:
        """A root that others made, in `directory` from now on. After a crash it is begun anew.

        Raises `Untrusted` when it breaks a rule of roots, `KeyFileError` when the key is not its own or there is a root
        already, `WriteError`, `JournalError`.
        """
        check_root(certificate, clock.now())
        if key.public_key() != certificate.public_key():
            raise KeyFileError(
                directory, "would hold a root whose key is another one; bring both that belong together"
            )
        domain, folder, epoch = TrustDomain.parse(base), Folder(directory), epoch_of(certificate.subject) or 1
        if folder.exists():
            raise KeyFileError(directory, "holds a root already; it is never replaced")
        await keys.adopt(key_name(epoch), key)
        signer = await folder.make(keys, epoch, clock)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(signer.close)
            await asyncio.to_thread(durable.write, directory / TAKEN_OVER, domain.name.encode())
            await folder.write(SELF_SIGNED, certificate)
            undo.pop_all()
        return cls(signer, domain.name, certificate)

    @classmethod
    async def load(
        cls, directory: Path, keys: KeyStore, base: str, clock: Clock, constrained: bool = False
    ) -> Self:
        """The root in `directory`; raises `KeyFileError` when its files do not belong together or to `base`."""
        folder = Folder(directory)
        certificate = await folder.read(SELF_SIGNED)
        epoch = epoch_of(certificate.subject) or 1
        signer = await folder.open(keys, epoch, clock)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(signer.close)
            folder.check_belongs(SELF_SIGNED, certificate, signer.public_key)
            ours = certificate.subject == authority_subject(base, epoch, signer.public_key)
            if not ours and await asyncio.to_thread(_taken_over_for, directory) != base:
                raise KeyFileError(directory / SELF_SIGNED, f"is not the root of {base}")
            undo.pop_all()
        return cls(signer, base, certificate, constrained)

    @property
    def self_signed(self) -> x509.Certificate:
        """The certificate of the root, as every authority calls it that others follow."""
        return self.certificate

    @property
    def epoch(self) -> int:
        """Which root of the federation this is, counted."""
        return epoch_of(self.certificate.subject) or 1

    @property
    def head(self) -> Head:
        """The head of the journal, for somebody else to keep."""
        return self._signer.journal.head

    @property
    def journals(self) -> tuple[Journal, ...]:
        """What was signed, and why."""
        return (self._signer.journal,)

    def ledger(self, now: datetime) -> tuple[Entry, ...]:
        """Every certificate that was handed out and has not ended."""
        return self._signer.journal.ledger(now)

    def bundle(self) -> Bundle:
        """The version of the set of roots that begins with this one."""
        return Bundle(TrustDomain.parse(str(self.base)), FIRST_SEQUENCE, (self.certificate,))

    async def sign_content(self, version: Bundle) -> bytes:
        """A signature for a later version of the set of roots; it counts for those who hold this one."""
        return await self._signer.run(lambda: bundle.sign_content(version, self._signer.private_key))

    async def ready(self) -> None:
        """At once: the key is here."""

    def newest(self, trust_domain: TrustDomain) -> Entry | None:
        """What was signed for the newest authority of a trust domain, if it lives."""
        return self._signer.journal.newest(trust_domain.uri)

    async def sign_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str, again: bool = False
    ) -> x509.Certificate:
        """The root-signed form for the authority of `trust_domain`, whose request is a CSR of at most 16 KiB; `again`
        as in `pki.signer.Job`.

        Raises `Refused`, or as `Signer.sign` does.
        """
        asked = read_request(request, trust_domain, self.base)
        return await self._signer.sign(self._plan(asked), (self.certificate,), who=who, why=why, again=again)

    async def sign_intermediate(
        self, request: bytes, grant: intermediate.Grant, *, who: str, why: str
    ) -> x509.Certificate:
        """The authority of another system, as granted, for the key of `request`, a CSR of at most 16 KiB.

        Raises `Refused`, or as `Signer.sign` does.
        """
        asked = read_foreign(request, grant)
        return await self._signer.sign(
            partial(asked.template, self.certificate), (self.certificate,), who=who, why=why
        )

    def revocations(self, clock: Clock) -> Revocations:
        """What this root has revoked, and its lists."""
        return Revocations(self._signer, self.certificate, clock)

    async def check_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, newest: bool = False
    ) -> ec.EllipticCurvePublicKey:
        """The key of `request`, if `sign_cluster_ca` would sign it now. Raises `Refused` where that would; `newest` as
        in `Signer.check`.
        """
        asked = read_request(request, trust_domain, self.base)
        await self._signer.check(self._plan(asked), newest=newest)
        return asked.key

    def _plan(self, asked: Subordinate) -> Plan:
        return lambda serial, now: asked.template(self.certificate, serial, now, self._profile)

    async def close(self) -> None:
        """Finish what is being signed and release the journal."""
        await self._signer.close()


async def base_of(directory: Path) -> str:
    """The federation that the root in `directory` says it is for; `RootAuthority.load` finds out whether that is so.

    Raises `KeyFileError`.
    """
    subject = (await Folder(directory).read(SELF_SIGNED)).subject
    labels = [str(part.value) for part in subject.get_attributes_for_oid(NameOID.DOMAIN_COMPONENT)]
    return await asyncio.to_thread(_taken_over_for, directory) or ".".join(reversed(labels))


def _taken_over_for(directory: Path) -> str:
    try:
        return durable.read_private(directory / TAKEN_OVER, LONGEST_DNS_NAME).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
