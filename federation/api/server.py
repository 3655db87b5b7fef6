"""HTTP for the routes: a unix socket for whoever runs the process, HTTPS for everybody else.

On the unix socket the kernel says who calls, and only root and the process's own user are answered. Over HTTPS a
caller is known by a client certificate of this trust domain or by a bearer token. Health and metrics have a plain
listener of their own, which answers nothing else.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from aiohttp import web

from federation.api.routes import (
    Access,
    ApiProblem,
    Call,
    Principal,
    Problem,
    Route,
    encode,
    forbidden,
    openapi,
    unauthorized,
)
from federation.errors import FederationError
from federation.listen import CannotListen, HostPort, listen

MAX_BODY = 64 * 1024
"""Bytes of a request body; the largest legitimate one is a certificate request of a few KiB."""

REFUSED_AFTER = 0.1
"""Seconds after which every refusal of a token is answered, so that its time does not tell its cause."""

CLOSE_GRACE = 1.0
"""Seconds that open requests get when the process stops."""

log = structlog.get_logger()

PRINCIPAL = web.RequestKey("principal", Principal)


class Authenticator(Protocol):
    """Tells who a remote caller is. None means: nobody we know."""

    async def certificate(self, der: bytes) -> Principal | None: ...

    async def bearer(self, secret: str) -> Principal | None: ...


Health = Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
Metrics = Callable[[], Awaitable[bytes]]


def api_application(
    title: str, version: str, routes: Iterable[Route], authenticator: Authenticator
) -> web.Application:
    """The application that serves `routes` and their OpenAPI document at `/v1/openapi.json`."""
    routes = tuple(routes)
    document = msgspec.json.encode(openapi(title, version, routes))

    async def openapi_document(request: web.Request) -> web.Response:
        await _admit(request, Access.VIEWER, authenticator)
        return web.Response(body=document, content_type="application/json")

    app = web.Application(client_max_size=MAX_BODY, middlewares=[_problems])
    app.router.add_get("/v1/openapi.json", openapi_document)
    for route in routes:
        app.router.add_route(route.method, route.path, _endpoint(route, authenticator))
    return app


def _endpoint(route: Route, authenticator: Authenticator) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def endpoint(request: web.Request) -> web.Response:
        principal = await _admit(request, route.access, authenticator)
        if unknown := set(request.query) - set(route.query):
            allowed = ", ".join(route.query) or "none"
            raise ApiProblem(
                400, "bad-query", f"unknown query parameter {min(unknown)!r}", f"allowed: {allowed}"
            )
        body = await _body(request, route.request) if route.request is not None else None
        call = Call(principal, dict(request.match_info), dict(request.query), body)
        if route.access is Access.OUTCOME:
            return _json(200, await _unhurried(route, call))
        return _json(200, await route.handler(call))

    return endpoint


async def _unhurried(route: Route, call: Call) -> Any:
    """The answer at once, a refusal not before `REFUSED_AFTER`."""
    patience = asyncio.create_task(asyncio.sleep(REFUSED_AFTER), name="patience")
    try:
        return await route.handler(call)
    except ApiProblem:
        await patience
        raise
    finally:
        patience.cancel()


async def _body(request: web.Request, shape: type) -> Any:
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except msgspec.MsgspecError as error:
        raise ApiProblem(
            400, "bad-body", f"the body does not fit: {error}", "see /v1/openapi.json"
        ) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise ApiProblem(413, "too-large", f"the body is over {MAX_BODY // 1024} KiB") from error


async def _admit(request: web.Request, needed: Access, authenticator: Authenticator) -> Principal:
    """Who calls, if it may. Raises ApiProblem 401 or 403."""
    principal = await _principal(request, authenticator)
    if needed is Access.OUTCOME:
        return principal or Principal("anonymous", Access.OUTCOME)
    if principal is None:
        raise unauthorized()
    if needed is Access.PEER:
        if principal.identity is None:
            raise forbidden(needed, principal)
    elif principal.access < needed:
        raise forbidden(needed, principal)
    return principal


async def _principal(request: web.Request, authenticator: Authenticator) -> Principal | None:
    transport = request.transport
    if transport is None:
        return None
    opened: socket.socket | None = transport.get_extra_info("socket")
    if opened is not None and opened.family == socket.AF_UNIX:
        return _local(opened)
    if (tls := transport.get_extra_info("ssl_object")) is not None and (der := tls.getpeercert(True)):
        return await authenticator.certificate(der)
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return await authenticator.bearer(secret.strip()) if scheme.lower() == "bearer" and secret else None


def _local(opened: socket.socket) -> Principal | None:
    """The peer of a unix socket by SO_PEERCRED (socket(7)): root and our own user are operators, others nobody."""
    raw = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return Principal(f"uid {uid}", Access.OPERATOR) if uid in (0, os.geteuid()) else None


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal has the same shape; what nobody foresaw is logged here and answered without its insides."""
    try:
        return await handler(request)
    except ApiProblem as problem:
        return _json(problem.status, Problem(problem.code, str(problem), problem.hint))
    except FederationError as error:
        return _json(409, Problem("refused", str(error), error.hint))
    except web.HTTPException as error:
        return _json(error.status, Problem(error.reason.lower().replace(" ", "-"), error.reason))
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        return _json(
            500, Problem("internal", "this request failed inside the process", "its log has the reason")
        )


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=encode(value), content_type="application/json")


