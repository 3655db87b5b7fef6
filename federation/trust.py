"""What an agent recognises the hub and the roots by: what its join pinned, and what has followed from that since.

Newer versions come from a hub, which is not believed: they count by signatures that lead to them from what is held.
They are used at once, and are told to be held once they are on disk, so that nobody counts on what a crash takes away.
From what is on disk nothing leads back, whatever a hub says or withdraws.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from federation.clock import Clock
from federation.errors import FederationError
from federation.events import Event, TrustTold
from federation.held import Version
from federation.join import Membership
from pki import bundle as bundles
from pki import durable
from pki.bundle import UNNUMBERED, Accepted, Bundle, Rejected, accept, accept_roots
from pki.certificate import der, subject_key_id
from pki.errors import PkiError

FILE = "trust.json"
LONGEST_FILE = 512 * 1024
RETRY_AFTER = 1.0
"""Seconds between attempts to write what was told."""

log = structlog.get_logger()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`pinned` is the root (DER) that the join pinned from which the rest has followed."""

    pinned: bytes
    hub: bytes
    roots: bytes = b""


class Trust:
    """Made by `open`. Let it `hear` every event, and `run` it. `problem` is why what is used is not on disk yet."""

    def __init__(
        self, path: Path, pinned: x509.Certificate, hub: Bundle, roots: Bundle, clock: Clock
    ) -> None:
        self.hub = hub
        self.roots = roots
        self.issuing = b""
        """The key identifier of the root that signs now, as a hub says; empty if none has said."""
        self.problem: str | None = None
        self._path = path
        self._pinned = pinned
        self._clock = clock
        self._written = (hub, roots)
        self._wake = asyncio.Event()
        self._doubts: dict[str, str] = {}

    @classmethod
    def open(cls, folder: Path, member: Membership, clock: Clock) -> Trust:
        """What is on disk in the agent's `folder`, as far as it is newer than what was pinned by its newest join.

        Raises FederationError for a file that is damaged.
        """
        hub, roots = member.hub_bundle, member.roots
        path = folder / FILE
        if (kept := _read(path)) is not None:
            pinned, kept_hub, kept_roots = kept
            if kept_hub.version > hub.version:
                hub = kept_hub
            if kept_roots is not None and (pinned == der(member.root) or member.root in kept_roots.anchors):
                roots = kept_roots
        return cls(path, member.root, hub, roots, clock)

    @property
    def root(self) -> x509.Certificate:
        """The one that signs now, as far as that is known; for others to pin."""
        found = (root for root in self.roots.anchors if subject_key_id(root) == self.issuing)
        return next(found, self.roots.anchors[-1])

    def problems(self) -> tuple[str, ...]:
        """What a hub tells and is not believed."""
        return tuple(self._doubts.values())

    def accept(self, previous: Bundle | None, offered: Bundle) -> Accepted | Rejected:
        """Whether `offered` may be believed; `previous` is what is held of its trust domain if that is a cluster's."""
        if offered.trust_domain == self.hub.trust_domain:
            return self._noted(offered, accept(self.hub, offered, *self.roots.anchors))
        if offered.trust_domain == self.roots.trust_domain:
            return self._noted(offered, accept_roots(self.roots, offered))
        return accept(previous, offered, *self.roots.anchors)

    def _noted(self, offered: Bundle, outcome: Accepted | Rejected) -> Accepted | Rejected:
        """A hub that goes by other anchors than ours is an alarm, until it goes by ours again."""
        name = offered.trust_domain.name
        if isinstance(outcome, Accepted):
            self._doubts.pop(name, None)
        elif name not in self._doubts:
            log.error("other anchors are not believed", trust_domain=name, reason=str(outcome))
            self._doubts[name] = f"the hub tells other anchors of {name}, which are not believed: {outcome}"
        return outcome

    def hear(self, event: Event) -> None:
        """Go by what a hub has told, if it is news that follows from what is held."""
        if not isinstance(event, TrustTold):
            return
        offered = event.bundle
        outcome = self.accept(None, offered)
        if isinstance(outcome, Rejected):
            return
        if offered.trust_domain == self.roots.trust_domain:
            self.roots, self.issuing = outcome.bundle, event.issuing
        else:
            self.hub = outcome.bundle
        if outcome.changed:
            log.info(
                "newer anchors", trust_domain=str(offered.trust_domain), sequence=outcome.bundle.sequence
            )
            self._wake.set()

    def held(self) -> dict[str, Version]:
        """The versions that are on disk and in use, by trust domain; not of what has no number yet."""
        return {each.trust_domain.name: each.version for each in self._written if each.sequence != UNNUMBERED}

    async def run(self) -> None:
        """Write what was told, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.write()
                self.problem = None
            except PkiError as error:
                if self.problem is None:
                    log.error("newer anchors cannot be written; trying again", reason=str(error))
                self.problem = f"newer anchors of hub or root cannot be written: {error}"
                await self._clock.sleep(RETRY_AFTER)
                self._wake.set()

    async def write(self) -> None:
        """Make durable what is used. Raises WriteError."""
        wanted = self.hub, self.roots
        numbered = self.roots.sequence != UNNUMBERED
        roots = bundles.encode(self.roots) if numbered else b""
        file = _File(der(self._pinned), bundles.encode(self.hub), roots)
        await asyncio.to_thread(durable.write, self._path, msgspec.json.encode(file))
        self._written = wanted


def _read(path: Path) -> tuple[bytes, Bundle, Bundle | None] | None:
    try:
        file = msgspec.json.decode(durable.read_private(path, LONGEST_FILE), type=_File)
        roots = bundles.decode(file.roots, roots=True) if file.roots else None
        return file.pinned, bundles.decode(file.hub), roots
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, PkiError) as error:
        raise FederationError(
            f"{path} cannot be read: {error}", "put a backup of the agent's folder back; nothing was changed"
        ) from error
