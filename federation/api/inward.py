"""Answering a path without HTTP: how an agent answers the hub's questions from its own routes, read-only.

What may be asked is what a viewer may see, with the parameters that the route names; everything else is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import structlog

from federation.api.routes import (
    Access,
    ApiProblem,
    Call,
    Principal,
    Problem,
    Route,
    check_query,
    encode,
    not_found,
)
from federation.errors import FederationError

log = structlog.get_logger()


class Inward:
    """The GET routes that a viewer may ask."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path)), route)
            for route in routes
            if route.method == "GET" and route.access is Access.VIEWER
        ]

    async def answer(self, path: str) -> tuple[int, bytes]:
        """HTTP status and JSON body. What nobody foresaw is logged here and answered without its insides."""
        try:
            return 200, encode(await self._call(path))
        except ApiProblem as problem:
            return problem.status, _problem(problem.code, str(problem), problem.hint)
        except FederationError as error:
            return 409, _problem("refused", str(error), error.hint)
        except Exception:  # without an answer the hub, and whoever asked it, would wait in vain
            log.exception("a question of the hub failed", path=path)
            return 500, _problem(
                "internal", "this question failed inside the agent", "its log has the reason"
            )

    async def _call(self, path: str) -> Any:
        try:
            parts = urlsplit(path)
        except ValueError:
            raise not_found("path", path) from None
        for pattern, route in self._routes:
            if not (parts.scheme or parts.netloc) and (match := pattern.fullmatch(parts.path)) is not None:
                params = {name: unquote(value) for name, value in match.groupdict().items()}
                query = parse_qsl(parts.query, keep_blank_values=True)
                check_query(route, [name for name, _ in query])
                return await route.handler(Call(Principal("the hub", Access.VIEWER), params, dict(query)))
        raise not_found("path", parts.path)


def _problem(code: str, message: str, hint: str) -> bytes:
    return encode(Problem(code, message, hint))
