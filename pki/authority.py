"""The authority of one trust domain: one key, and one or two forms of its certificate.

The self-signed form is the anchor that gets published; the root-signed one, over the same key, may arrive
later and is presented besides, for those who trust the root. The key need not be in memory. What is issued
comes from a `Grant`; of a request only the key is used. A folder of its own holds certificates and journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

from cryptography import x509

from pki import bundle, csr, issue, statement
from pki.algorithms import PublicKey
from pki.bundle import FIRST_SEQUENCE, Bundle, Proof
from pki.certificate import authority_trust_domain, pem
from pki.errors import Distrust, KeyFileError, PkiError, Refused, Untrusted
from pki.folder import ROOT_SIGNED, SELF_SIGNED, Folder
from pki.issue import Template
from pki.journal import Head, Journal
from pki.keys import KeyStore
from pki.ledger import Entry
from pki.policy import Grant
from pki.profiles import epoch_of
from pki.rooted import is_rooted
from pki.signer import Clock, Job, Outcome, Signer
from pki.spiffe import TrustDomain

AUTHORITY_ENDS = "the end of the authority"
NEW = "a new authority"


@dataclass(frozen=True, slots=True)
class Issued:
    """What is presented: the leaf, then the root-signed form of its authority, if there is one.

    `limited_by` names what makes its life shorter than was requested, or than is usual: what the grant says, or
    the end of its authority.
    """

    chain: tuple[x509.Certificate, ...]
    limited_by: str | None

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    def pem(self) -> bytes:
        """The chain as PEM."""
        return pem(self.chain)


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate to issue, as granted, for a key that its holder has proved to have.

    `who` asks and `why` it is given, for the journal; `replaces` is the serial number of the certificate that the
    caller proved to hold when it renews; `bundle` as in `pki.ledger.Intent`.
    """

    key: PublicKey
    grant: Grant
    who: str
    why: str
    replaces: int | None = None
    bundle: int = 0


class Issuing(Protocol):
    """Whoever fulfils orders, many at once or one by one."""

    async def issue_all(self, orders: Sequence[Order]) -> tuple[Issued | PkiError, ...]: ...

    async def issue(
        self,
        request: bytes | PublicKey,
        grant: Grant,
        *,
        who: str,
        why: str,
        replaces: x509.Certificate | None = None,
    ) -> Issued:
        """Issue what was granted to the key of `request`: a CSR, or a key that the caller is known to hold.

        `replaces` is the certificate that the caller proved to hold when it renews. Raises `Refused`, or as
        `Signer.sign` does.
        """
        key = csr.parse(request, grant.keys).public_key if isinstance(request, bytes) else request
        serial = None if replaces is None else replaces.serial_number
        (outcome,) = await self.issue_all((Order(key, grant, who, why, serial),))
        if isinstance(outcome, PkiError):
            raise outcome
        return outcome


