"""Tells everybody which bundles this cluster goes by, and signs it, as it comes to them through a hub.

Signed is what changed since the last time, by the authority that issues: whoever holds the anchors of its phase has its
anchor. A key that cannot sign now (a vault that is away) stops nothing else: the word goes out without a signature, so
that nobody goes by the one before, others wait, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

import structlog

from federation.clock import Clock
from federation.held import Held, Version, content, digest
from federation.sync.codec import HELD
from federation.sync.publisher import Publisher
from pki.bundle import Bundle
from pki.errors import PkiError
from pki.lineage import Lineage
from pki.statement import Kind

SIGN_AGAIN_AFTER = timedelta(seconds=10)
"""How long a key that could not sign is left alone."""

log = structlog.get_logger()


class Holding:
    """What `lineage` says through `publisher`. `problem` is why its newest word is not signed yet, None if it is."""

    def __init__(self, lineage: Lineage, publisher: Publisher, clock: Clock) -> None:
        self.problem: str | None = None
        self._lineage = lineage
        self._publisher = publisher
        self._clock = clock
        self._told: tuple[Held, int, int] | None = None
        self._made: dict[str, tuple[Bundle, bytes]] = {}
        self._count = 0
        self._ask_after = float("-inf")

    async def tell(
        self, versions: Mapping[str, Version], newest: Iterable[Bundle], roots: Iterable[bytes]
    ) -> None:
        """That this cluster goes by `versions`, by trust domain, where it knows the `newest`, and presents the word of
        `roots` (key identifiers).

        Nothing before the epoch is known in which it speaks: then it has nobody to speak to.
        """
        epoch, signer = self._publisher.feed.epoch, self._lineage.issuer
        bundles = tuple(sorted((name, *version) for name, version in versions.items()))
        said = Held(
            self._publisher.feed.owner, bundles, tuple(sorted(roots)), self._digests(versions, newest)
        )
        if epoch == 0 or (said, epoch, signer.epoch) == self._told:
            return
        now = self._clock.monotonic()
        if now < self._ask_after:
            return
        self._count += 1
        stamped = replace(said, stamp=(epoch, self._count))
        try:
            signature = await signer.sign_statement(Kind.HELD, content(stamped, self._lineage.trust_domain))
        except PkiError as error:
            if self.problem is None:
                log.error("what is held here cannot be signed; trying again", reason=str(error))
            self.problem = f"what is held here cannot be signed, so that rotations of others wait: {error}"
            self._ask_after = now + SIGN_AGAIN_AFTER.total_seconds()
            self._publisher.set(HELD, said)
            self._told = None
            return
        self.problem = None
        self._publisher.set(HELD, replace(stamped, signature=signature))
        self._told = said, epoch, signer.epoch

    def _digests(
        self, versions: Mapping[str, Version], newest: Iterable[Bundle]
    ) -> tuple[tuple[str, bytes], ...]:
        """Of those that are held and newest. What was made of a bundle is kept, as it is asked for each second."""
        before, self._made = self._made, {}
        for bundle in newest:
            name = bundle.trust_domain.name
            if versions.get(name) == bundle.version:
                known = before.get(name)
                fits = known is not None and known[0] is bundle
                self._made[name] = known if known and fits else (bundle, digest(bundle))
        return tuple(sorted((name, made) for name, (_, made) in self._made.items()))
