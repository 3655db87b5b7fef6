"""The roots of a federation whose keys are in a safe: their certificates are pinned here, and nothing here can sign.

It stands where a `pki.root_lineage.RootLineage` stands. Requests are checked with the same rule, so that nothing
travels to the safe that would be refused there; signatures come later, as the answers of a ceremony (`pki.ceremony`). A
root is followed by another one only if the safe has handed that over, with every set of roots that the rotation may
publish (`pki.following`): then it goes on, or back, as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable
from pki.bundle import FIRST_SEQUENCE, MOST_EARLIER, Bundle
from pki.ceremony import LONGEST_FILE, NextRoot, decode, encode
from pki.certificate import der, pem
from pki.chain import Head
from pki.errors import CeremonyFile, KeyFileError, Refused, Untrusted
from pki.folder import SELF_SIGNED, Folder
from pki.following import Following, read_next
from pki.journal import Journal
from pki.ledger import Entry
from pki.lineage_file import Begun
from pki.root_rules import check_root
from pki.rotation import Rotation
from pki.signer import Clock
from pki.spiffe import TrustDomain
from pki.subordinate import read_request
from pki.succession import Place, Succession

NEXT = "next.json"
"""The root that is to follow, as the safe handed it over."""


class PinnedRoot:
    """A root, as far as it is here: a `pki.succession.Successor` that signs nothing. `epoch` counts those pinned."""

    def __init__(self, base: str, certificate: x509.Certificate, epoch: int) -> None:
        self.base = base
        self.certificate = certificate
        self.epoch = epoch

    @property
    def self_signed(self) -> x509.Certificate:
        return self.certificate

    @property
    def head(self) -> Head:
        """Its journal is where its key is."""
        return Head()

    @property
    def journals(self) -> tuple[Journal, ...]:
        return ()

    def ledger(self, now: datetime) -> tuple[Entry, ...]:
        return ()

    def bundle(self) -> Bundle:
        """The version of the set of roots that begins with this one."""
        return Bundle(TrustDomain.parse(self.base), FIRST_SEQUENCE, (self.certificate,))

    async def sign_content(self, version: Bundle) -> NoReturn:
        raise Refused("signature", "the key of this root is in a safe")

    async def close(self) -> None:
        """There is nothing to let go of."""


class _NoKeys:
    """Where an online root has its keys: whoever has the safe destroys what has ended."""

    async def create(self, name: str) -> NoReturn:
        raise Refused("key", "keys of this root are made in a safe")

    async def load(self, name: str) -> NoReturn:
        raise Refused("key", "keys of this root are in a safe")

    async def remove(self, name: str) -> None:
        pass

    async def names(self) -> frozenset[str]:
        return frozenset()


class OfflineRoot(Succession[PinnedRoot]):
    """The pinned roots of all trust domains under `base`. Made by `pin` or `load`."""

    roots = True

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether a root is pinned in `directory`."""
        return Folder(directory).exists()

    @classmethod
    async def load(cls, directory: Path, base: str, clock: Clock) -> Self:
        """The roots that are pinned in `directory`; raises `KeyFileError`, `WriteError`."""

        async def root(folder: Path, epoch: int, _: Begun | None) -> PinnedRoot:
            if not cls.exists(folder):
                following = await asyncio.to_thread(_handed_over, directory)
                if following is None:
                    raise KeyFileError(directory / NEXT, "does not exist; put a backup of the folder back")
                await asyncio.to_thread(_write, folder, following.certificate)
            return PinnedRoot(str(base), await Folder(folder).read(SELF_SIGNED), epoch)

        return await cls.opened(TrustDomain.parse(str(base)), Place(directory, _NoKeys(), clock, root), 1)

    @classmethod
    async def pin(cls, directory: Path, base: str, certificate: x509.Certificate, clock: Clock) -> Self:
        """Pin a root for ever. Raises `CeremonyFile` if another one is pinned, or it is none; `WriteError`."""
        try:
            check_root(certificate, clock.now())
        except Untrusted as error:
            raise CeremonyFile(f"its root cannot be one: {error}") from error
        if not cls.exists(directory):
            await asyncio.to_thread(_write, directory, certificate)
        found = await cls.load(directory, base, clock)
        if der(found.certificate) != der(certificate):
            raise CeremonyFile(
                "another root is pinned here", "all members pin it; another one is none of theirs"
            )
        return found

    @property
    def base(self) -> str:
        return self.trust_domain.name

    @property
    def certificate(self) -> x509.Certificate:
        """Of the root that signs."""
        return self.issuer.certificate

    # ---- as a root -------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """At once: nobody waits for the one who signs."""

    async def sign_cluster_ca(self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str) -> None:
        """Not now: a ceremony will. Raises `Refused` for what it would refuse."""
        await self.check_cluster_ca(request, trust_domain)

    async def check_cluster_ca(self, request: bytes, trust_domain: TrustDomain) -> ec.EllipticCurvePublicKey:
        """The key of `request`, if the root's rule allows it to be signed now. Raises `Refused`."""
        asked = read_request(request, trust_domain, self.base)
        asked.template(self.certificate, 1, self._place.clock.now())
        return asked.key

    # ---- followed by another one -----------------------------------------------------------------------------------

    async def hand_over(self, file: NextRoot) -> x509.Certificate:
        """Keep the root that is to follow. Raises `CeremonyFile`, and then keeps nothing; `WriteError`."""
        async with self._changing:
            rotation = self.rotation
            if rotation is not None and not rotation.over:
                raise CeremonyFile(
                    "the root is being replaced now", "wait until that is over, or turn it back"
                )
            following = self._read_next(file)
            await asyncio.to_thread(durable.write, self._place.directory / NEXT, encode(file))
            return following.certificate

    async def begin(self, who: str, why: str, *, manual: bool = False, ordered: bool = False) -> Rotation:
        """As `Succession.begin`, with the root that was handed over; raises `Refused` without one that may follow."""
        if self.rotation is None or self.rotation.over:
            await self._check_next()
        return await super().begin(who, why, manual=manual, ordered=ordered)

    async def _check_next(self) -> None:
        file = await asyncio.to_thread(_read_file, self._place.directory)
        if file is None:
            raise Refused("root", f"the one that is to follow is not here; {_MAKE_IT}")
        try:
            self._read_next(file)
        except CeremonyFile as error:
            raise Refused(
                "root", f"the one that was handed over cannot follow: {error}; {_MAKE_IT}"
            ) from error

    def _read_next(self, file: NextRoot) -> Following:
        return read_next(file, self.base, self.bundle(), self._place.clock.now())

    async def _next_version(self, anchors: Sequence[x509.Certificate]) -> Bundle:
        """As the safe has signed it."""
        held, following = self.bundle(), await asyncio.to_thread(_handed_over, self._place.directory)
        for version in () if following is None else following.versions:
            if version.sequence > held.sequence and set(version.anchors) == set(anchors):
                return replace(version, earlier=(*held.earlier, replace(held, earlier=()))[-MOST_EARLIER:])
        raise Refused("roots", f"{self._place.directory / NEXT} has no set of just these; put a backup back")


_MAKE_IT = (
    "make it on the machine of the root (`federation ca init --offline --follows`), and `federation ca install` its"
    " file here"
)


def _read_file(directory: Path) -> NextRoot | None:
    try:
        return decode(durable.read_private(directory / NEXT, LONGEST_FILE), NextRoot)
    except FileNotFoundError:
        return None
    except CeremonyFile as error:
        raise KeyFileError(directory / NEXT, f"cannot be read: {error}; put a backup back") from error


def _handed_over(directory: Path) -> Following | None:
    file = _read_file(directory)
    return None if file is None else Following.of(file)


def _write(directory: Path, certificate: x509.Certificate) -> None:
    durable.private_folder(directory)
    durable.create(directory / SELF_SIGNED, pem([certificate]))


def refuse_keys(directory: Path) -> None:
    """Raise `KeyFileError` if a key of the root is in `directory`, where an online root has its keys."""
    try:
        found = sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return
    if found:
        raise KeyFileError(
            directory / found[0],
            "a key of the root is on this machine, and the settings say that it is offline; move the folder to the"
            " machine of the root, and see that no backup here has it",
        )
