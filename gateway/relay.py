"""Passes resources from the agent to Envoy, word for word, and Envoy's answers back.

- Forward first: what comes is published to Envoy's stream at once. The gateway adds its own `identity`, nothing else.
- The agent is answered when Envoy has settled the response (`settling`). While Envoy is down nothing is answered.
- What Envoy refuses is taken back: the last good version stays in place, for an Envoy that restarts too.
- What Envoy accepted goes to disk within `FLUSH_EVERY` seconds; secrets, which are anchors, are there before the agent
  is answered. Each type is settled for itself, so that a full disk keeps nothing but anchors waiting.
- Envoy is told that there is nothing of a type when the agent said so, now or before the last stop; never by silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from federation.clock import Clock
from federation.errors import StoreError
from gateway.settling import Settled, settled
from gateway.snapshot import SECRET, TYPES, Key, Resource, Snapshot, versions
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
    """A response that is not answered yet, without what is our own; and the number of the snapshot that has it."""

    response: Response
    published: int


class Relay:
    """`snapshots` is what Envoy shall have; `accepted` what it had last, which is what is on disk, or soon will be."""

    def __init__(self, store: ResourceStore, stored: Snapshot, clock: Clock) -> None:
        self.accepted = stored
        self.snapshots = Latest(stored)
        self.store_problem = ""
        self._store = store
        self._clock = clock
        self._own: set[Key] = set()
        self._open: dict[str, _Open] = {}
        self._unsettled: dict[str, set[str]] = {kind: set() for kind in TYPES}
        self._taken_back: dict[Key, str] = {}
        self._unwritten: dict[Key, Resource | None] = {}
        self._stored_types = frozenset(stored.types)
        self._envoy: Subscription | None = None
        self._moved = {kind: asyncio.Event() for kind in TYPES}
        self._writing = asyncio.Lock()

    @property
    def rejected(self) -> dict[Key, str]:
        """What Envoy refuses at present, and why; it may be from the agent, or from disk."""
        of_envoy = self._envoy.rejected() if self._envoy is not None else {}
        return {key: why.error for key, why in of_envoy.items()} | self._taken_back

    def add_own(self, resource: Resource) -> None:
        """A secret of this gateway alone. The agent can neither see nor replace it, and it is not stored here."""
        self._own.add(resource.key)
        self.snapshots.publish(self.snapshots.value.replace([resource], ()))

    def has_taken(self, secret: Resource) -> bool:
        """Whether Envoy says that it uses this secret of ours, or has no use for it; its silence says nothing."""
        if self._envoy is None:
            return False
        lane = self._envoy.lanes.get(SECRET)
        return lane is None or not lane.wants(secret.name) or lane.known.get(secret.name) == secret.version

    def held(self, kind: str) -> dict[str, str]:
        """What to claim when a stream to the agent begins. What came on an older stream is not answered any more.

        A version is claimed if it is acknowledged, or could be: of secrets, what is not on disk yet is not.
        """
        self._open.pop(kind, None)
        unwritten = {name for type_url, name in self._unwritten if type_url == kind == SECRET}
        claimed = versions(self.accepted.of(kind))
        return claimed | dict.fromkeys(self._unsettled[kind] | unwritten, _UNSETTLED)

    async def receive(self, response: Response) -> None:
        """A response of the agent."""
        kind = response.type_url
        put = tuple(resource for resource in response.put if resource.key not in self._own)
        removed = tuple(name for name in response.removed if (kind, name) not in self._own)
        snapshot = self.snapshots.value.replace(put, ((kind, name) for name in removed), (kind,))
        self._unsettled[kind].update(*((resource.name for resource in put), removed))
        self._open[kind] = _Open(Response(kind, response.nonce, put, removed), snapshot.number)
        self.snapshots.publish(snapshot)
        self._moved[kind].set()

    def envoy_said(self, subscription: Subscription | None) -> None:
        """Envoy's stream has moved on; None when it is gone."""
        self._envoy = subscription
        for kind in self._open:
            self._moved[kind].set()

    async def run(self, answer: Answer) -> None:
        """Settle, store and answer, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="relay-store")
            for kind in TYPES:
                group.create_task(self._settle_all(kind, answer), name=f"relay-{kind.rpartition('.')[2]}")

    async def _settle_all(self, kind: str, answer: Answer) -> None:
        while True:
            await self._moved[kind].wait()
            self._moved[kind].clear()
            if (entry := self._open.get(kind)) is None:
                continue
            outcome = settled(entry.response, entry.published, self._envoy)
            if outcome is None:
                continue
            self._settle(entry.response, outcome)
            if kind == SECRET:
                await self._write_until_done()
            if self._open.get(kind) is entry:
                del self._open[kind]
                await answer(entry.response, outcome.error())

    def _settle(self, response: Response, outcome: Settled) -> None:
        kind = response.type_url
        good = [resource for resource in response.put if resource.name not in outcome.refused]
        removed = [(kind, name) for name in response.removed]
        self.accepted = self.accepted.replace(good, removed, (kind,))
        for key in removed:
            self._unwritten[key] = None
        for resource in good:
            self._unwritten[resource.key] = resource
        for key in (*(resource.key for resource in good), *removed):
            self._taken_back.pop(key, None)
        self._unsettled[kind].difference_update(r.name for r in response.put)
        self._unsettled[kind].difference_update(response.removed)
        self._take_back(kind, outcome)

    def _take_back(self, kind: str, outcome: Settled) -> None:
        put: list[Resource] = []
        remove: list[Key] = []
        for name, error in outcome.refused.items():
            if self._taken_back.get((kind, name)) != error:
                log.warning("Envoy refused a resource", type=kind, resource=name, error=error)
            self._taken_back[kind, name] = error
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
            batch, types = dict(self._unwritten), frozenset(self.accepted.types)
            if batch or types != self._stored_types:
                put = [resource for resource in batch.values() if resource is not None]
                try:
                    await self._store.write(put, [key for key in batch if batch[key] is None], types)
                except StoreError as error:
                    if self.store_problem != str(error):
                        log.error("the last configuration cannot be stored", reason=str(error))
                    self.store_problem = str(error)
                    return False
                self._written(batch, types)
            self.store_problem = ""
            return True

    def _written(self, batch: Mapping[Key, Resource | None], types: frozenset[str]) -> None:
        """All of `batch` is on disk, except what was replaced while it was being written."""
        self._stored_types = types
        for key, resource in batch.items():
            if self._unwritten[key] is resource:
                del self._unwritten[key]
