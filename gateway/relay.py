"""Passes resources from the agent to Envoy, word for word, and Envoy's answers back.

- Forward first: what comes is published to Envoy's stream at once. The gateway adds its own `identity`, nothing else.
- The agent is answered when Envoy has settled the response (`settling`). While Envoy is down nothing is answered.
- What Envoy refuses is taken back: the last good version stays in place, for an Envoy that restarts too.
- What Envoy accepted goes to disk within `FLUSH_EVERY` seconds; anchors are there before the agent is answered.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from federation.clock import Clock
from federation.errors import StoreError
from gateway.settling import Settled, settled
from gateway.snapshot import SECRET, Key, Resource, Snapshot, versions
from gateway.store import ResourceStore
from gateway.xds.latest import Latest
from gateway.xds.messages import Response
from gateway.xds.protocol import Subscription

FLUSH_EVERY = 0.5
"""Seconds between two writes to disk."""

_UNSETTLED = "?"
"""The version that is claimed to the agent for what Envoy has not settled: never that of any resource."""

log = structlog.get_logger()

Answer = Callable[[Response, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Open:
    """A response that is not answered yet, and the number of the snapshot that has it."""

    response: Response
    published: int


class Relay:
    """`snapshots` is what Envoy shall have; `accepted` what it had last, which is what is on disk, or soon will be."""

    def __init__(self, store: ResourceStore, stored: Iterable[Resource], clock: Clock) -> None:
        self.accepted = Snapshot().replace(stored, ())
        self.snapshots = Latest(self.accepted)
        self.rejected: dict[Key, str] = {}
        self.store_problem = ""
        self._store = store
        self._clock = clock
        self._own: set[Key] = set()
        self._open: dict[str, _Open] = {}
        self._unsettled: dict[str, set[str]] = defaultdict(set)
        self._unwritten: set[Key] = set()
        self._envoy: Subscription | None = None
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    def add_own(self, resource: Resource) -> None:
        """A secret of this gateway alone. The agent can neither see nor replace it, and it is not stored here."""
        self._own.add(resource.key)
        self.snapshots.publish(self.snapshots.value.replace([resource], ()))

    def held(self, type_url: str) -> dict[str, str]:
        """What to claim when a stream to the agent begins. What came on an older stream is not answered any more."""
        self._open.pop(type_url, None)
        claimed = versions(self.accepted.of(type_url))
        return claimed | dict.fromkeys(self._unsettled[type_url], _UNSETTLED)

    async def receive(self, response: Response) -> None:
        """A response of the agent."""
        kind = response.type_url
        put = [resource for resource in response.put if resource.key not in self._own]
        removed = [(kind, name) for name in response.removed if (kind, name) not in self._own]
        snapshot = self.snapshots.value.replace(put, removed)
        self._unsettled[kind].update(resource.name for resource in put)
        self._unsettled[kind].update(name for _, name in removed)
        self._open[kind] = _Open(response, snapshot.number)
        self.snapshots.publish(snapshot)
        self._wake.set()

    def envoy_said(self, subscription: Subscription | None) -> None:
        """Envoy's stream has moved on; None when it is gone."""
        self._envoy = subscription
        if self._open:
            self._wake.set()

    async def run(self, answer: Answer) -> None:
        """Settle, store and answer, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="relay-store")
            while True:
                await self._wake.wait()
                self._wake.clear()
                for kind, entry in list(self._open.items()):
                    outcome = settled(entry.response, entry.published, self._envoy)
                    if outcome is not None and self._open.get(kind) is entry:
                        del self._open[kind]
                        await self._settle(entry.response, outcome, answer)

    async def _settle(self, response: Response, outcome: Settled, answer: Answer) -> None:
        kind = response.type_url
        good = [r for r in response.put if r.name not in outcome.refused and r.key not in self._own]
        removed = [(kind, name) for name in response.removed if (kind, name) not in self._own]
        self.accepted = self.accepted.replace(good, removed)
        self._unwritten.update([*(r.key for r in good), *removed])
        for key in (*(r.key for r in response.put), *removed):
            self.rejected.pop(key, None)
            self._unsettled[kind].discard(key[1])
        self._take_back(kind, outcome)
        if kind == SECRET and good:
            await self._write_until_done()
        await answer(response, outcome.error())

    def _take_back(self, kind: str, outcome: Settled) -> None:
        put: list[Resource] = []
        remove: list[Key] = []
        for name, error in outcome.refused.items():
            log.warning("Envoy refused a resource", type=kind, resource=name, error=error)
            self.rejected[kind, name] = error
            if (before := self.accepted.get(kind, name)) is not None:
                put.append(before)
            else:
                remove.append((kind, name))
        self.snapshots.publish(self.snapshots.value.replace(put, remove))

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_EVERY)
            await self.flush()

    async def _write_until_done(self) -> None:
        while not await self.flush():
            await self._clock.sleep(FLUSH_EVERY)

    async def flush(self) -> bool:
        """Write what Envoy accepted; False if it could not be written, which is tried again."""
        async with self._writing:
            keys, self._unwritten = self._unwritten, set()
            found = {key: self.accepted.get(*key) for key in keys}
            put = [resource for resource in found.values() if resource is not None]
            try:
                if keys:
                    await self._store.write(put, [key for key, resource in found.items() if resource is None])
            except StoreError as error:
                self._unwritten |= keys
                if self.store_problem != str(error):
                    log.error("the last configuration cannot be stored", reason=str(error))
                self.store_problem = str(error)
                return False
            self.store_problem = ""
            return True
