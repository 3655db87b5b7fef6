"""Answering without HTTP: how an agent answers the hub's questions from its own routes.

What may be asked is what a viewer may see, with the parameters that the route names, and the few changes that are
marked as `inward`; everything else is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
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
from federation.api.trail import Trail
from federation.errors import FederationError
from federation.questions import Question

LONGEST_NAME = 63
CONFLICT = 409

log = structlog.get_logger()


class Inward:
    """The routes that a viewer may GET, and those of changes that come from operators of the hub, too."""

    def __init__(self, routes: Iterable[Route], trail: Trail | None = None) -> None:
        self._trail = trail or Trail()
        self._routes = [
            (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path)), route)
            for route in routes
            if route.inward or (route.method == "GET" and route.access is Access.VIEWER)
        ]

    async def answer(self, question: Question) -> tuple[int, bytes]:
        """HTTP status and JSON body. What nobody foresaw is logged here and answered without its insides."""
        path = question.path
        try:
            return 200, encode(await self._call(question))
        except ApiProblem as problem:
            return problem.status, _problem(problem.code, str(problem), problem.hint)
        except FederationError as error:
            return CONFLICT, _problem("refused", str(error), error.hint)
        except Exception:  # without an answer the hub, and whoever asked it, would wait in vain
            log.exception("a question of the hub failed", path=path)
            return 500, _problem(
                "internal", "this question failed inside the agent", "its log has the reason"
            )

    async def _call(self, question: Question) -> Any:
        path = question.path
        try:
            parts = urlsplit(path)
        except ValueError:
            raise not_found("path", path) from None
        for pattern, route in self._routes:
            if route.method != question.method:
                continue
            if not (parts.scheme or parts.netloc) and (match := pattern.fullmatch(parts.path)) is not None:
                params = {name: unquote(value) for name, value in match.groupdict().items()}
                query = parse_qsl(parts.query, keep_blank_values=True)
                check_query(route, [name for name, _ in query])
                if route.request is None:
                    return await route.handler(Call(_viewer(), params, dict(query)))
                return await self._change(route, Call(_operator(question), params, dict(query)), question)
        raise not_found("path", parts.path)

    async def _change(self, route: Route, call: Call, question: Question) -> Any:
        try:
            body = msgspec.json.decode(question.body, type=route.request)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ApiProblem(400, "bad-body", str(error)) from error
        try:
            answer = await route.handler(replace(call, body=body))
        except FederationError as error:
            refused = error.status if isinstance(error, ApiProblem) else CONFLICT
            self._trail.refused(None, call.principal.name, route.method, question.path, refused, str(error))
            raise
        self._trail.changed(call.principal.name, route.method, question.path, route.told, answer, body)
        return answer


def _viewer() -> Principal:
    return Principal("the hub", Access.VIEWER)


def _operator(question: Question) -> Principal:
    """The name is only ever shown: no right follows from it."""
    who = f"{question.actor[:LONGEST_NAME] or 'somebody'} (at the hub)"
    return Principal(who, Access.OPERATOR, through_hub=True)


def _problem(code: str, message: str, hint: str) -> bytes:
    return encode(Problem(code, message, hint))
