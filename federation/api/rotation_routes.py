"""The rotation of a cluster's authority over REST, at its agent; the hub passes on what an operator of it wants."""

from __future__ import annotations

from federation.api.messages import Rotate, RotationStatus
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.rotating import Rotating
from pki.errors import Refused


class RotationRoutes:
    def __init__(self, rotating: Rotating) -> None:
        self._rotating = rotating

    def routes(self) -> tuple[Route, ...]:
        return (
            Route(
                "GET",
                "/v1/ca/rotation",
                "The rotation of this cluster's authority: its phase, and who holds it up",
                Access.VIEWER,
                self._status,
                RotationStatus,
            ),
            Route(
                "POST",
                "/v1/ca/rotation",
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
