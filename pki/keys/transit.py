"""Private keys in the Transit engine of a Vault or OpenBao: made there, never to leave it, signed with by asking.

Of each key its public half is kept here, in a private folder, when it is made: it is what our certificates are over,
so a key of the same name that is another one is refused, and every signature is verified before anybody gets it. The
folder also says which keys are ours, so that a process starts while Vault is away; it just cannot sign. A key that
could be exported, copied or used for something else is refused before its first signature.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.utils import Buffer

from pki import durable
from pki.errors import KeyFileError, KeyMissing, VaultError, VaultFault, WriteError
from pki.names import dns_label
from pki.vault.capabilities import Needs
from pki.vault.session import Session
from pki.vault.wire import Vault, part

KIND = "ecdsa-p256"
DIGEST = 32
"""Bytes of SHA-256."""

PUBLIC, BEGUN = ".public.pem", ".begun"
LONGEST_FILE = 8 * 1024


@dataclass(frozen=True, slots=True)
class Engine:
    """A Transit engine that is mounted at `mount`, and what the names of our keys in it begin with."""

    mount: str
    prefix: str = ""

    def key(self, name: str) -> str:
        return f"{self.mount}/keys/{self.prefix}{name}"

    def sign(self, name: str) -> str:
        return f"{self.mount}/sign/{self.prefix}{name}"

    @property
    def needs(self) -> Needs:
        """What a policy must allow, and what it had better not."""
        name = "ca-1"
        return Needs(
            {
                self.key(name): "update",
                self.sign(name): "update",
                "auth/token/lookup-self": "read",
                "auth/token/renew-self": "update",
                "auth/token/revoke-self": "update",
            },
            {
                f"{self.mount}/export/signing-key/{self.prefix}{name}": "hands out keys that can be exported",
                f"{self.mount}/backup/{self.prefix}{name}": "hands out keys that can be copied",
                f"{self.key(name)}/rotate": "puts another key in the place of ours",
                f"{self.mount}/restore/{self.prefix}{name}": "puts another key in the place of ours",
                f"sys/mounts/{self.mount}": "removes every key",
                "sys/policies/acl/any": "gives itself more",
            },
        )


class TransitKeyStore:
    """The keys of one process in `engine`; `directory` (0700) has their public halves. Calls of a key block.

    Besides what every store raises, everything raises `VaultError`.
    """

    def __init__(self, session: Session, engine: Engine, directory: Path) -> None:
        self._session = session
        self._engine = engine
        self._directory = durable.private_folder(directory)
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"TransitKeyStore({self._engine!r}, {str(self._directory)!r})"

    async def create(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await asyncio.to_thread(self._create, dns_label(name))

    async def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        return await asyncio.to_thread(self._load, dns_label(name))

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._remove, dns_label(name))

    async def names(self) -> frozenset[str]:
        paths = await asyncio.to_thread(lambda: list(self._directory.glob(f"*{PUBLIC}")))
        return frozenset(path.name.removesuffix(PUBLIC) for path in paths)

    def _create(self, name: str) -> ec.EllipticCurvePrivateKey:
        """A mark here before the key there: so one that a crash left is known as our own, and no other is taken."""
        public, begun = self._public(name), self._directory / f"{name}{BEGUN}"
        with self._making:
            durable.sweep(self._directory)
            if public.exists():
                raise KeyFileError(public, "a key of that name exists already; it is never replaced")
            ours = begun.exists()
            if not ours:
                durable.create(begun, b"")
            key = self._session.call(partial(_make, self._engine.key(name), public, ours))
            durable.create(public, _pem(key))
            begun.unlink()
        return TransitKey(self._session, self._engine, name, public, key, checked=True)

    def _load(self, name: str) -> ec.EllipticCurvePrivateKey:
        path = self._public(name)
        try:
            data = durable.read_private(path, LONGEST_FILE)
        except FileNotFoundError:
            raise KeyMissing(path) from None
        key = TransitKey(self._session, self._engine, name, path, _public_key(data, path))
        try:
            key.check()
        except VaultError as error:
            if error.fault in (VaultFault.MISSING, VaultFault.STRANGE, VaultFault.REFUSED):
                raise KeyFileError(path, f"the key to it cannot be used: {error}") from error
        return key

    def _remove(self, name: str) -> None:
        path, key = self._public(name), self._engine.key(name)
        if path.exists():
            self._session.call(partial(_destroy, key))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(path, error.strerror or type(error).__name__) from error

    def _public(self, name: str) -> Path:
        return self._directory / f"{name}{PUBLIC}"


class TransitKey(ec.EllipticCurvePrivateKey):
    """A key of P-256 whose private half is in Vault. `sign` blocks for as long as Vault takes; raises `VaultError`."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        name: str,
        path: Path,
        public: ec.EllipticCurvePublicKey,
        *,
        checked: bool = False,
    ) -> None:
        self._session = session
        self._engine = engine
        self._name = name
        self._path = path
        self._key = public
        self._checked = checked

    def __repr__(self) -> str:
        return f"TransitKey({self._engine.key(self._name)!r})"

    def check(self) -> None:
        """Look whether Vault's key is the one that we know, and stays there. Raises `KeyFileError`, `VaultError`."""
        if not self._checked:
            found = self._session.call(partial(_found, self._engine.key(self._name), self._path))
            if found != self._key:
                raise KeyFileError(
                    self._path, f"the key {self._engine.key(self._name)} in Vault is another one"
                )
            self._checked = True

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """A DER signature with ECDSA over SHA-256, of `data` or of what it is the hash of (`Prehashed`)."""
        self.check()
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, utils.Prehashed) and algorithm.digest_size == len(data) == DIGEST:
            digest = bytes(data)
        elif isinstance(algorithm, hashes.SHA256):
            digest = hashlib.sha256(data).digest()
        else:
            raise UnsupportedAlgorithm("a key on P-256 in Vault signs with SHA-256")
        body = {
            "input": base64.b64encode(digest).decode(),
            "prehashed": True,
            "hash_algorithm": "sha2-256",
            "marshaling_algorithm": "asn1",
        }
        path = self._engine.sign(self._name)
        signature = self._session.call(lambda vault: _signature(vault, path, vault.post(path, body)))
        try:
            self._key.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        except InvalidSignature as error:
            address, detail = (
                self._session.vault.place.address,
                "its signature is not of the key that we know",
            )
            raise VaultError(address, VaultFault.STRANGE, path, detail) from error
        return signature

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise UnsupportedAlgorithm("a key in Vault signs, and agrees on nothing")

    def private_numbers(self) -> NoReturn:
        raise UnsupportedAlgorithm("a key in Vault does not leave it")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002  # as the library calls it
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        raise UnsupportedAlgorithm("a key in Vault does not leave it")

    def __copy__(self) -> TransitKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TransitKey:
        return self


