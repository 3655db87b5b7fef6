"""What hub and agents answer about bundles of trust domains outside."""

from __future__ import annotations

from federation.api.authority_info import ForeignInfo
from federation.api.routes import Access, Call, Route, not_found
from federation.foreign import Foreign


class BundleRoutes:
    """The routes of one process."""

    def __init__(self, foreign: Foreign) -> None:
        self._foreign = foreign

    def routes(self) -> tuple[Route, ...]:
        see, do = Access.VIEWER, Access.OPERATOR
        look = "/v1/bundles/{trust_domain}/look"
        return (
            Route("GET", "/v1/bundles", "Bundles of trust domains outside", see, self.held, tuple[ForeignInfo, ...]),
            Route("POST", look, "Fetch a bundle now", do, self.look, ForeignInfo, told=("trust_domain", "sequence")),
        )  # fmt: skip

    async def held(self, _: Call) -> tuple[ForeignInfo, ...]:
        return self._foreign.told()

    async def look(self, call: Call) -> ForeignInfo:
        found = await self._foreign.look(call.params["trust_domain"])
        if found is None:
            raise not_found(
                "trust domain",
                call.params["trust_domain"],
                "this process fetches what `federates` in its settings names",
            )
        return found
