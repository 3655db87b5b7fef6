"""HTTP for the routes: a unix socket for whoever runs the process, HTTPS for everybody else.

On the unix socket the kernel says who calls, and only root and the process's own user are answered. Over HTTPS a
caller is known by a client certificate of this trust domain or by a bearer token. No other origin's page may use what
a browser holds: a request that names another origin is refused, and a body counts only as JSON, which a page may not
send elsewhere unasked (fetch.spec.whatwg.org, CORS). Health and metrics have a plain listener of their own, which
answers nothing else but files that are public, as a revocation list is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog
from aiohttp import web

from federation.api.callers import ACTOR, Authenticator, address_of, admit
from federation.api.doors import PATIENCE, CannotListenUnix, TcpDoor, UnixDoor, serving
from federation.api.routes import (
    LOOKS,
    Access,
    ApiProblem,
    Call,
    Problem,
    Route,
    check_query,
    encode,
    openapi,
    repeated_name,
)
from federation.api.trail import Trail
from federation.errors import FederationError, InvalidValue
from pki.errors import PkiError, VaultError

MAX_BODY = 64 * 1024
"""Bytes of a request body; the largest legitimate one is a certificate request of a few KiB."""

REFUSED_AFTER = 0.1
"""Seconds after which every refusal of a token is answered, so that its time does not tell its cause."""

CHALLENGE = 'Bearer realm="federation"'
"""What a 401 must say (RFC 9110 §15.5.2); a client certificate is no scheme of HTTP."""

RIGHT_PROCESS = "hub, agents and gateways answer different questions; see that --hub means the right process"

log = structlog.get_logger()


Health = Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]
Metrics = Callable[[], Awaitable[bytes]]
File = Callable[[], tuple[str, bytes] | None]
"""Something that anybody may fetch: its media type and its bytes, None while there is none."""
Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]

AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
TRAIL = web.AppKey("trail", Trail)
ELSEWHERE = web.AppKey("elsewhere", ApiProblem)


def api_application(
    title: str,
    version: str,
    routes: Iterable[Route],
    authenticator: Authenticator,
    elsewhere: ApiProblem | None = None,
) -> web.Application:
    """The application that serves `routes` and their OpenAPI document at `/v1/openapi.json`; `elsewhere` is what it
    answers at any other path.
    """
    routes = tuple(routes)
    document = msgspec.json.encode(openapi(title, version, routes))

    async def openapi_document(_: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    app = web.Application(client_max_size=MAX_BODY, middlewares=[_problems, _same_origin])
    app[AUTHENTICATOR] = authenticator
    app[TRAIL] = Trail()
    app[ELSEWHERE] = elsewhere or ApiProblem(404, "not-found", "this process has no such path", RIGHT_PROCESS)
    app.router.add_get("/v1/openapi.json", _for_viewers(openapi_document, authenticator))
    for route in routes:
        app.router.add_route(route.method, route.path, _endpoint(route, authenticator))
    return app


def _endpoint(route: Route, authenticator: Authenticator) -> Endpoint:
    is_change = route.method != "GET" and route.access is Access.OPERATOR

    async def endpoint(request: web.Request) -> web.Response:
        principal = await admit(request, route.access, authenticator)
        check_query(route, [name for name, _ in request.query.items()])
        body = await _body(request, route) if route.request is not None else None
        call = Call(principal, dict(request.match_info), dict(request.query), body, address_of(request))
        if route.access is Access.OUTCOME:
            return _json(200, await _unhurried(route, call))
        answer = await route.handler(call)
        if is_change:
            request.app[TRAIL].changed(principal.name, request.method, request.path, route.told, answer, body)
        return _json(200, answer)

    return endpoint


async def _unhurried(route: Route, call: Call) -> Any:
    """The answer at once, a refusal not before `REFUSED_AFTER`. What fails here is nothing that a stranger may read."""
    patience = asyncio.create_task(asyncio.sleep(REFUSED_AFTER), name="patience")
    try:
        return await route.handler(call)
    except ApiProblem:
        await patience
        raise
    except (FederationError, PkiError) as error:
        log.error("a token could not be redeemed", path=route.path, problem=str(error))
        await patience
        raise ApiProblem(
            503, "unavailable", "this cannot be done now", "try again; the log of the process has the reason"
        ) from error
    finally:
        patience.cancel()


async def _body(request: web.Request, route: Route) -> Any:
    longest = route.longest or MAX_BODY
    if request.content_type != "application/json":
        raise ApiProblem(415, "not-json", "the body is not JSON", "send Content-Type: application/json")
    try:
        async with asyncio.timeout(PATIENCE):
            sent = await request.clone(client_max_size=longest).read()
        body: Any = msgspec.json.decode(sent, type=route.request)
        json.loads(sent, object_pairs_hook=_once)
        return body
    except TimeoutError as error:
        raise ApiProblem(408, "slow", f"the body did not come within {PATIENCE:g} s", "try again") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiProblem(
            400, "bad-body", f"the body does not fit: {error}", "see /v1/openapi.json"
        ) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise ApiProblem(413, "too-large", f"the body is over {longest // 1024} KiB") from error


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Two readers may take two different ones of a name that is there twice (RFC 8259 §4)."""
    if repeated := repeated_name(name for name, _ in pairs):
        raise ApiProblem(400, "bad-body", f"the body has {repeated!r} twice", "say it once")


