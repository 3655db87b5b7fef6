"""A root whose key is in the PKI engine of a Vault or OpenBao, and never leaves it.

The mount belongs to this root alone, and its issuer is named by its id: what `default` means may change behind our
back. The issuer's certificate is pinned here at the first start, so that a hub starts while Vault is away. Vault is
not believed: it is sent what our own rule wants signed and nothing else, and its answer is compared with that rule
before anybody gets it. Serial numbers are Vault's choice; the journal has an intent under a number of our own before
Vault is asked, and the true number with the result.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable
from pki.algorithms import spki_hash
from pki.certificate import der, load_pem, pem, public_key
from pki.errors import KeyFileError, Refused, Untrusted, VaultError, VaultFault
from pki.folder import JOURNAL, SELF_SIGNED, Folder
from pki.intermediate import Grant
from pki.issue import Template
from pki.journal import Head, Journal
from pki.ledger import Entry, Failed, Released
from pki.profiles import CLUSTER_CA_ROOTED, INTERMEDIATE
from pki.root_rules import check_root
from pki.signer import Clock, check_newer, identity_of, intent_of
from pki.skew import Course, Reading, check_course, check_forward, follow
from pki.spiffe import TrustDomain
from pki.subordinate import Foreign, Subordinate, read_foreign, read_request
from pki.tally import Tally
from pki.vault.capabilities import Verdict
from pki.vault.issuer import Issuer, check_answer, check_request, wanted
from pki.vault.session import Session
from pki.vault.wire import Vault, part

T = TypeVar("T")


class VaultRoot:
    """The root of all trust domains under `base`. Made by `open`; to be closed. The session is not its own."""

    def __init__(
        self,
        session: Session,
        issuer: Issuer,
        base: str,
        certificate: x509.Certificate,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.base = base
        self.certificate = certificate
        self._session = session
        self._issuer = issuer
        self._journal = journal
        self._clock = clock
        self.tally = Tally()
        self._course: Course | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="root")

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether the issuer has been pinned, so that `open` does not need Vault."""
        return Folder(directory).exists()

    @classmethod
    async def open(cls, directory: Path, session: Session, issuer: Issuer, base: str, clock: Clock) -> Self:
        """The root that is pinned in `directory`, or, at the first start, the issuer's certificate, pinned now.

        Raises `VaultError` when nothing is pinned and Vault is of no use, `KeyFileError`, also for an issuer that is
        another one than the pinned root, `Untrusted` for a certificate that cannot be a root, `JournalError`.
        """
        folder = Folder(directory)
        pinned = await folder.read(SELF_SIGNED) if folder.exists() else None
        try:
            offered: x509.Certificate | None = await session.ask(partial(_offered, issuer))
        except (VaultError, KeyFileError):
            if pinned is None:
                raise
            offered = None
        if pinned is None:
            assert offered is not None
            check_root(offered, clock.now())
            pinned = offered
        elif offered is not None and der(offered) != der(pinned):
            raise KeyFileError(
                directory / SELF_SIGNED,
                f"is the root that all members pin, and {issuer.path} in Vault is another one; name the right issuer",
            )
        journal = await asyncio.to_thread(_journal, directory, pinned, clock.now())
        return cls(session, issuer, base, pinned, journal, clock)

    @property
    def journals(self) -> tuple[Journal, ...]:
        """What was signed, and why: kept here, like that of any other root."""
        return (self._journal,)

    @property
    def head(self) -> Head:
        """The head of the journal, for somebody else to keep."""
        return self._journal.head

    def ledger(self, now: datetime) -> tuple[Entry, ...]:
        """Every certificate that was handed out and has not ended."""
        return self._journal.ledger(now)

    async def examine(self) -> Verdict:
        """What our policy in Vault lacks, and what it has too much of. Raises `VaultError`."""
        return await self._session.examine(self._issuer.needs)

    async def ready(self) -> None:
        """Return if Vault would now let us sign; raises `VaultError` if not."""
        lacking = (await self.examine()).lacking
        if lacking:
            place = self._session.vault.place
            raise VaultError(
                place.address, VaultFault.DENIED, "POST sys/capabilities-self", "; ".join(lacking)
            )

    async def sign_cluster_ca(
        self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str
    ) -> x509.Certificate:
        """The root-signed form for the authority of `trust_domain`, whose request is a CSR of at most 16 KiB.

        Raises `Refused`, `VaultError`, `Untrusted` (Vault signed something else), `JournalError`, `ClockError`.
        Then nothing was released, whatever Vault may have signed.
        """
        with self.tally.counting(CLUSTER_CA_ROOTED.name):
            asked = self._read(request, trust_domain)
            return await self._in_thread(lambda: self._sign(asked, request, who, why))

    async def sign_intermediate(
        self, request: bytes, grant: Grant, *, who: str, why: str
    ) -> x509.Certificate:
        """The authority of another system, as granted, for a CSR that asks for just that.

        Raises as `sign_cluster_ca` does.
        """
        with self.tally.counting(INTERMEDIATE.name):
            asked = read_foreign(request, grant)
            check_request(request, grant.names, grant.subject(asked.key))
            return await self._in_thread(lambda: self._sign(asked, request, who, why))

    async def check_cluster_ca(self, request: bytes, trust_domain: TrustDomain) -> ec.EllipticCurvePublicKey:
        """The key of `request`, if our rule lets Vault sign it now. Raises `Refused` where that does not."""
        asked = self._read(request, trust_domain)
        await self._in_thread(lambda: self._plan(asked, self._clock.now()))
        return asked.key

    async def close(self) -> None:
        """Finish what is being signed and release the journal."""
        await asyncio.to_thread(self._thread.shutdown)
        self._journal.close()

    def _read(self, request: bytes, trust_domain: TrustDomain) -> Subordinate:
        asked = read_request(request, trust_domain, self.base)
        check_request(
            request, x509.SubjectAlternativeName([x509.UniformResourceIdentifier(trust_domain.uri)])
        )
        return asked

    def _sign(self, asked: Subordinate | Foreign, request: bytes, who: str, why: str) -> x509.Certificate:
        """In the one thread that signs: whoever gives up waiting does not end it in the middle."""
        now = self._now()
        template = self._plan(asked, now)
        intent = intent_of(template, now, who, why)
        if intent.epoch:
            check_newer(intent, self._journal.newest(intent.identity))
        self._journal.append(intent)
        released = False
        try:
            body = wanted(request, template, now)
            answer = self._session.call(lambda vault: vault.post(self._issuer.signing, body))
            certificate = check_answer(answer, template, self.certificate, self._clock.now())
            digest = hashlib.sha256(der(certificate)).hexdigest()
            number = f"{certificate.serial_number:x}"
            self._journal.append(Released(self._clock.now(), intent.serial, digest, number))
            released = True
        finally:
            if not released:
                reason = "not signed by Vault, or not as planned"
                self._journal.append(Failed(self._clock.now(), intent.serial, reason))
        return certificate

    def _now(self) -> datetime:
        """The time, unless it cannot be right; raises `ClockError`."""
        reading = Reading(self._clock.now(), self._clock.running())
        if self._journal.last is not None:
            check_forward(reading.wall, self._journal.last, "the last entry of our own journal")
        self._course = follow(self._course, reading)
        check_course(self._course, reading)
        return reading.wall

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _plan(self, asked: Subordinate | Foreign, now: datetime) -> Template:
        self._journal.forget(now)
        serial = x509.random_serial_number()
        template = asked.template(self.certificate, serial, now)
        if asked.key == public_key(self.certificate):
            raise Refused("key", "it is the key of the root itself")
        holder = self._journal.holder(spki_hash(asked.key))
        if holder not in (None, identity_of(template)):
            raise Refused("key", f"it belongs to {holder} already; make a new one")
        return template


def _offered(issuer: Issuer, vault: Vault) -> x509.Certificate:
    """The certificate of an issuer, as Vault has it."""
    text = part(vault.get(issuer.path), "data").get("certificate")
    try:
        (certificate,) = load_pem(text.encode() if isinstance(text, str) else b"", most=1)
    except Untrusted as error:
        raise VaultError(vault.place.address, VaultFault.STRANGE, f"GET {issuer.path}", str(error)) from error
    return certificate


def _journal(directory: Path, certificate: x509.Certificate, now: datetime) -> Journal:
    durable.private_folder(directory)
    begin = not (directory / SELF_SIGNED).exists()
    journal = Journal(directory / JOURNAL, spki_hash(public_key(certificate)), now, begin=begin)
    with ExitStack() as undo:
        undo.callback(journal.close)
        durable.sweep(directory)
        if begin:
            durable.create(directory / SELF_SIGNED, pem([certificate]))
        undo.pop_all()
    return journal