def _make(path: str, public: Path, ours: bool, vault: Vault) -> ec.EllipticCurvePublicKey:
    """Make a key, or, if `ours`, take the one that we made before a crash."""
    try:
        vault.get(path)
    except VaultError as error:
        if error.fault is not VaultFault.MISSING:
            raise
    else:
        if not ours:
            raise KeyFileError(
                public,
                f"a key {path} is in Vault and was not made from here; it is not used, and never replaced",
            )
        return _found(path, public, vault)
    vault.post(path, {"type": KIND, "exportable": False, "allow_plaintext_backup": False})
    return _found(path, public, vault)


def _found(path: str, public: Path, vault: Vault) -> ec.EllipticCurvePublicKey:
    """The public key of a key in Vault, if that is one that only signs and never leaves. Raises `KeyFileError`."""
    data = part(vault.get(path), "data")
    loose = [
        name for name in ("exportable", "allow_plaintext_backup", "derived") if data.get(name) is not False
    ]
    if loose:
        raise KeyFileError(
            public, f"the key {path} in Vault is {loose[0]}; a key of ours never leaves its engine"
        )
    keys = data.get("keys")
    if data.get("type") != KIND or not isinstance(keys, Mapping) or list(keys) != ["1"]:
        raise KeyFileError(public, f"the key {path} in Vault is not one version of {KIND}")
    text = keys["1"].get("public_key") if isinstance(keys["1"], Mapping) else None
    return _public_key(str(text).encode(), public)


def _destroy(path: str, vault: Vault) -> None:
    try:
        vault.post(f"{path}/config", {"deletion_allowed": True})
        vault.delete(path)
    except VaultError as error:
        gone = error.fault in (VaultFault.MISSING, VaultFault.REFUSED) and _is_missing(path, vault)
        if not gone:
            raise


def _is_missing(path: str, vault: Vault) -> bool:
    try:
        vault.get(path)
    except VaultError as error:
        return error.fault is VaultFault.MISSING
    return False


def _signature(vault: Vault, path: str, answer: Mapping[str, Any]) -> bytes:
    scheme, _, encoded = str(part(answer, "data").get("signature")).rpartition(":")
    try:
        if scheme != "vault:v1":
            raise ValueError("not a signature of the first version")
        return base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise VaultError(vault.place.address, VaultFault.STRANGE, path, "no signature in it") from error


def _public_key(data: bytes, path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(path, "is not the public half of a key, in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(path, "is not the public half of a key on P-256")
    return key


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
