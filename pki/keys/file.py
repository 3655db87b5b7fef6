"""Private keys in files: one folder (0700), one PKCS#8 file a key (0600), never replaced, never followed
through a link.

Refuses, at start and at each load, what others could read. The keys are not encrypted here: whoever can read
the folder is the process.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable
from pki.algorithms import weakness
from pki.errors import KeyFileError, KeyMissing, WriteError
from pki.names import dns_label

SUFFIX = ".key"
LONGEST_KEY_FILE = 8 * 1024


class FileKeyStore:
    """A folder of keys, made if it is missing. Anybody may open it to read; whoever makes a key must be the only one
    to do so, and then removes what a crash left.

    Raises `KeyFileError` when the folder or a key in it is open to others.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = durable.private_folder(directory)
        self._making = threading.Lock()
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            durable.read_private(path, LONGEST_KEY_FILE)

    def __repr__(self) -> str:
        return f"FileKeyStore({str(self._directory)!r})"

    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await asyncio.to_thread(self._create, self._path(name))

    async def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await asyncio.to_thread(self._load, self._path(name))

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._remove, self._path(name))

    async def names(self) -> frozenset[str]:
        paths = await asyncio.to_thread(lambda: list(self._directory.glob(f"*{SUFFIX}")))
        return frozenset(path.name.removesuffix(SUFFIX) for path in paths)

    def _path(self, name: str) -> Path:
        return self._directory / f"{dns_label(name)}{SUFFIX}"

    def _create(self, path: Path) -> ec.EllipticCurvePrivateKey:
        if path.is_symlink() or path.exists():
            raise KeyFileError(path, "a key of that name exists already; it is never replaced")
        key = ec.generate_private_key(ec.SECP256R1())
        data = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with self._making:
            durable.sweep(self._directory)
            durable.create(path, data)
        return key

    @staticmethod
    def _load(path: Path) -> ec.EllipticCurvePrivateKey:
        try:
            data = durable.read_private(path, LONGEST_KEY_FILE)
        except FileNotFoundError:
            raise KeyMissing(path) from None
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            # The cause is dropped on purpose: parsers may quote what they could not parse.
            raise KeyFileError(path, "does not hold an unencrypted PKCS#8 key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or weakness(key.public_key()) is not None:
            raise KeyFileError(path, "does not hold a P-256 or P-384 key")
        return key

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(path, error.strerror or type(error).__name__) from error
