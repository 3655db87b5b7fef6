"""Questions of the hub to agents, over their own streams: answered once, only by the one who was asked.

Most only read; a few change something that an operator of the hub may change there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count

from federation.errors import FederationError, Unreachable
from federation.sync import sync_pb2 as pb
from federation.sync.session import Session

LONGEST_PATH = 2048
"""Characters of the path of a question."""


@dataclass(frozen=True, slots=True)
class Question:
    """A call of an agent's own REST API; `body` is JSON, `actor` the operator of the hub who wants a change."""

    path: str
    method: str = "GET"
    body: bytes = b""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered: an HTTP status and a body of JSON."""

    status: int
    body: bytes


class Questions:
    """Those that are open."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._asked: dict[int, tuple[Session, asyncio.Future[Answer]]] = {}

    async def ask(self, session: Session, question: Question, seconds: float) -> Answer:
        """Raises Unreachable, or FederationError for what cannot be asked."""
        path = question.path
        if not path.startswith("/v1/") or len(path) > LONGEST_PATH:
            raise FederationError(f"cannot ask an agent for {path[:80]!r}", "ask for a path under /v1/")
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = (session, future)
        method = "" if question.method == "GET" else question.method
        directive = pb.Directive(
            id=number, path=path, method=method, body=question.body, actor=question.actor
        )
        session.say(("directive", number), pb.FromHub(directive=directive))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError as error:
            raise Unreachable(f"the agent of {session.cluster}", f"no answer within {seconds:g} s") from error
        finally:
            del self._asked[number]

    def answered(self, session: Session, report: pb.Report) -> None:
        """What `session` says to a question; nothing happens unless it was asked and has not answered yet."""
        asked, future = self._asked.get(report.id, (None, None))
        if asked is session and future is not None and not future.done():
            future.set_result(Answer(report.status, report.body))

    def ended(self, session: Session) -> None:
        """A stream ended: what it was asked has no answer."""
        for asked, future in tuple(self._asked.values()):
            if asked is session and not future.done():
                future.set_exception(Unreachable(f"the agent of {session.cluster}", "its stream ended"))
