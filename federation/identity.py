"""The certificate with which a hub or an agent itself speaks TLS, issued by its own authority and renewed in time.

Chain and key are one file, so that no reader ever sees one of them new and the other old; where a passphrase is set,
the key in it is encrypted. With it a process starts again where nothing can be written and nothing be signed. Whoever
serves or dials with it asks for `current` at each handshake, or is told of each renewal; established connections stay
as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import Clock
from federation.errors import FederationError
from pki import durable
from pki.certificate import load_pem, pem
from pki.errors import KeyFileError, PkiError, Untrusted
from pki.keys import pkcs8
from pki.keys.passphrase import Passphrase
from pki.lineage import Lineage
from pki.policy import Attestation, Attested, Denied, decide
from pki.renewal import renew_at
from pki.spiffe import SpiffeId
from pki.validate import verify_peer

LONGEST_WAIT = 60.0
"""Seconds after which the wall clock is looked at again: it may have jumped, or gone on while the machine slept."""

RETRY_AFTER = 60.0
"""Seconds between attempts to renew; at half life there are many left."""

LONGEST_FILE = 64 * 1024

PLAIN, ENCRYPTED = b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN ENCRYPTED PRIVATE KEY-----"

REMOVE = "remove it; a new one is issued"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Leaf:
    """A chain and its private key, both as PEM, not encrypted; the file `path` holds them together."""

    path: Path
    certificate: x509.Certificate
    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Leaf({self.path}, serial {self.certificate.serial_number:x})"


class Identity:
    """The current leaf of one SPIFFE ID of `authority`, at `path`; there its key is encrypted with `passphrase`."""

    def __init__(
        self,
        authority: Lineage,
        spiffe_id: SpiffeId,
        path: Path,
        lifetime: timedelta,
        clock: Clock,
        passphrase: Passphrase | None = None,
    ) -> None:
        self.spiffe_id = spiffe_id
        self.failures = 0
        """Renewals that failed, since the start."""
        self._authority = authority
        self._path = path
        self._lifetime = lifetime
        self._clock = clock
        self._passphrase = passphrase
        self._leaf: Leaf | None = None
        self._listeners: list[Callable[[Leaf], None]] = []

    @property
    def current(self) -> Leaf:
        if self._leaf is None:
            raise FederationError(f"{self.spiffe_id} has no certificate yet")
        return self._leaf

    def on_renewal(self, listener: Callable[[Leaf], None]) -> None:
        self._listeners.append(listener)

    async def start(self) -> None:
        """Take the leaf on disk if it has time left, else issue one. Raises PkiError or OSError."""
        leaf = await asyncio.to_thread(self._stored)
        if leaf is not None and self._is_ours(leaf) and self._clock.now() < renew_at(leaf.certificate):
            self._leaf = leaf
        else:
            await self.renew()

    def _stored(self) -> Leaf | None:
        """The leaf on disk; None if there is none, or its key lies there in the clear and must not."""
        if not self._path.exists():
            return None
        data = durable.read_private(self._path, LONGEST_FILE)
        if self._passphrase is not None and PLAIN in data:
            return None
        return _parse(self._path, data, self._passphrase)

    def _is_ours(self, leaf: Leaf) -> bool:
        """Whether it would be believed: the identity is ours, and the authority is the one that we have now."""
        bundle = self._authority.bundle()
        try:
            proven = verify_peer((leaf.certificate,), {bundle.trust_domain: bundle}, self._clock.now())
        except Untrusted:
            return False
        return proven == self.spiffe_id

    async def run(self) -> None:
        """Renew at the instant drawn for each certificate, for ever."""
        while True:
            left = (renew_at(self.current.certificate) - self._clock.now()).total_seconds()
            if left > 0:
                await self._clock.sleep(min(left, LONGEST_WAIT))
                continue
            try:
                await self.renew()
            except (PkiError, FederationError, OSError) as error:
                self.failures += 1
                ends = self.current.certificate.not_valid_after_utc
                log.error("own certificate cannot be renewed", reason=str(error), expires=_minutes(ends))
                await self._clock.sleep(RETRY_AFTER)

    async def renew(self) -> None:
        """Issue a new leaf for a new key, write it, and tell the listeners."""
        grant = decide(
            Attested(self.spiffe_id, Attestation.SELF, self._lifetime), self._authority.trust_domain
        )
        if isinstance(grant, Denied):
            raise FederationError(str(grant))
        key = ec.generate_private_key(ec.SECP256R1())
        issued = await self._authority.issue(
            key.public_key(), grant, who=str(self.spiffe_id), why="own certificate"
        )
        await asyncio.to_thread(self._write, issued.pem(), key)
        self._leaf = Leaf(self._path, issued.certificate, issued.pem(), pkcs8.encode(key, None))
        for listener in self._listeners:
            listener(self._leaf)

    def _write(self, chain: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        durable.write(self._path, chain + pkcs8.encode(key, self._passphrase))


def _parse(path: Path, data: bytes, passphrase: Passphrase | None) -> Leaf:
    """The inverse of what `renew` writes. Raises FederationError."""
    marker = max(data.find(PLAIN), data.find(ENCRYPTED))
    try:
        chain = load_pem(data[:marker])
        key = pkcs8.decode(data[marker:], passphrase, path)
        fits = key.public_key() == chain[0].public_key()
    except KeyFileError as error:
        raise FederationError(f"{path}: its key {error.reason}", REMOVE) from error
    except (ValueError, IndexError, PkiError) as error:
        raise FederationError(f"{path} cannot be read: {error}", REMOVE) from error
    if marker < 0 or not fits:
        raise FederationError(f"{path}: its key is not that of its certificate", REMOVE)
    return Leaf(path, chain[0], pem(chain), pkcs8.encode(key, None))


def _minutes(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")
