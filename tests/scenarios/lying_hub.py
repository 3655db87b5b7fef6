"""`python -m tests.scenarios.lying_hub ARGUMENTS`: the program of a hub that wants its clusters to fall out.

Of every cluster that is away it says that it lives, and that it holds the newest anchors of all others.
"""

from __future__ import annotations

import asyncio

from federation.cli.main import main
from federation.hub import Hub
from federation.sync import sync_pb2 as pb
from federation.sync import wire
from federation.sync.codec import HELD
from federation.sync.feed import Item

EVERY = 0.5
"""Seconds."""

_HONEST = Hub.run


async def _lies(hub: Hub) -> None:
    while True:
        for name in set(hub.registry.rows) - set(hub._exchange.sessions):
            _it_lives(hub, name)
            _it_holds_the_newest(hub, name)
        await hub._clock.sleep(EVERY)


def _it_lives(hub: Hub, name: str) -> None:
    exchange = hub._exchange
    count = exchange._counts._highest.get(name, 0) + 1
    exchange._counts.rose(name, count)
    for session in exchange.sessions.values():
        session.pass_on(pb.Beat(owner=name, at=wire.position(exchange.highest(name)), count=count))


def _it_holds_the_newest(hub: Hub, name: str) -> None:
    feed = hub._exchange.feed(name)
    said = feed.items.get(HELD) if feed is not None else None
    if feed is None or said is None:
        return
    entry = pb.Entry.FromString(said.body)
    newest = {domain.name: bundle.version for domain, bundle in hub.membership.bundles().items()}
    for one in entry.held.versions:
        one.generation, one.sequence = newest.get(one.trust_domain, (one.generation, one.sequence))
    entry.seq = said.seq
    if entry.SerializeToString(deterministic=True) != said.body:
        entry.seq = feed.seq + 1
        feed.put(Item(HELD, entry.seq, entry.SerializeToString(deterministic=True)))
        feed.advance(entry.seq)
        hub._exchange._tell(name)


async def _run(hub: Hub) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_HONEST(hub), name="honest")
        group.create_task(_lies(hub), name="lies")


if __name__ == "__main__":
    Hub.run = _run  # type: ignore[method-assign, assignment]
    main()
