"""What the relay tells agent, Envoy and disk, with the real protocol in between and no Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from federation.clock import ManualClock
from federation.errors import StoreFull
from gateway.relay import Relay
from gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, SECRET, Key, Resource, Snapshot
from gateway.store import ResourceStore
from gateway.xds.messages import Published, Request, Response
from gateway.xds.protocol import Subscription, advance
from tests.gateway.process import on_disk

OLD = Resource.of(CLUSTER, "echo", b"old")
NEW = Resource.of(CLUSTER, "echo", b"new")
OTHER = Resource.of(CLUSTER, "other", b"other")
ANCHORS = Resource.of(SECRET, "bundle/west", b"anchors")
IDENTITY = Resource.of(SECRET, "identity", b"key")


class World:
    """A relay, an Envoy's stream that the test speaks for, and what the agent was told."""

    def __init__(self, relay: Relay, store: ResourceStore, clock: ManualClock) -> None:
        self.relay = relay
        self.store = store
        self.clock = clock
        self.answers: list[tuple[str, str | None]] = []
        self.stream: Subscription | None = None

    async def answer(self, response: Response, error: str | None) -> None:
        self.answers.append((response.nonce, error))

    async def agent(
        self, nonce: str, *put: Resource, removed: tuple[str, ...] = (), kind: str = CLUSTER
    ) -> None:
        await self.relay.receive(Response(kind, nonce, put, removed))

    def connect(self) -> None:
        """Envoy comes up and asks for clusters and listeners."""
        self.stream = Subscription()
        self.sync()
        self.say(Request(CLUSTER))
        self.say(Request(LISTENER))

    def sync(self) -> list[Response]:
        return self._advance(Published(self.relay.snapshots.value))

    def say(self, request: Request) -> list[Response]:
        return self._advance(request)

    def _advance(self, message: Request | Published) -> list[Response]:
        assert self.stream is not None
        self.stream, replies = advance(self.stream, message)
        self.relay.envoy_said(self.stream)
        return [reply for reply in replies if isinstance(reply, Response)]

    async def settle(self) -> None:
        """Let the relay do all that it can do now: its own steps, and what waits for the thread that writes."""
        for _ in range(3):
            for _ in range(20):
                await asyncio.sleep(0)
            await self.relay.flush()

    async def stored(self, path: Path) -> set[Resource]:
        found = await self.on_disk(path)
        return {resource for kind in found.types.values() for resource in kind.values()}

    async def on_disk(self, path: Path) -> Snapshot:
        await self.relay.flush()
        return await on_disk(path)

    def fill_disk(self) -> Callable[[], None]:
        """No write succeeds until the returned function is called."""
        write, full = self.store.write, True

        async def sometimes(
            put: Iterable[Resource], remove: Iterable[Key], known_types: Iterable[str] = ()
        ) -> None:
            if full:
                raise StoreFull(Path("resources.sqlite"), "no room")
            await write(put, remove, known_types)

        def make_room() -> None:
            nonlocal full
            full = False
            self.clock.advance(1.0)

        self.store.write = sometimes  # type: ignore[method-assign]
        return make_room


@asynccontextmanager
async def world(path: Path, *stored: Resource) -> AsyncIterator[World]:
    store, clock = ResourceStore(path), ManualClock()
    await store.open(clock.now())
    await store.write(stored, [])
    found = World(Relay(store, Snapshot().replace(stored, ()), clock), store, clock)
    running = asyncio.create_task(found.relay.run(found.answer))
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])
        await store.close()


async def test_the_agent_is_answered_when_envoy_has_accepted(tmp_path: Path) -> None:
    async with world(tmp_path / "db") as found:
        await found.agent("a", OLD)
        await found.settle()
        assert found.answers == []
        found.connect()
        await found.settle()
        assert found.answers == []
        assert await found.stored(tmp_path / "db") == set()
        found.say(Request(CLUSTER, "1"))
        await found.settle()
        assert found.answers == [("a", None)]
        assert await found.stored(tmp_path / "db") == {OLD}


