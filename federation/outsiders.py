"""Which bundles trust domains outside fetch from this process, and how long the newest of each has been there.

Whoever fetches does not say who he is, so it is noted only that somebody did within a day, for each trust domain; the
note is on disk, no older than `NOTED_EVERY`. How long a bundle has been there is counted anew after a restart. Neither
goes by a wall clock that may jump, but where a restart lies in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from federation.clock import Clock
from federation.held import Version
from federation.onlookers import TIME_TO_LOOK
from pki import durable
from pki.bundle import Bundle
from pki.errors import WriteError
from pki.spiffe import TrustDomain

WITHIN = timedelta(days=1)
"""Who was silent for longer does not count."""
NOTED_EVERY = timedelta(hours=1)
RETRY_AFTER = timedelta(minutes=1)
"""Until a note that could not be written is tried again, by whoever looks next."""
LONGEST_FILE = 4 << 20
"""Bytes; the name of a trust domain has at most 255."""

log = structlog.get_logger()


class Outsiders:
    """`load` it, then tell it who `looked`; `noted` is the file."""

    def __init__(self, noted: Path, clock: Clock) -> None:
        self._noted = noted
        self._clock = clock
        self._looked: dict[str, float] = {}
        self._at_all = float("-inf")
        self._written: dict[str, float] = {}
        self._there: dict[TrustDomain, tuple[Version, float]] = {}
        self._writing = asyncio.Lock()

    def load(self) -> None:
        """Take up what is on disk. What cannot be read is as if somebody had just looked at everything: nothing is lost
        but time. Raises KeyFileError if others may write the file.
        """
        try:
            found = msgspec.json.decode(
                durable.read_private(self._noted, LONGEST_FILE), type=dict[str, datetime]
            )
        except FileNotFoundError:
            return
        except msgspec.MsgspecError as error:
            log.warning("who looks at bundles is not known", file=str(self._noted), reason=str(error))
            self._at_all = self._clock.running()
            return
        wall, running = self._clock.now(), self._clock.running()
        for name, at in found.items():
            ago = max(wall - at - NOTED_EVERY, timedelta()).total_seconds()
            self._looked[name] = running - ago

    async def looked(self, trust_domain: TrustDomain) -> None:
        """Somebody has fetched its bundle."""
        name, now = trust_domain.name, self._clock.running()
        self._looked[name] = now
        if now - self._written.get(name, -NOTED_EVERY.total_seconds()) >= NOTED_EVERY.total_seconds():
            self._written[name] = now
            if not await self._write():
                self._written[name] = now - (NOTED_EVERY - RETRY_AFTER).total_seconds()

    def until(self, bundle: Bundle) -> datetime | None:
        """Until when somebody who fetches this bundle may know none of its new anchors; None if nobody is waited for.

        To be asked again and again while `bundle` is the newest: its time begins with the first question.
        """
        now = self._clock.running()
        version, since = self._there.get(bundle.trust_domain, ((0, 0), now))
        if version != bundle.version:
            version, since = bundle.version, now
        self._there[bundle.trust_domain] = version, since
        left = TIME_TO_LOOK.total_seconds() - (now - since)
        if left <= 0 or not _adds(bundle) or not self._is_looked_at(bundle.trust_domain, now):
            return None
        return self._clock.now() + timedelta(seconds=left)

    def _is_looked_at(self, trust_domain: TrustDomain, now: float) -> bool:
        last = max(self._looked.get(trust_domain.name, self._at_all), self._at_all)
        return now - last < WITHIN.total_seconds()

    async def _write(self) -> bool:
        """Whether it is on disk."""
        async with self._writing:
            wall, running = self._clock.now(), self._clock.running()
            found: Mapping[str, datetime] = {
                name: wall - timedelta(seconds=running - at)
                for name, at in self._looked.items()
                if running - at < WITHIN.total_seconds()
            }
            try:
                await asyncio.to_thread(durable.write, self._noted, msgspec.json.encode(found))
            except WriteError as error:
                log.warning("who looks at bundles cannot be noted", reason=str(error))
                return False
            return True


def _adds(bundle: Bundle) -> bool:
    """Whether an anchor came with this version. Where nothing was before, or a key was lost or stolen, nobody waits."""
    known = {anchor for version in bundle.earlier for anchor in version.anchors}
    return bool(known) and not set(bundle.anchors) <= known
