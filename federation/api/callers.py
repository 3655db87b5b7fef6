"""Who calls: by the kernel at a unix socket, by certificate or bearer token elsewhere, and whether that may be.

Where a certificate is shown it alone counts: a bearer token beside it adds nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Protocol

from aiohttp import web

from federation.api.routes import Access, Principal, forbidden, unauthorized

ACTOR = web.RequestKey("actor", str)
"""The name of a caller who is known."""


class Authenticator(Protocol):
    """Tells who a remote caller is. None means: nobody we know."""

    async def certificate(self, der: bytes) -> Principal | None: ...

    async def bearer(self, secret: str) -> Principal | None: ...


async def admit(request: web.Request, needed: Access, authenticator: Authenticator) -> Principal:
    """Who calls, if it may. Raises ApiProblem 401 or 403."""
    if needed in (Access.ANYBODY, Access.OUTCOME):
        return Principal("anonymous", needed)
    principal = await _principal(request, authenticator)
    if principal is None:
        raise unauthorized(_shown(request))
    request[ACTOR] = principal.name
    if needed is Access.PEER:
        if principal.identity is None:
            raise forbidden(needed, principal)
    elif principal.access < needed:
        raise forbidden(needed, principal)
    return principal


async def _principal(request: web.Request, authenticator: Authenticator) -> Principal | None:
    """Root and our own user are operators at the unix socket, and others nobody."""
    if (uid := _user(request)) is not None:
        return Principal(f"unix:{uid}", Access.OPERATOR) if uid in (0, os.geteuid()) else None
    if (der := _certificate(request)) is not None:
        return await authenticator.certificate(der)
    secret = _bearer(request)
    return await authenticator.bearer(secret) if secret else None


def _user(request: web.Request) -> int | None:
    """The user at the other end of a unix socket, by SO_PEERCRED (socket(7)); None for a caller over TCP."""
    opened = request.get_extra_info("socket")
    if opened is None or opened.family != socket.AF_UNIX:
        return None
    raw = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return int(uid)


def _certificate(request: web.Request) -> bytes | None:
    tls = request.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(True)


def _bearer(request: web.Request) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _shown(request: web.Request) -> str | None:
    """By what an unknown caller wanted to be known."""
    if _user(request) is not None:
        return None
    if _certificate(request) is not None:
        return "certificate"
    return "bearer token" if _bearer(request) else None


def address_of(request: web.Request) -> str:
    """Where a call comes from, for the log."""
    return f"unix:{uid}" if (uid := _user(request)) is not None else request.remote or "somebody who is gone"
