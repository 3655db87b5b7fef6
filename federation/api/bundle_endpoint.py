"""Serving our bundles to trust domains outside (SPIFFE Federation §5.2): one JWK set a trust domain, for anybody.

`/` is the bundle of this process's own trust domain, `/<trust domain>` that of each one that it may speak for: an agent
for its own, the hub for its own and its members'. Nobody has to say who he is, and nothing else is answered; that
somebody looked is noted, for then a new anchor has to be there for a while before it is used.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
from aiohttp import web

from pki.bundle import Bundle
from pki.spiffe import TrustDomain
from pki.spiffe_bundle import publish

log = structlog.get_logger()

Bundles = Callable[[], Mapping[TrustDomain, Bundle]]
Stamp = tuple[int, int, int]


def bundle_application(
    own: TrustDomain, bundles: Bundles, looked: Callable[[TrustDomain], Awaitable[None]] | None = None
) -> web.Application:
    """The newest version of each bundle, as it is when it is asked for; `looked` is told whose."""

    async def answer(request: web.Request) -> web.Response:
        wanted = request.match_info.get("domain", own.name)
        for domain, bundle in bundles().items():
            if domain.name == wanted:
                if looked is not None:
                    await looked(domain)
                return web.Response(body=publish(bundle), content_type="application/json")
        raise web.HTTPNotFound(text="no such trust domain")

    app = web.Application(client_max_size=1024)
    app.router.add_get("/", answer)
    app.router.add_get("/{domain}", answer)
    return app


def web_server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Shows the certificate in a file, and the newer one when the file has been replaced, as ACME clients do.

    A file that cannot be used leaves the one before in place, and is logged. Raises OSError or ssl.SSLError for the
    first.
    """
    outer = _server()
    stamp, context = _stamp(certificate, key), _loaded(certificate, key)

    def choose(connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        nonlocal stamp, context
        try:
            found = _stamp(certificate, key)
            if found != stamp:
                context, stamp = _loaded(certificate, key), found
        except (OSError, ssl.SSLError) as error:
            log.error("the certificate of the bundle endpoint cannot be used", reason=str(error))
        connection.context = context

    outer.sni_callback = choose
    return outer


def _loaded(certificate: Path, key: Path) -> ssl.SSLContext:
    context = _server()
    context.load_cert_chain(certificate, key)
    return context


def _server() -> ssl.SSLContext:
    """TLS 1.2 and up without a client certificate, as §5.2 demands of endpoints for everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _stamp(*files: Path) -> Stamp:
    found = [file.stat() for file in files]
    return (max(one.st_mtime_ns for one in found), sum(one.st_size for one in found), found[0].st_ino)
