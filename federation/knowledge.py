"""What an agent knows, on disk, so that it starts without the hub.

Rows are single facts; a change costs what it changes. Facts of an owner are stored before the cursor that promises
them: after a crash the agent asks for a little too much, never for too little. What it acknowledged to the hub may be
ahead of the disk, because an acknowledgement ends with its stream: the next one begins with the cursors that were read
from here. What it decides goes out after an attempt to write the facts behind it (`write`).

    heard/<owner>/<key>      a relayed entry and its position
    cursor/<owner>           how far the word of an owner is complete
    believed/<owner>         the newest trust bundle that was ever believed of a name, also of one that left
    port/<ns>/<name>         the listen ports of an imported service
    first/<ns>/<name>        when an own export was first seen
    local/<ns>/<name>        a service of this cluster, as it was found last
    gateway/<name>           a gateway of this cluster
    head/<owner>/<authority> how far a journal of somebody else has come
    served                   gateways have been served from what is here
    told                     the others have been told from what is here
    epoch                    our own
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from uuid import uuid4

import msgspec
import structlog

from federation.errors import FederationError
from federation.heads import Kept
from federation.model import ListenPort, LocalService, OwnGateway, Position, Service
from federation.store import Change, Committed, Row, Store, Unknown
from federation.store.contract import LARGEST, MOST_KEYS
from federation.sync.codec import BUNDLE
from federation.sync.importer import Heard
from pki import bundle as bundles
from pki.bundle import Bundle
from pki.errors import PkiError

FLUSH_EVERY = 0.5
"""Seconds for which changes are collected that nobody waits for, and between two attempts of a store that cannot."""

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
    heads: Mapping[tuple[str, str], Kept] = field(default_factory=dict)
    served: bool = False
    told: bool = False
    believed: tuple[Bundle, ...] = ()


class Knowledge:
    """Collects what changed, and writes it when somebody asks for it, else in the background. A store that cannot is
    logged and asked again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._put: dict[str, bytes] = {}
        self._cursors: dict[str, bytes] = {}
        self._delete: set[str] = set()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self.problem: str | None = None

    async def load(self) -> Remembered:
        """Everything on disk. Raises StoreError, or FederationError for a row that makes no sense."""
        image = await self._store.load("")
        try:
            return _remembered(image.rows)
        except (ValueError, TypeError, msgspec.MsgspecError, PkiError) as error:
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

    def believe(self, owner: str, bundle: Bundle) -> None:
        self._note(f"believed/{owner}", bundles.encode(bundle))

    def keeps_bundle(self, owner: str) -> bool:
        """Whether the newest bundle of `owner` that was noted is on disk, so that no restart takes it back."""
        return self._put.keys().isdisjoint((f"believed/{owner}", f"heard/{owner}/{BUNDLE}"))

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

    def head(self, owner: str, kept: Kept) -> None:
        self._note(f"head/{owner}/{kept.head.authority}", msgspec.json.encode(kept))

    def served(self) -> None:
        """Our gateways have what is noted so far: whatever is missing here, they lack as well."""
        self._note("served", b"yes")

    def told(self) -> None:
        """The same of the others, and of what we say of ourselves."""
        self._note("told", b"yes")

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
                await self.write()
        finally:
            await self.write()

    async def write(self) -> bool:
        """Write everything noted so far; False if the store cannot, which `problem` tells and `run` tries again."""
        try:
            await self.flush()
        except FederationError as error:
            if self.problem != str(error):
                log.error(
                    "cannot store what was learned; will try again", problem=str(error), hint=error.hint
                )
            self.problem = str(error)
            self._wake.set()
            return False
        self.problem = None
        return True

    async def flush(self) -> None:
        """Write everything noted so far. Raises StoreError; what was not written stays noted."""
        async with self._writing:
            facts = _changes(dict(self._put), frozenset(self._delete))
            cursors = _changes(dict(self._cursors), frozenset())
            for change in chain(facts, cursors):
                await self._commit(change)
                self._written(change)

    def _written(self, change: Change) -> None:
        """Take out what `change` stored, except for what was noted anew meanwhile."""
        for noted in (self._put, self._cursors):
            for key, value in change.put.items():
                if noted.get(key) is value:
                    del noted[key]
        self._delete -= change.delete

    async def _commit(self, change: Change) -> None:
        outcome = await self._store.commit(change)
        while isinstance(outcome, Unknown):
            await asyncio.sleep(FLUSH_EVERY)
            outcome = await self._store.commit(change)
        if not isinstance(outcome, Committed):
            raise FederationError(f"the store answered {outcome} to a change without conditions")


def _changes(put: Mapping[str, bytes], delete: frozenset[str]) -> Iterator[Change]:
    """All of it, cut into changes that a store takes.

    One if it fits: then a crash leaves all of it or nothing, and what is offered by somebody else from now on is never
    gone in between. Else first what goes, so that a number is free before it is taken.
    """
    gone: list[str] = []
    taken: dict[str, bytes] = {}
    size = 0
    for key, value in chain(((key, None) for key in sorted(delete)), put.items()):
        cost = len(key) + len(value or b"")
        if (gone or taken) and (len(gone) + len(taken) == MOST_KEYS or size + cost > BATCH_BYTES):
            yield Change(uuid4().hex, put=taken, delete=frozenset(gone))
            gone, taken, size = [], {}, 0
        if value is None:
            gone.append(key)
        else:
            taken[key] = value
        size += cost
    if gone or taken:
        yield Change(uuid4().hex, put=taken, delete=frozenset(gone))


def _remembered(rows: Mapping[str, Row]) -> Remembered:
    heard: list[Heard] = []
    cursors: dict[str, Position] = {}
    ports: dict[Service, dict[int, ListenPort]] = {}
    first: dict[Service, datetime] = {}
    gateways: dict[str, OwnGateway] = {}
    local: dict[Service, LocalService] = {}
    heads: dict[tuple[str, str], Kept] = {}
    believed: list[Bundle] = []
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
            case "believed":
                believed.append(bundles.decode(row.value))
            case "port":
                ports[_service(rest)] = msgspec.json.decode(row.value, type=dict[int, ListenPort])
            case "first":
                first[_service(rest)] = datetime.fromisoformat(row.value.decode())
            case "gateway":
                gateways[rest] = msgspec.json.decode(row.value, type=OwnGateway)
            case "local":
                local[_service(rest)] = msgspec.msgpack.decode(row.value, type=LocalService)
            case "head":
                owner, _, authority = rest.partition("/")
                heads[owner, authority] = msgspec.json.decode(row.value, type=Kept)
            case "epoch":
                epoch = int(row.value)
    return Remembered(
        epoch=epoch,
        heard=tuple(heard),
        cursors=cursors,
        ports=ports,
        first_exported=first,
        gateways=gateways,
        local=local,
        heads=heads,
        served="served" in rows,
        told="told" in rows,
        believed=tuple(believed),
    )


def _service(text: str) -> Service:
    namespace, _, name = text.partition("/")
    return Service(namespace, name)
