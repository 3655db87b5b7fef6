"""The rotation of a cluster's authority over REST, at its agent; the hub passes on what an operator of it wants."""

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


class HubRotationRoutes:
    """The same for each cluster, at the hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def routes(self) -> tuple[Route, ...]:
        return (
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

    async def _status(self, call: Call) -> RotationStatus:
        return await self._ask(call, Question(STATUS))

    async def _rotate(self, call: Call) -> RotationStatus:
        body = msgspec.json.encode(call.body)
        return await self._ask(call, Question(STATUS, "POST", body, call.principal.name))

    async def _ask(self, call: Call, question: Question) -> RotationStatus:
        found: RotationStatus = await ask_agent(self._hub, call.params["name"], question, RotationStatus)
        return found


class RotationRoutes:
    def __init__(self, rotating: Rotating) -> None:
        self._rotating = rotating

    def routes(self) -> tuple[Route, ...]:
        return (
            Route(
                "GET",
                STATUS,
                "The rotation of this cluster's authority: its phase, and who holds it up",
                Access.VIEWER,
                self._status,
                RotationStatus,
            ),
            Route(
                "POST",
                STATUS,
                "Start a rotation, go on with it, turn it back, or renew all leaves",
                Access.OPERATOR,
                self._rotate,
                RotationStatus,
                request=Rotate,
                told=("action", "why", "number", "phase"),
                inward=True,
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
            raise ApiProblem(
                409, "rotation", str(error), "see `federation ca rotate cluster status`"
            ) from error
        return self._rotating.status()
