"""What an agent knows, on disk, so that it starts without the hub.

Rows are single facts; a change costs what it changes. Facts of an owner are stored before the cursor that promises
them: after a crash the agent asks for a little too much, never for too little.

    heard/<owner>/<key>      a relayed entry and its position
    cursor/<owner>           how far the word of an owner is complete
    port/<ns>/<name>         the listen ports of an imported service
    first/<ns>/<name>        when an own export was first seen
    local/<ns>/<name>        a service of this cluster, as it was found last
    gateway/<name>           a gateway of this cluster
    epoch                    our own
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from uuid import uuid4

import msgspec
import structlog

from federation.errors import FederationError
from federation.model import ListenPort, LocalService, OwnGateway, Position, Service
from federation.store import Change, Committed, Row, Store, Unknown
from federation.store.contract import LARGEST, MOST_KEYS
from federation.sync.importer import Heard

FLUSH_EVERY = 0.5
"""Seconds for which changes are collected; a crash repeats at most so much."""

BATCH_BYTES = 512 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Remembered:
    """All that was on disk."""

    epoch: int = 0
    heard: tuple[Heard, ...] = ()
    cursors: Mapping[str, Position] = field(default_factory=dict)
    ports: Mapping[Service, Mapping[int, ListenPort]] = field(default_factory=dict)
    first_exported: Mapping[Service, datetime] = field(default_factory=dict)
    gateways: Mapping[str, OwnGateway] = field(default_factory=dict)
    local: Mapping[Service, LocalService] = field(default_factory=dict)


class Knowledge:
    """Collects what changed and writes it in the background; a store that cannot is logged and asked again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._put: dict[str, bytes] = {}
        self._cursors: dict[str, bytes] = {}
        self._delete: set[str] = set()
        self._wake = asyncio.Event()
        self.problem: str | None = None

    async def load(self) -> Remembered:
        """Everything on disk. Raises StoreError, or FederationError for a row that makes no sense."""
        image = await self._store.load("")
        try:
            return _remembered(image.rows)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise FederationError(
                f"what this agent knew cannot be read: {error}",
                "put a backup of the agent's folder back; nothing was changed",
            ) from error

    async def raise_epoch(self, epoch: int) -> None:
        """Make `epoch` durable; only then may anything be published in it."""
        await self._commit(Change(uuid4().hex, put={"epoch": str(epoch).encode()}))

    def hear(self, heard: Heard) -> None:
        value = msgspec.msgpack.encode((heard.at.epoch, heard.at.seq, heard.body))
        self._note(f"heard/{heard.owner}/{heard.key}", value)

    def forget(self, owner: str, key: str) -> None:
        self._note(f"heard/{owner}/{key}", None)

    def reach(self, owner: str, cursor: Position) -> None:
        """Written only after every fact that was noted before."""
        self._cursors[f"cursor/{owner}"] = str(cursor).encode()
        self._wake.set()

    def listen(self, service: Service, ports: Mapping[int, ListenPort] | None) -> None:
        self._note(f"port/{service}", msgspec.json.encode(dict(ports.items())) if ports else None)

    def exported_first(self, service: Service, moment: datetime | None) -> None:
        self._note(f"first/{service}", moment.isoformat().encode() if moment else None)

    def gateway(self, name: str, gateway: OwnGateway | None) -> None:
        self._note(f"gateway/{name}", msgspec.json.encode(gateway) if gateway else None)

    def local(self, service: Service, found: LocalService | None) -> None:
        """A service with so many endpoints that the store takes no such row is found anew at each start instead."""
        key = f"local/{service}"
        value = msgspec.msgpack.encode(found) if found else None
        if value is not None and len(key) + len(value) > LARGEST:
            log.warning("a service is too large to be remembered over a restart", service=str(service))
            value = None
        self._note(key, value)

    def _note(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._put.pop(key, None)
            self._delete.add(key)
        else:
            self._delete.discard(key)
            self._put[key] = value
        self._wake.set()

    async def run(self) -> None:
        """Write what was noted, again and again, and on cancellation once more."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await asyncio.sleep(FLUSH_EVERY)
                await self._write()
        finally:
            await self._write()

    async def _write(self) -> None:
        try:
            await self.flush()
            self.problem = None
        except FederationError as error:
            self.problem = str(error)
            log.error("cannot store what was learned; will try again", problem=str(error), hint=error.hint)
            self._wake.set()

    async def flush(self) -> None:
        """Write everything noted so far. Raises StoreError; what was not written stays noted."""
        put, delete, cursors = self._put, self._delete, self._cursors
        self._put, self._delete, self._cursors = {}, set(), {}
        try:
            while put or delete:
                await self._store_some(put, delete)
            while cursors:
                await self._store_some(cursors, set())
        except BaseException:
            # What was noted meanwhile is newer: nothing may be both put and deleted.
            still_put = {key: value for key, value in put.items() if key not in self._delete}
            self._delete |= delete - self._put.keys()
            self._put = still_put | self._put
            self._cursors = cursors | self._cursors
            raise

    async def _store_some(self, put: dict[str, bytes], delete: set[str]) -> None:
        """Write as much of `put` and `delete` as one change may hold, and only then take it out of them."""
        taken: dict[str, bytes] = {}
        size = 0
        for key, value in islice(put.items(), MOST_KEYS):
            size += len(key) + len(value)
            if taken and size > BATCH_BYTES:
                break
            taken[key] = value
        gone = frozenset(islice(sorted(delete), MOST_KEYS - len(taken)))
        await self._commit(Change(uuid4().hex, put=taken, delete=gone))
        for key in taken:
            del put[key]
        delete -= gone

    async def _commit(self, change: Change) -> None:
        outcome = await self._store.commit(change)
        while isinstance(outcome, Unknown):
            await asyncio.sleep(FLUSH_EVERY)
            outcome = await self._store.commit(change)
        if not isinstance(outcome, Committed):
            raise FederationError(f"the store answered {outcome} to a change without conditions")


def _remembered(rows: Mapping[str, Row]) -> Remembered:
    heard: list[Heard] = []
    cursors: dict[str, Position] = {}
    ports: dict[Service, dict[int, ListenPort]] = {}
    first: dict[Service, datetime] = {}
    gateways: dict[str, OwnGateway] = {}
    local: dict[Service, LocalService] = {}
    epoch = 0
    for key, row in rows.items():
        kind, _, rest = key.partition("/")
        match kind:
            case "heard":
                owner, _, name = rest.partition("/")
                at_epoch, seq, body = msgspec.msgpack.decode(row.value, type=tuple[int, int, bytes])
                heard.append(Heard(owner, name, Position(at_epoch, seq), body))
            case "cursor":
                at_epoch, seq = map(int, row.value.decode().split("."))
                cursors[rest] = Position(at_epoch, seq)
            case "port":
                ports[_service(rest)] = msgspec.json.decode(row.value, type=dict[int, ListenPort])
            case "first":
                first[_service(rest)] = datetime.fromisoformat(row.value.decode())
            case "gateway":
                gateways[rest] = msgspec.json.decode(row.value, type=OwnGateway)
            case "local":
                local[_service(rest)] = msgspec.msgpack.decode(row.value, type=LocalService)
            case "epoch":
                epoch = int(row.value)
    return Remembered(epoch, tuple(heard), cursors, ports, first, gateways, local)


def _service(text: str) -> Service:
    namespace, _, name = text.partition("/")
    return Service(namespace, name)
