"""How a process exchanges bundles with trust domains outside: its endpoint, its looks at others, and their routes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import structlog
from cryptography import x509

from federation.api.bundle_client import Endpoint, fetch, spiffe_context, web_context
from federation.api.bundle_endpoint import Bundles, bundle_application, web_server_context
from federation.api.bundle_routes import BundleRoutes
from federation.api.routes import Route
from federation.api.server import TcpDoor, serving
from federation.api.tls import served
from federation.bundle_settings import BundleEndpoint, Federated, of_base
from federation.clock import Clock
from federation.config import path_of
from federation.document.decode import render
from federation.errors import FederationError, InputError
from federation.foreign import Foreign
from federation.identity import Identity
from federation.outsiders import Outsiders
from pki.bundle import Bundle
from pki.spiffe import SpiffeId, TrustDomain

log = structlog.get_logger()


class BundleExchange:
    """Made before the process serves; `run` it for as long as it does. Bundles of others lie in `folder`, beside a note
    of whose bundles were fetched.
    """

    def __init__(
        self,
        endpoint: BundleEndpoint | None,
        federates: Sequence[Federated],
        own: TrustDomain,
        folder: Path,
        identity: Identity,
        bundles: Bundles,
        clock: Clock,
    ) -> None:
        self.foreign = Foreign(federates, folder, look_at, clock)
        self.foreign.load()
        self._outsiders = Outsiders(folder.with_name("fetched.json"), clock)
        self._outsiders.load()
        self._endpoint = endpoint
        self._own = own
        self._identity = identity
        self._bundles = bundles

    def routes(self) -> tuple[Route, ...]:
        return BundleRoutes(self.foreign).routes()

    def until(self, bundle: Bundle) -> datetime | None:
        """As `Outsiders.until`; nobody is waited for where nothing is served."""
        return None if self._endpoint is None else self._outsiders.until(bundle)

    async def run(self) -> None:
        """Serve and look, for ever. Raises FederationError if the endpoint cannot be served."""
        async with AsyncExitStack() as stack:
            if self._endpoint is not None:
                door = TcpDoor(self._endpoint.listen, self._tls(self._endpoint))
                application = bundle_application(self._own, self._bundles, self._outsiders.looked)
                (address,) = await stack.enter_async_context(serving(application, door))
                log.info("bundles are served", address=str(address), profile=self._endpoint.profile)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.foreign.run(), name="bundles outside")
                group.create_task(asyncio.Event().wait(), name="bundle endpoint")

    def _tls(self, endpoint: BundleEndpoint) -> ssl.SSLContext:
        if endpoint.certificate is None or endpoint.key is None:
            return served(self._identity, lambda: self._bundles()[self._own])
        try:
            return web_server_context(Path(endpoint.certificate), Path(endpoint.key))
        except (OSError, ssl.SSLError) as error:
            raise FederationError(
                f"{endpoint.certificate}, {endpoint.key}: not a certificate and its key: {error}",
                "give PEM files of a public CA in bundle_endpoint, or use the profile https_spiffe",
            ) from error


async def look_at(wanted: Federated, anchors: Sequence[x509.Certificate]) -> bytes:
    """One look at the endpoint of `wanted`, verified with `anchors` if it is https_spiffe. Raises BundleUnavailable."""
    if wanted.spiffe_id is not None:
        tls = spiffe_context(anchors, SpiffeId.parse(wanted.spiffe_id))
    else:
        tls = web_context(None if wanted.ca is None else Path(wanted.ca))
    return await fetch(Endpoint(wanted.url, tls, tuple(one.network for one in wanted.allow)))


def refuse_ours(federates: Sequence[Federated], base: str) -> None:
    """Raises InputError if settings that were read before `base` was known want a trust domain of ours."""
    for field, problem, allowed in of_base(federates, base):
        raise InputError(problem, file="the agent's settings", field=render(path_of(field)), allowed=allowed)
