"""Answering a path without HTTP: how an agent answers the hub's questions from its own routes, read-only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from federation.api.routes import Access, ApiProblem, Call, Principal, Problem, Route, encode, not_found
from federation.errors import FederationError
from pki.errors import PkiError


class Inward:
    """The GET routes that a viewer may ask."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path)), route)
            for route in routes
            if route.method == "GET" and route.access is Access.VIEWER
        ]

    async def answer(self, path: str) -> tuple[int, bytes]:
        """HTTP status and JSON body."""
        try:
            return 200, encode(await self._call(path))
        except ApiProblem as problem:
            return problem.status, _problem(problem.code, str(problem), problem.hint)
        except FederationError as error:
            return 409, _problem("refused", str(error), error.hint)
        except PkiError as error:
            return 409, _problem("refused", str(error), "")

    async def _call(self, path: str) -> Any:
        try:
            parts = urlsplit(path)
        except ValueError as error:
            raise ApiProblem(400, "bad-path", f"not a path: {error}") from error
        for pattern, route in self._routes:
            if (match := pattern.fullmatch(parts.path)) is not None:
                params = {name: unquote(value) for name, value in match.groupdict().items()}
                call = Call(Principal("the hub", Access.VIEWER), params, dict(parse_qsl(parts.query)))
                return await route.handler(call)
        raise not_found("path", parts.path)


def _problem(code: str, message: str, hint: str) -> bytes:
    return encode(Problem(code, message, hint))
