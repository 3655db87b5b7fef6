"""Who may use the REST API from elsewhere: people at the hub, gateways at their agent.

A role, and a ban, is looked up at each call, so both work at once. Bearer tokens are kept as hashes, and compared in
constant time.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Literal
from uuid import uuid4

import msgspec
from cryptography import x509

from federation.api.routes import ROLES, Access, Principal, turned_away
from federation.banned import WhyBanned, nobody_is_banned
from federation.errors import FederationError, InvalidValue
from federation.store import Change, Committed, Store
from federation.tokens import settle
from pki.algorithms import spki_hash
from pki.bundle import Bundle
from pki.certificate import public_key
from pki.errors import PkiError
from pki.names import is_dns_label
from pki.spiffe import SpiffeId
from pki.validate import verify_peer

PREFIX = "operator/"
BEARER = "fedop1."
"""Names the version of a bearer token; a scanner for leaked secrets can look for it."""

_TOKEN = re.compile(re.escape(BEARER) + r"[A-Za-z0-9_-]{43}")
"""The whole token: 256 bits in base64url follow the version."""


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person or a program that may use the hub, by a bearer token or by a certificate for one key.

    The key counts besides the name, so that a certificate of somebody who was removed is not that of a namesake.
    """

    name: str
    role: Literal["viewer", "operator"]
    token_hash: str | None = None
    key: str | None = None


class OperatorStore:
    """The operators of one hub."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self, name: str, role: Literal["viewer", "operator"], *, key: str | None = None
    ) -> str | None:
        """Add an operator that comes with a certificate for `key` (pki.algorithms.spki_hash), else with a bearer token.

        Returns the bearer token, shown this once. Raises FederationError if the name is taken.
        """
        _check_name(name)
        secret = None if key else BEARER + urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
        made = Operator(name, role, _hash(secret) if secret else None, key)
        place = PREFIX + name
        change = Change(uuid4().hex, put={place: msgspec.json.encode(made)}, expect={place: 0})
        if not isinstance(await settle(self._store, change), Committed):
            raise _taken(name)
        return secret

    async def ensure_free(self, name: str) -> None:
        """Raise FederationError now if `create` would do so for this name."""
        _check_name(name)
        if PREFIX + name in (await self._store.load(PREFIX + name)).rows:
            raise _taken(name)

    async def listed(self) -> tuple[Operator, ...]:
        image = await self._store.load(PREFIX)
        return tuple(msgspec.json.decode(row.value, type=Operator) for row in image.rows.values())

    async def remove(self, name: str) -> bool:
        """Take all access away; False if there is no such operator."""
        place = PREFIX + name
        if place not in (await self._store.load(place)).rows:
            return False
        await settle(self._store, Change(uuid4().hex, delete=frozenset({place})))
        return True

    async def by_key(self, name: str, key: str) -> Operator | None:
        row = (await self._store.load(PREFIX + name)).rows.get(PREFIX + name)
        operator = None if row is None else msgspec.json.decode(row.value, type=Operator)
        return operator if operator is not None and operator.key == key else None

    async def by_secret(self, secret: str) -> Operator | None:
        """Whose bearer token it is. What cannot be one is nobody's, and costs no look at the store."""
        if _TOKEN.fullmatch(secret) is None:
            return None
        wanted = _hash(secret)
        return next(
            (one for one in await self.listed() if compare_digest(one.token_hash or "", wanted)), None
        )


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _check_name(name: str) -> None:
    if not is_dns_label(name):
        raise InvalidValue(f"{name!r} is not a name for an operator", "use a-z, 0-9 and '-', at most 63")


def _taken(name: str) -> FederationError:
    return FederationError(f"there is an operator {name} already", "remove it first, or choose another name")


def identify(der: bytes, bundle: Bundle, now: datetime) -> tuple[SpiffeId, x509.Certificate] | None:
    """The identity in a client certificate of this trust domain, verified here again; None if it is not one."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        return verify_peer((certificate,), {bundle.trust_domain: bundle}, now), certificate
    except (ValueError, PkiError):
        return None


class HubAccess:
    """Operators, by certificate of the hub's trust domain or by bearer token."""

    def __init__(
        self,
        operators: OperatorStore,
        bundle: Callable[[], Bundle],
        now: Callable[[], datetime],
        why_banned: WhyBanned = nobody_is_banned,
    ) -> None:
        self._operators = operators
        self._bundle = bundle
        self._now = now
        self._why_banned = why_banned

    async def certificate(self, der: bytes) -> Principal | None:
        found = identify(der, self._bundle(), self._now())
        if found is None:
            return None
        spiffe_id, certificate = found
        role, _, name = spiffe_id.path[1:].partition("/")
        key = spki_hash(public_key(certificate))
        if (reason := self._why_banned(spiffe_id, key)) is not None:
            raise turned_away(reason)
        operator = await self._operators.by_key(name, key) if role == "operator" else None
        return Principal(name, ROLES[operator.role], spiffe_id, certificate) if operator else None

    async def bearer(self, secret: str) -> Principal | None:
        operator = await self._operators.by_secret(secret)
        if operator is not None:
            identity = SpiffeId.operator(self._bundle().trust_domain, operator.name)
            if (reason := self._why_banned(identity, "")) is not None:
                raise turned_away(reason)
        return Principal(operator.name, ROLES[operator.role]) if operator else None


class AgentAccess:
    """Gateways of the agent's own cluster, by certificate. There are no remote operators: they ask the hub."""

    def __init__(
        self,
        bundle: Callable[[], Bundle],
        now: Callable[[], datetime],
        why_banned: WhyBanned = nobody_is_banned,
    ) -> None:
        self._bundle = bundle
        self._now = now
        self._why_banned = why_banned

    async def certificate(self, der: bytes) -> Principal | None:
        found = identify(der, self._bundle(), self._now())
        if found is None or not found[0].path.startswith("/gateway/"):
            return None
        if (reason := self._why_banned(found[0], spki_hash(public_key(found[1])))) is not None:
            raise turned_away(reason)
        return Principal(str(found[0]), Access.PEER, *found)

    async def bearer(self, secret: str) -> Principal | None:
        return None