async def test_what_envoy_does_not_ask_for_is_settled(tmp_path: Path) -> None:
    async with world(tmp_path / "db") as found:
        found.connect()
        await found.agent("a", Resource.of(ENDPOINTS, "echo", b""), kind=ENDPOINTS)
        found.sync()
        await found.settle()
        assert found.answers == [("a", None)]


async def test_a_refused_resource_is_taken_back_and_the_others_stay(tmp_path: Path) -> None:
    async with world(tmp_path / "db", OLD) as found:
        found.connect()
        assert found.say(Request(CLUSTER, "1")) == []
        await found.agent("a", NEW, OTHER)
        (both,) = found.sync()
        (alone,) = found.say(Request(CLUSTER, both.nonce, error="no"))
        assert [r.name for r in alone.put] == ["echo"]
        (next_one,) = found.say(Request(CLUSTER, alone.nonce, error="no, because"))
        found.say(Request(CLUSTER, next_one.nonce))
        await found.settle()
        assert found.answers == [("a", "echo: no, because")]
        assert found.relay.rejected == {NEW.key: "no, because"}
        assert found.relay.snapshots.value.get(*NEW.key) == OLD
        assert await found.stored(tmp_path / "db") == {OLD, OTHER}


async def test_a_new_stream_claims_what_envoy_has_accepted(tmp_path: Path) -> None:
    async with world(tmp_path / "db", OLD, OTHER) as found:
        await found.agent("a", NEW, removed=("other",))
        assert found.relay.held(CLUSTER) == {"echo": "?", "other": "?"}
        assert found.relay.held(LISTENER) == {}
        found.connect()
        await found.settle()
        assert found.answers == []


async def test_anchors_are_on_disk_before_the_agent_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path / "db") as found:
        found.connect()
        make_room = found.fill_disk()
        await found.agent("a", ANCHORS, kind=SECRET)
        found.sync()
        await found.settle()
        assert found.answers == []
        assert "no room" in found.relay.store_problem
        make_room()
        await found.settle()
        assert found.answers == [("a", None)]
        assert found.relay.store_problem == ""
        assert await found.stored(tmp_path / "db") == {ANCHORS}


async def test_anchors_that_a_full_disk_does_not_take_keep_nothing_else_waiting(tmp_path: Path) -> None:
    async with world(tmp_path / "db") as found:
        found.connect()
        make_room = found.fill_disk()
        await found.agent("anchors", ANCHORS, kind=SECRET)
        found.sync()
        await found.settle()
        await found.agent("cluster", OLD)
        (offered,) = found.sync()
        found.say(Request(CLUSTER, offered.nonce))
        await found.settle()
        assert found.answers == [("cluster", None)]
        make_room()
        await found.settle()
        assert found.answers == [("cluster", None), ("anchors", None)]
        assert await found.stored(tmp_path / "db") == {ANCHORS, OLD}


async def test_anchors_that_are_not_on_disk_are_not_claimed_on_a_new_stream_either(tmp_path: Path) -> None:
    """The number of an old response may be that of another on the new stream, so it must not be answered there."""
    async with world(tmp_path / "db") as found:
        found.connect()
        make_room = found.fill_disk()
        await found.agent("1", ANCHORS, kind=SECRET)
        found.sync()
        await found.settle()
        assert found.relay.held(SECRET) == {ANCHORS.name: "?"}
        make_room()
        await found.settle()
        assert found.answers == []
        assert found.relay.held(SECRET) == {ANCHORS.name: ANCHORS.version}


async def test_envoy_hears_that_there_is_nothing_when_the_agent_said_so(tmp_path: Path) -> None:
    async with world(tmp_path / "db") as found:
        found.relay.add_own(IDENTITY)
        found.stream = Subscription()
        found.sync()
        assert found.say(Request(CLUSTER)) == []
        await found.agent("c", kind=CLUSTER)
        assert [(r.type_url, r.put, r.removed) for r in found.sync()] == [(CLUSTER, (), ())]
        found.say(Request(CLUSTER, "1"))
        assert found.say(Request(LISTENER)) == []
        await found.settle()
        assert found.answers == [("c", None)]
        assert set((await found.on_disk(tmp_path / "db")).types) == {CLUSTER}
        await found.agent("l", kind=LISTENER)
        assert [(r.type_url, r.put, r.removed) for r in found.sync()] == [(LISTENER, (), ())]
        await found.settle()
        assert found.answers == [("c", None), ("l", None)]
        assert set((await found.on_disk(tmp_path / "db")).types) == {CLUSTER, LISTENER}