class Authority(Issuing):
    """Made by `create` or `load`; has one user at a time (its journal is locked); to be closed."""

    def __init__(
        self,
        folder: Folder,
        signer: Signer,
        trust_domain: TrustDomain,
        self_signed: x509.Certificate,
        root_signed: x509.Certificate | None = None,
    ) -> None:
        self.trust_domain = trust_domain
        self.self_signed = self_signed
        self.root_signed = root_signed
        self.epoch = epoch_of(self_signed.subject) or 1
        """Which authority of its trust domain this is, counted."""
        self._folder = folder
        self._signer = signer

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `load` will find an authority; if not, `create` makes one."""
        return Folder(directory).exists()

    @classmethod
    async def create(
        cls,
        directory: Path,
        keys: KeyStore,
        trust_domain: TrustDomain,
        clock: Clock,
        epoch: int = 1,
        *,
        who: str | None = None,
        why: str = NEW,
    ) -> Self:
        """A new authority with its self-signed form; after a crash it goes on with the same key. `who` wanted it and
        `why` is for its journal; nobody but itself if there is none.

        Raises `KeyFileError` when there is one already, `WriteError`, `JournalError`.
        """
        folder = Folder(directory)
        signer = await folder.make(keys, epoch, clock)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(signer.close)
            self_signed = await signer.sign(
                lambda serial, now: issue.cluster_authority(
                    trust_domain, epoch, signer.public_key, serial, now
                ),
                (),
                who=trust_domain.uri if who is None else who,
                why=why,
            )
            await folder.write(SELF_SIGNED, self_signed)
            undo.pop_all()
        return cls(folder, signer, trust_domain, self_signed)

    @classmethod
    async def load(cls, directory: Path, keys: KeyStore, trust_domain: TrustDomain, clock: Clock) -> Self:
        """The authority in `directory`; raises `KeyFileError` when its files do not belong together."""
        folder = Folder(directory)
        self_signed = await folder.read(SELF_SIGNED)
        epoch = epoch_of(self_signed.subject)
        if authority_trust_domain(self_signed) != trust_domain or epoch is None:
            raise KeyFileError(directory / SELF_SIGNED, f"is not the authority of {trust_domain}")
        signer = await folder.open(keys, epoch, clock)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(signer.close)
            folder.check_belongs(SELF_SIGNED, self_signed, signer.public_key)
            root_signed = None
            if (directory / ROOT_SIGNED).exists():
                root_signed = await folder.read(ROOT_SIGNED)
                folder.check_belongs(ROOT_SIGNED, root_signed, signer.public_key)
            undo.pop_all()
        return cls(folder, signer, trust_domain, self_signed, root_signed)

    @property
    def forms(self) -> tuple[x509.Certificate, ...]:
        """The certificates of this authority; a leaf lives within all of them."""
        return (self.self_signed,) if self.root_signed is None else (self.self_signed, self.root_signed)

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

    def holder(self, key: str) -> str | None:
        """The identity to which a key (SPKI hash, hex) belongs here."""
        return self._signer.journal.holder(key)

    def certified(self, key: str) -> tuple[Entry, ...]:
        """As `Ledger.certified`."""
        return self._signer.journal.certified(key)

    def knows(self, serial: int) -> bool:
        """Whether it handed out the living certificate with this serial number."""
        return self._signer.journal.entry(serial) is not None

    async def supersede(self, serial: int, identity: str, key: str) -> None:
        """As `Signer.supersede`."""
        await self._signer.supersede(serial, identity, key)

    def entry(self, serial: int) -> Entry | None:
        """What the ledger says of the certificate with this serial number, if it lives."""
        return self._signer.journal.entry(serial)

    async def csr(self) -> bytes:
        """A request (PEM) to the root for the root-signed form."""
        return await self._signer.run(
            lambda: csr.request(self._signer.private_key, self.self_signed.subject, self.trust_domain.uri)
        )

    async def accept_root_signed(self, certificate: x509.Certificate, *roots: x509.Certificate) -> None:
        """Keep the root-signed form, if it is one of our own; raises `Untrusted` or `WriteError`."""
        if not any(is_rooted(self.self_signed, certificate, root) for root in roots):
            raise Untrusted(
                Distrust.NO_PATH, "it is not the root's word for the certificate of this authority"
            )
        await self._folder.write(ROOT_SIGNED, certificate)
        self.root_signed = certificate

    async def issue_all(self, orders: Sequence[Order]) -> tuple[Issued | PkiError, ...]:
        """Fulfil each order, or say why not, in their order; all of them go through the journal together.

        Raises `JournalError`, `ClockError` or what the key raises, as `Signer.sign_all` does.
        """
        forms = self.forms
        signed = await self._signer.sign_all([self._job(order, forms) for order in orders])
        return tuple(_issued(order, outcome, forms) for order, outcome in zip(orders, signed, strict=True))

    def _job(self, order: Order, forms: tuple[x509.Certificate, ...]) -> Job:
        def plan(serial: int, now: datetime) -> Template:
            if order.grant.spiffe_id.trust_domain != self.trust_domain:
                raise Refused("identity", f"{order.grant.spiffe_id} is not of {self.trust_domain}")
            return issue.leaf(order.grant, order.key, forms, serial, now)

        return Job(plan, forms, order.who, order.why, order.replaces, bundle=order.bundle)

    def bundle(self) -> Bundle:
        """The version that begins with this authority: its anchor, and the root's word if there is one."""
        return Bundle(
            self.trust_domain, FIRST_SEQUENCE, (self.self_signed,), Proof(rooted=self.forms[1:]), self.epoch
        )

    async def sign_content(self, version: Bundle) -> bytes:
        """A signature for a later version of the bundle; it counts for those who hold this anchor."""
        return await self._signer.run(lambda: bundle.sign_content(version, self._signer.private_key))

    async def sign_statement(self, kind: statement.Kind, said: bytes) -> bytes:
        """A signature for what this authority says; it counts for those who hold this anchor."""
        return await self._signer.run(lambda: statement.sign(kind, said, self._signer.private_key))

    async def close(self) -> None:
        """Finish what is being signed and release the journal."""
        await self._signer.close()


def _issued(order: Order, outcome: Outcome, forms: tuple[x509.Certificate, ...]) -> Issued | PkiError:
    if isinstance(outcome, PkiError):
        return outcome
    cut = outcome.not_valid_after_utc == min(form.not_valid_after_utc for form in forms)
    return Issued((outcome, *forms[1:]), AUTHORITY_ENDS if cut else order.grant.limited_by)
