"""Finds the hub again after it has replaced its authority while somebody was away.

Its anchors are public, and whoever brings them is not believed: over a connection that nobody has verified they count
if signatures lead to them from those that are pinned. Nothing is sent but the question.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

import msgspec
import structlog
from cryptography import x509

from federation.api.client import Target, connect
from federation.api.messages import Anchors
from federation.api.tls import unverified_context
from federation.clock import Clock
from federation.errors import FederationError
from federation.events import TrustTold
from federation.trust import Trust
from pki import bundle as bundles
from pki.bundle import Accepted, Bundle, accept, accept_from
from pki.errors import PkiError

LOOK_EVERY = 10.0
"""Seconds without a stream to the hub after which its anchors are looked up."""

log = structlog.get_logger()


async def fetch_anchors(url: str) -> Bundle:
    """What is said to be the bundle of the hub at `url`: not verified. Raises FederationError."""
    async with connect(Target(url, unverified_context())) as client:
        answer = await client.get("/v1/bundle")
    try:
        return bundles.decode(base64.b64decode(msgspec.convert(answer, Anchors).bundle, validate=True))
    except (msgspec.ValidationError, ValueError, binascii.Error, PkiError) as error:
        raise FederationError(f"{url} answers with anchors that cannot be read: {error}") from error


async def newer_anchors(url: str, pinned: Sequence[x509.Certificate]) -> Bundle | None:
    """The bundle of the hub at `url`, if it is another one than `pinned` and follows from it; None otherwise.

    Raises FederationError if there is no answer that can be read.
    """
    outcome = accept_from(pinned, await fetch_anchors(url))
    if isinstance(outcome, Accepted) and set(outcome.bundle.anchors) != set(pinned):
        return outcome.bundle
    return None


async def find_again(url: str, trust: Trust, connected: Callable[[], bool], clock: Clock) -> None:
    """While there is no stream to the hub, look whether it goes by newer anchors; for ever."""
    while True:
        await clock.sleep(LOOK_EVERY)
        if connected():
            continue
        try:
            offered = await fetch_anchors(url)
        except FederationError as error:
            log.debug("the anchors of the hub cannot be looked up", problem=str(error))
            continue
        outcome = accept(trust.hub, offered)
        if isinstance(outcome, Accepted) and outcome.changed:
            trust.hear(TrustTold(offered))