async def test_envoy_hears_that_there_is_nothing_when_the_disk_says_so(tmp_path: Path) -> None:
    store, clock = ResourceStore(tmp_path / "db"), ManualClock()
    await store.open(clock.now())
    await store.write([], [], [CLUSTER, LISTENER])
    await store.close()
    store = ResourceStore(tmp_path / "db")
    relay = Relay(store, await store.open(clock.now()), clock)
    await store.close()
    stream, _ = advance(Subscription(), Published(relay.snapshots.value))
    stream, (clusters,) = advance(stream, Request(CLUSTER))
    stream, replies = advance(stream, Request(LISTENER))
    assert replies == ()
    assert clusters == Response(CLUSTER, "1")
    _, replies = advance(stream, Request(CLUSTER, "1"))
    assert replies == (Response(LISTENER, "2"),)


async def test_a_refusal_is_shown_until_the_agent_offers_something_else_or_nothing(tmp_path: Path) -> None:
    async with world(tmp_path / "db", OLD) as found:
        found.connect()
        found.say(Request(CLUSTER, "1"))
        await found.agent("a", NEW)
        (offered,) = found.sync()
        found.say(Request(CLUSTER, offered.nonce, error="no"))
        await found.settle()
        (restored,) = found.sync()
        assert restored.put == (OLD,)
        found.say(Request(CLUSTER, restored.nonce))
        assert found.relay.rejected == {NEW.key: "no"}
        await found.agent("b", OLD)
        found.sync()
        await found.settle()
        assert found.relay.rejected == {}
        await found.agent("c", OTHER)
        (offered,) = found.sync()
        found.say(Request(CLUSTER, offered.nonce, error="no"))
        await found.settle()
        (removal,) = found.sync()
        assert removal.removed == ("other",)
        found.say(Request(CLUSTER, removal.nonce))
        assert found.relay.rejected == {OTHER.key: "no"}
        await found.agent("d", removed=("other",))
        found.sync()
        await found.settle()
        assert found.relay.rejected == {}
        assert found.answers == [("a", "echo: no"), ("b", None), ("c", "other: no"), ("d", None)]


async def test_what_envoy_refuses_from_disk_is_shown(tmp_path: Path) -> None:
    async with world(tmp_path / "db", OLD) as found:
        found.connect()
        found.say(Request(CLUSTER, "1", error="no more"))
        assert found.relay.rejected == {OLD.key: "no more"}
        found.relay.envoy_said(None)
        assert found.relay.rejected == {}


async def test_nobody_but_the_gateway_makes_its_identity(tmp_path: Path) -> None:
    async with world(tmp_path / "db") as found:
        found.relay.add_own(IDENTITY)
        found.connect()
        await found.agent("a", Resource.of(SECRET, "identity", b"forged"), removed=("identity",), kind=SECRET)
        found.sync()
        await found.settle()
        assert found.relay.snapshots.value.get(*IDENTITY.key) == IDENTITY
        assert found.answers == [("a", None)]
        assert await found.stored(tmp_path / "db") == set()
        assert found.relay.held(SECRET) == {}


async def test_a_removal_is_settled_when_envoy_has_removed(tmp_path: Path) -> None:
    async with world(tmp_path / "db", OLD) as found:
        found.connect()
        found.say(Request(CLUSTER, "1"))
        await found.agent("a", removed=("echo",))
        (removal,) = found.sync()
        await found.settle()
        assert found.answers == []
        found.say(Request(CLUSTER, removal.nonce))
        await found.settle()
        assert found.answers == [("a", None)]
        assert await found.stored(tmp_path / "db") == set()
