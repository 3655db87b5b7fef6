"""A root whose key is in a safe: its certificate is pinned here, and nothing here can sign.

It stands where `RootAuthority` stands. Requests are checked with the same rule, so that nothing travels to the safe
that would be refused there; signatures come later, as the answers of a ceremony (`pki.ceremony`).
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable
from pki.certificate import der, pem
from pki.errors import CeremonyFile, KeyFileError, Untrusted
from pki.folder import SELF_SIGNED, Folder
from pki.root_rules import check_root
from pki.signer import Clock
from pki.spiffe import TrustDomain
from pki.subordinate import read_request


class OfflineRoot:
    """The pinned root of all trust domains under `base`."""

    def __init__(self, base: str, certificate: x509.Certificate, clock: Clock) -> None:
        self.base = base
        self.certificate = certificate
        self._clock = clock

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether a root is pinned in `directory`."""
        return Folder(directory).exists()

    @classmethod
    async def load(cls, directory: Path, base: str, clock: Clock) -> Self:
        """The root that is pinned in `directory`; raises `KeyFileError`."""
        return cls(base, await Folder(directory).read(SELF_SIGNED), clock)

    @classmethod
    async def pin(cls, directory: Path, base: str, certificate: x509.Certificate, clock: Clock) -> Self:
        """Pin a root for ever. Raises `CeremonyFile` if another one is pinned, or it is none; `WriteError`."""
        try:
            check_root(certificate, clock.now())
        except Untrusted as error:
            raise CeremonyFile(f"its root cannot be one: {error}") from error
        if cls.exists(directory):
            found = await cls.load(directory, base, clock)
            if der(found.certificate) != der(certificate):
                raise CeremonyFile(
                    "another root is pinned here", "all members pin it; another one is none of theirs"
                )
            return found
        await asyncio.to_thread(_write, directory, certificate)
        return cls(base, certificate, clock)

    async def ready(self) -> None:
        """At once: nobody waits for the one who signs."""

    async def sign_cluster_ca(self, request: bytes, trust_domain: TrustDomain, *, who: str, why: str) -> None:
        """Not now: a ceremony will. Raises `Refused` for what it would refuse."""
        await self.check_cluster_ca(request, trust_domain)

    async def check_cluster_ca(self, request: bytes, trust_domain: TrustDomain) -> ec.EllipticCurvePublicKey:
        """The key of `request`, if the root's rule allows it to be signed now. Raises `Refused`."""
        asked = read_request(request, trust_domain, self.base)
        asked.template(self.certificate, 1, self._now())
        return asked.key

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _now(self) -> datetime:
        return self._clock.now()


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
