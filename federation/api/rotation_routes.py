"""Rotations over REST: of a cluster's authority at its agent, of the hub's own and of the root at the hub.

The hub passes on what an operator of it wants of a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from federation.api.agents import ask_agent
from federation.api.messages import Rotate, RotationStatus
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.hub import Hub
from federation.questions import Question
from pki.errors import Refused

if TYPE_CHECKING:
    from federation.rotating import Rotating

STATUS = "/v1/ca/rotation"
ROOT = "/v1/root/rotation"


ELSEWHERE = {
    "vault": "its key is in Vault: replace it there (a new issuer in its mount), and let every cluster join again",
    "offline": "its key is in a safe: make another root there, and let every cluster join again",
}
"""What else can be done where the hub has no key of a root to replace."""


class HubRotationRoutes:
    """Those at the hub: `own` of its own authority, `root` of the root if its key is here, and of each cluster."""

    def __init__(self, hub: Hub, own: Rotating, root: Rotating | None, root_is: str) -> None:
        self._hub = hub
        self._own = RotationRoutes(own, "/v1/hub/rotation", "the hub's own authority")
        self._root = None if root is None else RotationRoutes(root, ROOT, "the root")
        self._root_is = root_is

    def routes(self) -> tuple[Route, ...]:
        if self._root is not None:
            root = self._root.routes()
        else:
            see, do = Access.VIEWER, Access.OPERATOR
            root = (
                Route("GET", ROOT, "The rotation of the root", see, self._not_here, RotationStatus),
                Route("POST", ROOT, "Not here", do, self._not_here, RotationStatus, request=Rotate),
            )
        return (
            *root,
            *self._own.routes(),
            Route(
                "GET",
                "/v1/clusters/{name}/rotation",
                "The rotation of a cluster's authority",
                Access.VIEWER,
                self._status,
                RotationStatus,
            ),
            Route(
                "POST",
                "/v1/clusters/{name}/rotation",
                "Start a rotation there, go on with it, turn it back, or renew all leaves",
                Access.OPERATOR,
                self._rotate,
                RotationStatus,
                request=Rotate,
                told=("action", "why", "number", "phase"),
            ),
        )

    async def _not_here(self, _: Call) -> RotationStatus:
        raise ApiProblem(
            409, "rotation", "this hub cannot replace the root: its key is not here", ELSEWHERE[self._root_is]
        )

    async def _status(self, call: Call) -> RotationStatus:
        return await self._ask(call, Question(STATUS))

    async def _rotate(self, call: Call) -> RotationStatus:
        body = msgspec.json.encode(call.body)
        return await self._ask(call, Question(STATUS, "POST", body, call.principal.name))

    async def _ask(self, call: Call, question: Question) -> RotationStatus:
        found: RotationStatus = await ask_agent(self._hub, call.params["name"], question, RotationStatus)
        return found


class RotationRoutes:
    """Of what one process drives itself, at `path`."""

    def __init__(
        self, rotating: Rotating, path: str = STATUS, what: str = "this cluster's authority"
    ) -> None:
        self._rotating = rotating
        self._path = path
        self._what = what

    def routes(self) -> tuple[Route, ...]:
        return (
            Route(
                "GET",
                self._path,
                f"The rotation of {self._what}: its phase, and who holds it up",
                Access.VIEWER,
                self._status,
                RotationStatus,
            ),
            Route(
                "POST",
                self._path,
                f"Start a rotation of {self._what}, go on with it, turn it back, or renew all leaves",
                Access.OPERATOR,
                self._rotate,
                RotationStatus,
                request=Rotate,
                told=("action", "why", "number", "phase"),
                inward=self._path == STATUS,
            ),
        )

    async def _status(self, _: Call) -> RotationStatus:
        return self._rotating.status()

    async def _rotate(self, call: Call) -> RotationStatus:
        wanted: Rotate = call.body
        try:
            match wanted.action:
                case "start":
                    await self._rotating.start(call.principal.name, wanted.why, wanted.manual)
                case "abort":
                    await self._rotating.abort()
                case "advance":
                    await self._rotating.go_on()
                case "leaves":
                    await self._rotating.renew_all()
        except Refused as error:
            raise ApiProblem(409, "rotation", str(error), "see `federation ca rotate … status`") from error
        return self._rotating.status()
