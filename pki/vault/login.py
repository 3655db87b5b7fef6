"""How we prove to a Vault who we are: the methods, and what each sends. Files are read anew at each login.

A secret id may come wrapped: the file then holds a wrapping token, which is good for one look. It is looked at only if
it was made for a secret id of our method, and what was in it is kept in a private file, because a restart cannot
unwrap it again. A wrapping token that does not open any more is an alarm: somebody else may have opened it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pki import durable
from pki.errors import KeyFileError, VaultError, VaultFault
from pki.vault.wire import ClientCertificate, Vault, part

LONGEST_SECRET = 16 * 1024
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True, slots=True)
class AppRole:
    """A role and a secret id. `secret_id` is its file (0600), with a wrapping token in it where `keep` is given.

    `keep` is where the unwrapped secret id is kept.
    """

    role_id: str
    secret_id: Path
    keep: Path | None = None
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class Jwt:
    """A JSON Web Token in a file, which whoever makes it replaces before it ends."""

    role: str
    token: Path
    mount: str = "jwt"


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The token of a service account, which the kubelet replaces."""

    role: str
    token: Path = SERVICE_ACCOUNT
    mount: str = "kubernetes"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate."""

    role: str
    certificate: ClientCertificate
    mount: str = "cert"


@dataclass(frozen=True, slots=True)
class Token:
    """A token that somebody made, in a file (0600). It cannot be had again once it has ended."""

    file: Path


Method = AppRole | Jwt | Kubernetes | Certificate | Token


def log_in(vault: Vault, method: Method) -> tuple[str, dict[str, Any]]:
    """A token, and what is said about it. Raises `VaultError`, `KeyFileError`."""
    match method:
        case Token(file=file):
            return _given(vault, _private(file))
        case AppRole():
            found = vault.login(
                method.mount, {"role_id": method.role_id, "secret_id": _secret_id(vault, method)}
            )
        case Jwt(token=file) | Kubernetes(token=file):
            found = vault.login(method.mount, {"role": method.role, "jwt": _mounted(file)})
        case Certificate():
            found = vault.login(method.mount, {"name": method.role})
    token = found.get("client_token")
    if not isinstance(token, str) or not token:
        raise VaultError(
            vault.place.address, VaultFault.STRANGE, f"auth/{method.mount}/login", "no token in it"
        )
    return token, found


def revoke(vault: Vault, token: str) -> None:
    """End a token that is not needed."""
    vault.post("auth/token/revoke-self", token=token)


def _given(vault: Vault, token: str) -> tuple[str, dict[str, Any]]:
    return token, part(vault.get("auth/token/lookup-self", token=token), "data")


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret id, and the SHA-256 of the wrapping token that it was in."""

    of: str
    secret_id: str


def _secret_id(vault: Vault, method: AppRole) -> str:
    if method.keep is None:
        return _private(method.secret_id)
    kept = _kept(method.keep)
    if kept is not None and not method.secret_id.exists():
        return kept.secret_id
    wrapping = _private(method.secret_id)
    digest = hashlib.sha256(wrapping.encode()).hexdigest()
    if kept is not None and kept.of == digest:
        return kept.secret_id
    secret = _unwrapped(vault, method, wrapping)
    durable.write(method.keep, msgspec.json.encode(_Kept(digest, secret)))
    return secret


def _unwrapped(vault: Vault, method: AppRole, wrapping: str) -> str:
    file = method.secret_id
    try:
        origin = vault.wrapped_by(wrapping)
        if re.fullmatch(rf"auth/{re.escape(method.mount)}/role/[^/]+/secret-id", origin) is None:
            raise KeyFileError(
                file, "holds a wrapping token that was not made for a secret id; it was not opened"
            )
        secret = part(vault.unwrap(wrapping), "data").get("secret_id")
    except VaultError as error:
        if error.fault not in (VaultFault.REFUSED, VaultFault.DENIED, VaultFault.MISSING):
            raise
        raise KeyFileError(
            file,
            "holds a wrapping token that does not open: it has ended, or somebody else has opened it; revoke the"
            " secret id that was in it, and wrap a new one",
        ) from error
    if not isinstance(secret, str) or not secret:
        raise KeyFileError(file, "holds a wrapping token with no secret id in it")
    return secret


def _kept(path: Path) -> _Kept | None:
    try:
        return msgspec.json.decode(durable.read_private(path, LONGEST_SECRET), type=_Kept)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise KeyFileError(path, "is damaged; remove it, and wrap a new secret id") from None


def _private(path: Path) -> str:
    try:
        return _text(path, durable.read_private(path, LONGEST_SECRET))
    except FileNotFoundError as error:
        raise KeyFileError(path, "does not exist; Vault gives us nothing without it") from error


def _mounted(path: Path) -> str:
    """A file that somebody else puts there: a link in Kubernetes, and not private to a user."""
    try:
        with path.open("rb") as file:
            return _text(path, file.read(LONGEST_SECRET + 1))
    except OSError as error:
        raise KeyFileError(path, f"{error.strerror}; Vault gives us nothing without it") from error


def _text(path: Path, data: bytes) -> str:
    text = data.decode("ascii", "replace").strip()
    if not text or not text.isascii() or not text.isprintable() or len(text) > LONGEST_SECRET:
        raise KeyFileError(path, "does not hold one line of text")
    return text
