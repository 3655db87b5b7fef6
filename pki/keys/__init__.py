"""Where private keys live. A store hands out subclasses of the library's own elliptic-curve key class.

So certificates, requests and bundles are signed the same way whether the key is in a file here, in a hardware
token or behind a remote signer; nobody else may assume that a private key can be read. Signing may block: it
belongs in a thread.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec


class KeyStore(Protocol):
    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Make a P-256 key, durable before it is returned; raises `KeyFileError` when the name is taken."""
        ...

    async def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        """The key of that name; raises `KeyMissing` when there is none, `KeyFileError` when it is unusable."""
        ...

    async def remove(self, name: str) -> None:
        """Destroy the key of that name; no error when there is none."""
        ...

    async def names(self) -> frozenset[str]:
        """The names of all keys in this store."""
        ...


__all__ = ["KeyStore"]
