"""What clients notice of rotations: requests that fail, and the tail of the others, beside the same run without any.

500 new connections a second from east to west, in an open loop. In a run every leaf is renewed again and again, two
clusters replace their authorities and the hub replaces the root, while another cluster is away for a while, so that the
first has to wait. The run beside it has the same absence, and no rotation. A third one, without rotation too, shows how
far a run is from itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import product, steady
from bench.harness import PAIRS, Judged, Row
from federation.demo.asking import ask, until
from federation.demo.clusters import Cluster
from federation.demo.load import Load
from federation.demo.rotation import Rotated, follow
from federation.demo.world import World
from federation.errors import FederationError
from federation.listen import HostPort

RATE = 500
"""New connections a second."""

WHOLE = 180.0
"""Seconds of a run as the goal has it, with 40 s of absence. A shorter run has less of it, in proportion."""

SHORT = 30.0
LONGEST = 600.0
"""Seconds of the shortest run in which all fits, and of one whose absence can be waited for."""

LEAVES = 10.0
"""Seconds between two renewals of all leaves."""
REPLACED = {"west": 20 / WHOLE, "east": 110 / WHOLE}
"""Whose authority is replaced, and when that begins; this and what follows in parts of a run."""
ROOT = 70 / WHOLE
"""When the root is replaced."""
AWAY, BACK = 18 / WHOLE, 58 / WHOLE
"""From when until when central is not there: the first rotation waits for it."""

WAITED = 200.0
"""Seconds that a rotation may take, with the absence in the middle of it."""

LEAST = 0.95
"""Part of the rate that must have been asked for; below that the generator was the bottleneck."""

TAIL = 1.15


@dataclass(slots=True)
class Outcomes:
    """Of runs of one kind: p99 in ms, and failed requests, by run."""

    tails: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)
    asked: int = 0

    def add(self, load: Load) -> None:
        self.tails.append(percentile([one.seconds for one in load.answers], 0.99) * 1000)
        self.failed.append(float(load.failed))
        self.asked += len(load.answers)


async def rotation(folder: Path, seconds: float = SHORT) -> list[Row]:
    """`PAIRS` times a run of `seconds` with rotations, and two without; who begins alternates."""
    async with product.product(folder) as world:
        entry = await product.entry(world)
        for process in product.local_backends(world):
            await process.kill()
        await product.settled(entry, "west")
        quiet, rotating, again = Outcomes(), Outcomes(), Outcomes()
        turned = 0.0

        async def rotate() -> None:
            nonlocal turned
            took = await _run(world, entry, seconds, rotating, _rotations(world, seconds))
            turned = max(turned, took)

        async def rest(into: Outcomes) -> None:
            await _run(world, entry, seconds, into, lambda: asyncio.sleep(seconds))

        for pair in range(PAIRS):
            if pair % 2:
                await rotate()
                await rest(quiet)
            else:
                await rest(quiet)
                await rotate()
            await rest(again)
    note = f"p99 of {RATE} new connections a second for {seconds:.0f} s; the longest run took {turned:.0f} s"
    tails = tuple(quiet.tails)
    return [
        Row(
            "rotation-failed",
            "requests",
            tuple(rotating.failed),
            tuple(quiet.failed),
            Judged.WORST,
            0.0,
            f"failed in a run; {rotating.asked:,} asked with rotations, {quiet.asked:,} without",
        ),
        Row("rotation-p99", "ms", tuple(rotating.tails), tails, Judged.RATIO, TAIL, note),
        Row("rotation-itself", "ms", tuple(again.tails), tails, Judged.RATIO, None, "the same without any"),
    ]


async def _run(
    world: World,
    entry: HostPort,
    seconds: float,
    into: Outcomes,
    work: Callable[[], Awaitable[object]],
) -> float:
    """One run, until `work` is done and central is back; seconds that it took."""
    try:
        async with steady.running(entry, RATE) as load:
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                group.create_task(_absence(world.clusters["central"], seconds), name="bench-absence")
                await work()
            took = time.monotonic() - began
    except* FederationError as errors:
        raise _first(errors) from errors
    if len(load.answers) < LEAST * RATE * took:
        raise FederationError(
            f"only {len(load.answers) / took:.0f} of {RATE} requests a second could be asked for",
            "stop what else runs on this machine",
        )
    into.add(load)
    await until("the clusters' meeting", world.serving, watch=(world.hub,))
    return took


async def _absence(cluster: Cluster, seconds: float) -> None:
    """The agent and the gateways of `cluster` are killed, and start again later."""
    processes = (cluster.agent, *(gateway.process for gateway in cluster.gateways))
    await asyncio.sleep(AWAY * seconds)
    for process in processes:
        await process.kill()
    await asyncio.sleep((BACK - AWAY) * seconds)
    for process in processes:
        await process.start()


def _rotations(world: World, seconds: float) -> Callable[[], Awaitable[None]]:
    """All that is replaced in a run; over when all of it is, and not before the run is."""

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            leaves = group.create_task(_leaves(world), name="bench-leaves")
            turns = [(Rotated.of_cluster(world.clusters[name]), at) for name, at in REPLACED.items()]
            replaced = [
                group.create_task(_authority(one, at * seconds), name=f"bench-{one.whose}")
                for one, at in (*turns, (Rotated.of_root(world), ROOT))
            ]
            await asyncio.sleep(seconds)
            await asyncio.wait(replaced)
            leaves.cancel()

    return work


async def _leaves(world: World) -> None:
    """Everybody on the way of the requests gets a new certificate, for ever."""
    while True:
        await asyncio.sleep(LEAVES)
        for name in ("east", "west"):
            await ask(
                world.clusters[name].socket, "/v1/ca/rotation", method="POST", body={"action": "leaves"}
            )


async def _authority(rotated: Rotated, after: float) -> None:
    """Raises FederationError if it does not end in time, or was turned back."""
    await asyncio.sleep(after)
    await rotated.start("measured")
    phases = await follow(rotated, within=WAITED)
    if phases[-1].phase != "done":
        raise FederationError(f"the rotation of {rotated.whose} ended as {phases[-1].phase}")


def _first(group: ExceptionGroup[FederationError]) -> FederationError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def percentile(samples: list[float], part: float) -> float:
    """The smallest sample that at least `part` of all do not exceed. Raises ValueError without samples."""
    if not samples:
        raise ValueError("there are no samples")
    return sorted(samples)[max(0, math.ceil(part * len(samples)) - 1)]
