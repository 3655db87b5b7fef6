"""The REST surface as data: what may be asked, by whom, and in which shape.

A route is a value; the server turns routes into handlers, `openapi` turns the same values into the document, so the
two cannot disagree. Handlers know nothing of HTTP: a `Call` comes in, a struct goes out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, assert_never

import msgspec
from cryptography import x509

from federation.errors import FederationError
from pki.spiffe import SpiffeId


class Access(IntEnum):
    """Who may call a route; a higher one includes the lower ones, except `PEER`, which is for certificates only.

    `ANYBODY` is for what is public and proves itself, whoever brings it. `OUTCOME` is for a caller that has nothing
    but a one-time token, and answers nothing but that token's outcome.
    """

    ANYBODY = -1
    OUTCOME = 0
    PEER = 1
    VIEWER = 2
    OPERATOR = 3


ROLES = {"viewer": Access.VIEWER, "operator": Access.OPERATOR}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a name for the log, what it may do, and its SPIFFE ID and certificate if it came with one.

    `through_hub`: an agent has only the hub's word that somebody calls.
    """

    name: str
    access: Access
    identity: SpiffeId | None = None
    certificate: x509.Certificate | None = None
    through_hub: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request: path parameters, query and the decoded body (None for a route without one). `address` is where it
    comes from, empty for one that did not come over a network.
    """

    principal: Principal
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    address: str = ""


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` has parameters in braces; a parameter matches one segment. `query` names the parameters allowed, `told`
    the fields of body and answer that are written to the log when an operator's change is done. A change that is
    `inward` may also come from an operator of the hub, through it. `longest` is in bytes of a body that may be longer
    than others.
    """

    method: str
    path: str
    summary: str
    access: Access
    handler: Handler
    response: Any
    request: Any = None
    query: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    inward: bool = False
    longest: int | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{(\w+)\}", self.path))


class ApiProblem(FederationError):
    """A refused call: HTTP status, a stable code, one sentence, and what to do."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


def unauthorized(shown: str | None = None) -> ApiProblem:
    """Nobody that is known calls; `shown` is what he showed to be known by, if anything."""
    wanted = "this call needs an operator's certificate or bearer token"
    return ApiProblem(
        401,
        "unauthorized",
        wanted
        if shown is None
        else f"{wanted}, and the {shown} shown is not known here: removed, expired, or of somebody else",
        "use the unix socket on the same machine, or create one there with `federation operator create`",
    )


def forbidden(needed: Access, principal: Principal) -> ApiProblem:
    if needed is Access.PEER:
        return ApiProblem(
            403,
            "forbidden",
            "this call is for the certificate that its caller shows, and none was shown",
            "call with a client certificate",
        )
    return ApiProblem(
        403,
        "forbidden",
        f"{principal.name} may not do this: it needs the role {needed.name.lower()}",
        "ask an operator of the hub",
    )


def turned_away(reason: str) -> ApiProblem:
    """Somebody who is known, and banned."""
    return ApiProblem(403, "banned", reason, "an operator of the hub may take it back: federation ca unban")


def not_found(kind: str, name: str, hint: str = "") -> ApiProblem:
    return ApiProblem(404, "not-found", f"there is no {kind} {name!r}", hint)


def check_query(route: Route, query: Iterable[str]) -> None:
    """Raise ApiProblem for a parameter that `route` does not have, as a misspelt one must not count as none, or that is
    there twice, as nobody could say which one counts.
    """
    query = tuple(query)
    if unknown := set(query) - set(route.query):
        allowed = ", ".join(route.query) or "none"
        raise ApiProblem(400, "bad-query", f"unknown query parameter {min(unknown)!r}", f"allowed: {allowed}")
    if repeated := repeated_name(query):
        raise ApiProblem(400, "bad-query", f"query parameter {repeated!r} is there twice", "say it once")


def repeated_name(names: Iterable[str]) -> str | None:
    """The first name that is there for the second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


class Problem(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    code: str
    message: str
    hint: str = ""


def encode(value: Any) -> bytes:
    """JSON, the same on every way out; a parsed setting (a name, an address) is its text."""
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")


def openapi(title: str, version: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    routes = tuple(routes)
    types = [kind for route in routes for kind in (route.request, route.response) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        [*types, Problem], ref_template="#/components/schemas/{name}"
    )
    found = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route)
        if route.request is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": next(found)}},
            }
        operation["responses"]["200"]["content"] = {"application/json": {"schema": next(found)}}
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    paths |= {path: {"get": _look(path, summary)} for path, summary in LOOKS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


LOOKS = {
    "/healthz": "Whether the process works",
    "/readyz": "Whether it can do its job",
    "/metrics": "Metrics, in the text format of Prometheus",
    "/v1/openapi.json": "This document",
}
"""What every process answers to viewers besides its routes."""


def _look(path: str, summary: str) -> dict[str, Any]:
    operation = _outline("GET", path, summary, Access.VIEWER)
    content: dict[str, Any] = {"text/plain" if path == "/metrics" else "application/json": {"schema": {}}}
    operation["responses"]["200"]["content"] = content
    if path in ("/healthz", "/readyz"):
        operation["responses"]["503"] = {"description": "not so", "content": content}
    return operation


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "certificate": {"type": "mutualTLS"},
}


def _operation(route: Route) -> dict[str, Any]:
    operation = _outline(route.method, route.path, route.summary, route.access)
    operation["parameters"] = [
        *(
            {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
            for n in route.parameters
        ),
        *({"name": n, "in": "query", "schema": {"type": "string"}} for n in route.query),
    ]
    return operation


def _outline(method: str, path: str, summary: str, access: Access) -> dict[str, Any]:
    problem = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": f"{method.lower()}{re.sub(r'[^a-z0-9]+', '_', path)}",
        "responses": {
            "200": {"description": "done"},
            "default": {"description": "refused, with the reason and what to do", **problem},
        },
    }
    match access:
        case Access.ANYBODY | Access.OUTCOME:
            return operation | {"security": []}
        case Access.PEER:
            needs = "For the certificate that its caller shows."
            return operation | {"security": [{"certificate": []}], "description": needs}
        case Access.VIEWER | Access.OPERATOR:
            needs = f"Needs the role {access.name.lower()}."
            return operation | {"security": [{"certificate": []}, {"bearer": []}], "description": needs}
        case _:
            assert_never(access)
