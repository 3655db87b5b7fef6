"""What settings say about a Vault or OpenBao: where it is, how to log in to it, and what is there of ours.

A root and keys name it each for themselves, so that each may have a role, and a policy, of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from msgspec import Meta, Struct, structs

from federation.written import Attempt, File

ONE_METHOD = "exactly one of approle, kubernetes, jwt, certificate and token"

Text = Annotated[str, Meta(min_length=1, max_length=256)]


class VaultAddress(str):
    """Where a Vault listens."""

    __slots__ = ()
    allowed: ClassVar[str] = "https://host:port, without a path, such as https://vault.example:8200"

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = urlsplit(text)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.port == 0:
            raise ValueError("no https address")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("more than an address")
        return cls(text.rstrip("/"))


class VaultPath(str):
    """Where an engine, a login or a namespace is."""

    __slots__ = ()
    allowed: ClassVar[str] = "a path of letters, digits, '-', '_' and '.', such as mesh-root or teams/mesh"
    form: ClassVar[re.Pattern[str]] = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")

    @classmethod
    def parse(cls, text: str) -> Self:
        if len(text) > 200 or cls.form.fullmatch(text) is None:
            raise ValueError("not a path")
        return cls(text)


class IssuerId(str):
    """One issuer, whatever it is called, and whichever is the default one."""

    __slots__ = ()
    allowed: ClassVar[str] = (
        "the id of an issuer (a UUID), not its name and not default; see deploy/vault/prepare"
    )
    form: ClassVar[re.Pattern[str]] = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

    @classmethod
    def parse(cls, text: str) -> Self:
        if cls.form.fullmatch(text) is None:
            raise ValueError("not the id of an issuer")
        return cls(text)


class KeyPrefix(str):
    """What the names of our keys begin with."""

    __slots__ = ()
    allowed: ClassVar[str] = "at most 32 of a-z, 0-9 and '-', such as hub-"

    @classmethod
    def parse(cls, text: str) -> Self:
        if re.fullmatch(r"[a-z0-9-]{0,32}", text) is None:
            raise ValueError("not the beginning of a name")
        return cls(text)


class _Setting(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """No unknown fields, no positions."""


class AppRoleLogin(_Setting, frozen=True, kw_only=True):
    """`wrapped`: the file holds a wrapping token with the secret id in it."""

    role_id: Text
    secret_id: File
    wrapped: bool = False
    mount: VaultPath = VaultPath("approle")


class KubernetesLogin(_Setting, frozen=True, kw_only=True):
    role: Text
    token: File = File("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: VaultPath = VaultPath("kubernetes")


class JwtLogin(_Setting, frozen=True, kw_only=True):
    role: Text
    token: File
    mount: VaultPath = VaultPath("jwt")


class CertificateLogin(_Setting, frozen=True, kw_only=True):
    role: Text
    certificate: File
    key: File
    mount: VaultPath = VaultPath("cert")


class TokenLogin(_Setting, frozen=True, kw_only=True):
    """A token that somebody else makes, and replaces before it ends."""

    file: File


class VaultLogin(_Setting, frozen=True, kw_only=True):
    """How to log in: exactly one of these."""

    approle: AppRoleLogin | None = None
    kubernetes: KubernetesLogin | None = None
    jwt: JwtLogin | None = None
    certificate: CertificateLogin | None = None
    token: TokenLogin | None = None


class VaultPlace(_Setting, frozen=True, kw_only=True):
    """A Vault. `ca` is what signed its certificate; `timeout` is for one call, all in all."""

    address: VaultAddress
    ca: File
    auth: VaultLogin
    namespace: VaultPath | None = None
    timeout: Attempt = Attempt.parse("10s")


class VaultIssuer(VaultPlace, frozen=True, kw_only=True):
    """An issuer of a PKI engine that is there for the root of this federation alone."""

    issuer: IssuerId
    mount: VaultPath = VaultPath("mesh-root")


class VaultEngine(VaultPlace, frozen=True, kw_only=True):
    """A Transit engine that is there for the keys of this process alone."""

    mount: VaultPath
    prefix: KeyPrefix = KeyPrefix("")


class RootInVault(_Setting, frozen=True, kw_only=True):
    vault: VaultIssuer


def contradictions(field: str, place: VaultPlace | None) -> Iterator[tuple[str, str, str]]:
    """What single fields cannot tell: field, problem, what is allowed."""
    if place is not None:
        said = [name for name, value in structs.asdict(place.auth).items() if value is not None]
        if len(said) != 1:
            yield f"{field}.auth", f"names {len(said)} ways to log in", ONE_METHOD
