"""Whether the federation goes by the trust bundle of this cluster, and what follows where it does not.

Two copies may have been put back. A hub's registry from before a rotation knows us by anchors that we have left, and
refuses our certificate: it is brought our bundle, which leads on from those by their own signatures. Or this agent's
folder: then others hold a newer version, which follows from ours, and the key to go on with is not here. Nothing can
bring that back, so it is said, with what to do; what is served meanwhile goes on being served.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from federation.api.client import Target, connect
from federation.api.messages import HeldBundle, OfferedBundle
from federation.api.offer_routes import PATH
from federation.api.tls import client_context
from federation.clock import Clock
from federation.errors import FederationError
from federation.evidence import BundleOf, lack
from federation.held import Held
from federation.model import HUB, View
from federation.trust import Trust
from pki import bundle as bundles
from pki.algorithms import spki_hash
from pki.bundle import Accepted, Bundle, Rejected, accept, content
from pki.certificate import public_key
from pki.errors import PkiError
from pki.lineage import Lineage

LOOK_EVERY = 10.0
"""Seconds without a stream to the hub, or with one on which it refuses our bundle, after which it is brought to it."""

log = structlog.get_logger()


class Offering:
    """Of the agent in `folder`, which has authority and keys, to the hub whose REST API is at `url`. `view` has what
    others have signed that they hold.

    `problem` says that nobody goes by our bundle any more, and what to do.
    """

    def __init__(
        self,
        url: str,
        lineage: Lineage,
        folder: Path,
        trust: Trust,
        view: Callable[[], View],
        clock: Clock,
    ) -> None:
        self.problem: str | None = None
        self._url = url
        self._lineage = lineage
        self._folder = folder
        self._trust = trust
        self._view = view
        self._clock = clock

    async def run(self, welcome: Callable[[], bool]) -> None:
        """Look, for ever; `welcome` says whether the hub has a stream to us and takes what we publish of ourselves."""
        while True:
            await self._clock.sleep(LOOK_EVERY)
            await self.look(welcome())

    async def look(self, welcome: bool) -> None:
        """Compare what is held of us with what we hold, and bring the hub our bundle where it is not `welcome`."""
        ours = self._lineage.bundle()
        view = self._view()
        why = outdone(ours, view.held, view.bundles.get)
        if why is None and not welcome and self._url:
            try:
                theirs = await self._brought(ours)
            except (FederationError, PkiError) as error:
                log.debug("our trust bundle cannot be brought to the hub", problem=str(error))
                return
            why = disbelieved(ours, theirs, spki_hash(public_key(self._lineage.self_signed)), self._roots())
        found = None if why is None else f"{self._folder}: {why}; {self._remedy()}"
        if found is not None and found != self.problem:
            log.error("nobody goes by the trust bundle of this cluster", problem=found)
        self.problem = found

    async def _brought(self, ours: Bundle) -> Bundle:
        """What the hub goes by after it has seen our bundle. Raises FederationError, PkiError."""
        hub = self._trust.hub
        target = Target(self._url, client_context(hub.anchors), f"federation.{hub.trust_domain}")
        body = OfferedBundle(bundle=base64.b64encode(bundles.encode(ours)).decode())
        async with connect(target) as client:
            answer = await client.call("POST", PATH, body=body)
        try:
            return bundles.decode(base64.b64decode(msgspec.convert(answer, HeldBundle).bundle, validate=True))
        except (msgspec.ValidationError, ValueError, binascii.Error) as error:
            raise FederationError(
                f"{self._url} answers with a bundle that cannot be read: {error}"
            ) from error

    def _roots(self) -> Sequence[x509.Certificate]:
        return self._trust.roots.anchors

    def _remedy(self) -> str:
        name = self._lineage.trust_domain.name.partition(".")[0]
        return (
            "put the newest copy of the folder back; if there is none, at the hub "
            f"`federation token create {name} --replace-authority --out FILE`, and start the agent with that token and "
            "an empty folder"
        )


def outdone(ours: Bundle, told: Mapping[str, Held], bundle_of: BundleOf) -> str | None:
    """Why our bundle is not the newest, by what other clusters have signed, of whom `bundle_of` is held: we alone make
    versions of it, so who holds a later one had it from us. A hub's word is not enough, as it can show what it goes by.
    """
    later = [
        (version, name)
        for name, held in told.items()
        if name != HUB
        and (version := held.version(ours.trust_domain.name)) is not None
        and version > ours.version
        and lack(held, bundle_of(name)) is None
    ]
    if not later:
        return None
    newest, name = max(later)
    return (
        f"it is an old copy: it has {_at(ours.version)} of the trust bundle, and {name} holds {_at(newest)}"
    )


def disbelieved(ours: Bundle, theirs: Bundle, issuer: str, roots: Sequence[x509.Certificate]) -> str | None:
    """Why whoever goes by `theirs`, of our own trust domain, does not believe us. `issuer` is the key (SPKI hash) of
    our authority that issues. A later version than ours proves itself: only our own authority can have signed it, or
    the root one that took its place.
    """
    if content(ours) == content(theirs):
        return None
    if isinstance(accept(ours, theirs, *roots), Accepted):
        return (
            f"it is an old copy: it has {_at(ours.version)} of the trust bundle, and the hub goes by "
            f"{_at(theirs.version)}, which follows from that"
        )
    if issuer in {spki_hash(public_key(anchor)) for anchor in theirs.anchors}:
        return None
    outcome = accept(theirs, ours, *roots)
    if not isinstance(outcome, Rejected):
        return None
    return (
        f"its authority is not believed: the hub goes by {_at(theirs.version)} of the trust bundle, and what is here, "
        f"{_at(ours.version)}, does not follow from that ({outcome})"
    )


def _at(version: tuple[int, int]) -> str:
    return f"generation {version[0]}, sequence {version[1]}"
