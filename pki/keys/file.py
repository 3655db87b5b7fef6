"""Private keys in files: one folder (0700), one PKCS#8 file a key (0600), never replaced, never followed
through a link.

Refuses, at start and at each load, what others could read. With a passphrase every key is encrypted, and one that is
not is refused; without one, whoever can read the folder, or a backup of it, has the keys.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from pki import durable
from pki.errors import KeyFileError, KeyMissing, WriteError
from pki.keys import pkcs8
from pki.keys.passphrase import Passphrase
from pki.names import dns_label

SUFFIX = ".key"
LONGEST_KEY_FILE = 8 * 1024


class FileKeyStore:
    """A folder of keys, made if it is missing. Anybody may open it to read; whoever makes a key must be the only one
    to do so, and then removes what a crash left.

    Without a passphrase the keys lie there plain. Raises `KeyFileError` when the folder or a key is open to others.
    """

    def __init__(self, directory: Path, passphrase: Passphrase | None = None) -> None:
        self._passphrase = passphrase
        self._directory = durable.private_folder(directory)
        self._making = threading.Lock()
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            durable.read_private(path, LONGEST_KEY_FILE)

    def __repr__(self) -> str:
        return f"FileKeyStore({str(self._directory)!r})"

    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await asyncio.to_thread(self._create, self._path(name))

    async def adopt(self, name: str, key: ec.EllipticCurvePrivateKey) -> None:
        """Keep a key that was made elsewhere. Raises `KeyFileError` when the name is another key's, `WriteError`."""
        await asyncio.to_thread(self._adopt, self._path(name), key)

    async def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await asyncio.to_thread(self._load, self._path(name))

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._remove, self._path(name))

    async def names(self) -> frozenset[str]:
        paths = await asyncio.to_thread(lambda: list(self._directory.glob(f"*{SUFFIX}")))
        return frozenset(path.name.removesuffix(SUFFIX) for path in paths)

    async def protect(self) -> frozenset[str]:
        """Encrypt what lies plain: the names of these keys, none without a passphrase. For the only writer, at start.

        After a crash each key is there, plain or encrypted. Raises `KeyFileError`, `WriteError`.
        """
        if self._passphrase is None:
            return frozenset()
        plain = [name for name in sorted(await self.names()) if await asyncio.to_thread(self._is_plain, name)]
        for name in plain:
            await asyncio.to_thread(self._protect, self._path(name), self._passphrase)
        return frozenset(plain)

    def _is_plain(self, name: str) -> bool:
        return not pkcs8.is_encrypted(self._read(self._path(name)))

    def _protect(self, path: Path, passphrase: Passphrase) -> None:
        key = pkcs8.decode(self._read(path), None, path)
        data = pkcs8.encode(key, passphrase)
        if pkcs8.decode(data, passphrase, path).private_numbers() != key.private_numbers():
            raise KeyFileError(path, "would not be the same key once encrypted; it was left as it is")
        with self._making:
            durable.sweep(self._directory)
            durable.write(path, data)

    def _path(self, name: str) -> Path:
        return self._directory / f"{dns_label(name)}{SUFFIX}"

    def _create(self, path: Path) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        self._keep(path, key)
        return key

    def _adopt(self, path: Path, key: ec.EllipticCurvePrivateKey) -> None:
        if not path.exists() or self._load(path).private_numbers() != key.private_numbers():
            self._keep(path, key)

    def _keep(self, path: Path, key: ec.EllipticCurvePrivateKey) -> None:
        if path.is_symlink() or path.exists():
            raise KeyFileError(path, "a key of that name exists already; it is never replaced")
        data = pkcs8.encode(key, self._passphrase)
        with self._making:
            durable.sweep(self._directory)
            durable.create(path, data)

    def _load(self, path: Path) -> ec.EllipticCurvePrivateKey:
        return pkcs8.decode(self._read(path), self._passphrase, path)

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return durable.read_private(path, LONGEST_KEY_FILE)
        except FileNotFoundError:
            raise KeyMissing(path) from None

    @staticmethod
    def _remove(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(path, error.strerror or type(error).__name__) from error