def health_application(healthy: Health, ready: Health, metrics: Metrics) -> web.Application:
    """`/healthz` (the process works), `/readyz` (it can do its job), `/metrics` (Prometheus text)."""

    def answer(check: Health) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answered(_: web.Request) -> web.Response:
            fine, detail = await check()
            return _json(200 if fine else 503, detail)

        return answered

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(
            body=await metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application(client_max_size=1024)
    app.router.add_get("/healthz", answer(healthy))
    app.router.add_get("/readyz", answer(ready))
    app.router.add_get("/metrics", exposition)
    return app


def with_health(app: web.Application, health: web.Application) -> web.Application:
    """The same three paths on the API's own doors."""
    for route in health.router.routes():
        if route.method == "GET" and route.resource is not None:
            app.router.add_get(route.resource.canonical, route.handler)
    return app


@asynccontextmanager
async def serving(app: web.Application, *doors: Door) -> AsyncIterator[tuple[HostPort | None, ...]]:
    """Serve `app` at `doors` for as long as the context lives; gives the bound address of each (None: unix)."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_GRACE)
    await runner.setup()
    try:
        yield tuple([await door.open(runner) for door in doors])
    finally:
        await runner.cleanup()
        for door in doors:
            door.close()


class Door(Protocol):
    """A place where an application is served."""

    async def open(self, runner: web.AppRunner) -> HostPort | None: ...

    def close(self) -> None: ...


class UnixDoor:
    """A unix socket, 0600 from its first moment. A stale one is replaced, a living one is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self, runner: web.AppRunner) -> None:
        if len(os.fsencode(self.path)) > 107:
            raise CannotListenUnix(
                self.path, "the path is over 107 bytes long (unix(7))", "choose a shorter directory"
            )
        if self.path.exists() and await self._answers():
            raise CannotListenUnix(
                self.path, "another process serves it", "stop it, or choose another directory"
            )
        self.path.unlink(missing_ok=True)
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            opened.bind(str(self.path))
        except OSError as error:
            opened.close()
            raise CannotListenUnix(self.path, error.strerror or "failed", "check the directory") from error
        finally:
            os.umask(before)
        opened.listen(64)
        opened.setblocking(False)
        await web.SockSite(runner, opened).start()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.path))
        except OSError:
            return False
        writer.close()
        return True

    def close(self) -> None:
        self.path.unlink(missing_ok=True)


class CannotListenUnix(FederationError):
    """The unix socket cannot be served."""

    def __init__(self, path: Path, why: str, hint: str) -> None:
        super().__init__(f"cannot listen on {path}: {why}", hint=hint)
        self.path = path


class TcpDoor:
    """A TCP address, with TLS if a context is given."""

    def __init__(self, address: HostPort, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.tls = tls

    async def open(self, runner: web.AppRunner) -> HostPort:
        opened = listen(self.address)
        bound = HostPort.of(self.address.host, opened.getsockname()[1])
        await web.SockSite(runner, opened, ssl_context=self.tls).start()
        return bound

    def close(self) -> None:
        """The runner has closed the socket."""


__all__ = [
    "Authenticator",
    "CannotListen",
    "TcpDoor",
    "UnixDoor",
    "api_application",
    "health_application",
    "serving",
    "with_health",
]