def _for_viewers(endpoint: Endpoint, authenticator: Authenticator) -> Endpoint:
    async def admitted(request: web.Request) -> web.StreamResponse:
        await admit(request, Access.VIEWER, authenticator)
        return await endpoint(request)

    return admitted


@web.middleware
async def _problems(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    """Every refusal has the same shape; what nobody foresaw is logged here and answered without its insides."""
    try:
        return await handler(request)
    except ApiProblem as problem:
        if problem.status in (401, 403) or problem.code == "csr":
            _note_refusal(request, problem)
        answer = _json(problem.status, Problem(problem.code, str(problem), problem.hint))
        if problem.status == 401:
            answer.headers["WWW-Authenticate"] = CHALLENGE
        return answer
    except InvalidValue as error:
        return _json(400, Problem("bad-value", str(error), error.hint))
    except FederationError as error:
        return _json(409, Problem("refused", str(error), error.hint))
    except VaultError as error:
        return _json(503, Problem("vault", str(error), error.hint))
    except PkiError as error:
        return _json(409, Problem("refused", str(error)))
    except web.HTTPNotFound:
        told = request.app[ELSEWHERE]
        return _json(told.status, Problem(told.code, str(told), told.hint))
    except web.HTTPException as error:
        is_other = isinstance(error, web.HTTPMethodNotAllowed)
        code, hint = error.reason.lower().replace(" ", "-"), RIGHT_PROCESS if is_other else ""
        answer = _json(error.status, Problem(code, error.reason, hint))
        if is_other:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:  # aiohttp would answer in its own shape, and log what a stranger sent
        log.exception("request failed", method=request.method, path=request.path)
        return _json(
            500, Problem("internal", "this request failed inside the process", "its log has the reason")
        )


def _note_refusal(request: web.Request, problem: ApiProblem) -> None:
    """Of somebody unknown not even the path is written as he wrote it."""
    actor: str | None = request.get(ACTOR)
    resource = request.match_info.route.resource
    path = request.path if actor else resource.canonical if resource else "no path of ours"
    request.app[TRAIL].refused(actor, address_of(request), request.method, path, problem.status, str(problem))


@web.middleware
async def _same_origin(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("Host"):
        raise ApiProblem(403, "cross-origin", "a page of another origin may not use this API")
    return await handler(request)


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=encode(value), content_type="application/json")


def health_application(
    healthy: Health, ready: Health, metrics: Metrics, files: Mapping[str, File] | None = None
) -> web.Application:
    """`/healthz` (the process works), `/readyz` (it can do its job), `/metrics` (Prometheus text), and public files."""

    def answer(check: Health) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answered(_: web.Request) -> web.Response:
            fine, detail = await check()
            return _json(200 if fine else 503, detail)

        return answered

    def offer(file: File) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def offered(_: web.Request) -> web.Response:
            if (found := file()) is None:
                raise web.HTTPNotFound
            return web.Response(body=found[1], content_type=found[0])

        return offered

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(
            body=await metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application(client_max_size=1024)
    app.router.add_get("/healthz", answer(healthy))
    app.router.add_get("/readyz", answer(ready))
    app.router.add_get("/metrics", exposition)
    for path, file in (files or {}).items():
        app.router.add_get(path, offer(file))
    return app


def with_health(app: web.Application, health: web.Application) -> web.Application:
    """The same three paths on the API's own doors, there for whoever may look."""
    for route in health.router.routes():
        if route.method == "GET" and route.resource is not None and route.resource.canonical in LOOKS:
            path = route.resource.canonical
            app.router.add_get(path, _for_viewers(route.handler, app[AUTHENTICATOR]))
    return app


__all__ = [
    "Authenticator",
    "CannotListenUnix",
    "TcpDoor",
    "UnixDoor",
    "api_application",
    "health_application",
    "serving",
    "with_health",
]
