"""Rotations over REST: of a cluster's authority at its agent, of the hub's own and of the root at the hub.

The hub passes on what an operator of it wants of a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from federation.api.agents import ask_agent
from federation.api.messages import Rotate, RotationStatus
from federation.api.routes import Access, ApiProblem, Call, Route, not_found
from federation.hub import Hub
from federation.orders import Orders
from federation.questions import Question
from federation.reason import ALLOWED, why_unspeakable
from pki.errors import Refused

if TYPE_CHECKING:
    from federation.rotating import Rotating

STATUS = "/v1/ca/rotation"
ROOT = "/v1/root/rotation"
OF_CLUSTER = "/v1/clusters/{name}/rotation"

NAME_IT = "number and phase are missing: those of the rotation as you saw it, so that no other step is taken"

ELSEWHERE = {
    "vault": "its key is in the PKI engine of Vault, which signs certificates only, and nothing by which members could "
    "follow to another root: make another issuer there, and let every cluster join again. A root that the hub makes "
    "itself, with its key in Transit (`root: online` with `keys.vault`), is replaced by this command",
}
"""What else can be done where no root can be replaced from here."""


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
                OF_CLUSTER,
                "The rotation of a cluster's authority",
                Access.VIEWER,
                self._status,
                RotationStatus,
            ),
            Route(
                "POST",
                OF_CLUSTER,
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
    """Of what one process drives itself, at `path`; that of `cluster` also where the hub has it, so that the same
    commands do at both. What comes through the hub is one of `orders`.
    """

    def __init__(
        self,
        rotating: Rotating,
        path: str = STATUS,
        what: str = "this cluster's authority",
        cluster: str | None = None,
        orders: Orders | None = None,
    ) -> None:
        self._rotating = rotating
        self._orders = orders
        self._path = path
        self._what = what
        self._cluster = cluster

    def routes(self) -> tuple[Route, ...]:
        return tuple(route for path in self._paths() for route in self._at(path))

    def _paths(self) -> tuple[str, ...]:
        return (self._path,) if self._cluster is None else (self._path, OF_CLUSTER)

    def _at(self, path: str) -> tuple[Route, ...]:
        return (
            Route(
                "GET",
                path,
                f"The rotation of {self._what}: its phase, and who holds it up",
                Access.VIEWER,
                self._status,
                RotationStatus,
            ),
            Route(
                "POST",
                path,
                f"Start a rotation of {self._what}, go on with it, turn it back, or renew all leaves",
                Access.OPERATOR,
                self._rotate,
                RotationStatus,
                request=Rotate,
                told=("action", "why", "number", "phase"),
                inward=path == STATUS,
            ),
        )

    async def _status(self, call: Call) -> RotationStatus:
        self._refuse_others(call)
        return self._rotating.status()

    def _refuse_others(self, call: Call) -> None:
        asked = call.params.get("name", self._cluster)
        if asked != self._cluster:
            raise not_found(
                "cluster", str(asked), f"this is the agent of {self._cluster}; ask the hub, or that agent"
            )

    async def _rotate(self, call: Call) -> RotationStatus:
        self._refuse_others(call)
        if fault := why_unspeakable(call.body.why):
            raise ApiProblem(400, "bad-value", f"why: {fault}", f"allowed: {ALLOWED}")
        if self._orders is None or not call.principal.through_hub:
            return await self._do(call)
        async with self._orders.obeying(call.body.action, lambda: self._rotating.ordered):
            return await self._do(call)

    async def _do(self, call: Call) -> RotationStatus:
        wanted, caller = call.body, call.principal
        look = f"see where it is: {self._rotating.command('status')}"
        try:
            match wanted.action:
                case "start":
                    await self._rotating.start(caller.name, wanted.why, wanted.manual, caller.through_hub)
                case "abort" | "advance":
                    if wanted.number is None or wanted.phase is None:
                        raise ApiProblem(400, "bad-body", NAME_IT, look)
                    do = self._rotating.abort if wanted.action == "abort" else self._rotating.go_on
                    await do(wanted.number, wanted.phase)
                case "leaves":
                    await self._rotating.renew_all()
        except Refused as error:
            raise ApiProblem(
                409, "rotation", str(error), look if error.field == "rotation" else ""
            ) from error
        return self._rotating.status()
