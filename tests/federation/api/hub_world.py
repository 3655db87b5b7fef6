"""The routes of a hub that nobody has joined, for what is true of routes without calling them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from federation.api.ceremony_routes import CeremonyRoutes
from federation.api.hub_routes import HubRoutes
from federation.api.offer_routes import OfferRoutes
from federation.api.routes import Route


def hub_routes() -> tuple[Route, ...]:
    """The routes as values. None of their parts is there, so none can be called."""
    nothing = cast(Any, None)
    hub = cast(Any, SimpleNamespace(why_banned=nothing))
    routes = HubRoutes(
        hub, nothing, nothing, nothing, nothing, nothing, nothing, "https://hub:8443", "hub:8444", nothing
    )
    return (*routes.routes(), *CeremonyRoutes(nothing, nothing).routes(), *OfferRoutes(nothing).routes())
