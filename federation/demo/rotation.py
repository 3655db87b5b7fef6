"""One rotation from its start to its end, as whoever watches it sees it: the phases, and who was waited for in each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.demo.asking import READY_WITHIN, ask, until
from federation.demo.clusters import Cluster
from federation.demo.processes import Process
from federation.demo.world import World

WAY = ("published", "active", "retiring", "done")
"""What a rotation that goes well passes through once the next authority is made."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """An authority that can be replaced: whose it is, where that is asked for, where its certificates and keys lie."""

    whose: str
    socket: Path
    route: str
    certificates: Path
    folder: Path

    @classmethod
    def of_cluster(cls, cluster: Cluster) -> Rotated:
        home = cluster.folder / "agent"
        return cls(cluster.name, cluster.socket, "/v1/ca/rotation", home / "authority", home / "keys")

    @classmethod
    def of_root(cls, world: World) -> Rotated:
        home = world.folder / "hub"
        return cls("the root", world.hub_socket, "/v1/root/rotation", home / "root", home / "root-keys")

    async def start(self, why: str) -> None:
        """Raises Refusal if one is running."""
        await ask(self.socket, self.route, method="POST", body={"action": "start", "why": why})

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await ask(self.socket, self.route)
        return found

    def keys(self) -> set[str]:
        """The names of the keys of authorities that are on the disk."""
        return {path.stem for path in self.folder.glob("ca-*.key")}


@dataclass(frozen=True, slots=True)
class Passed:
    """A phase that is over: how many seconds it took, and who was waited for in it."""

    phase: str
    seconds: float
    waited_for: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.phase} {self.seconds:.1f} s" + (
            f", for {', '.join(self.waited_for)}" if self.waited_for else ""
        )


async def follow(
    rotated: Rotated,
    show: Callable[[str], None] = lambda text: None,
    watch: tuple[Process, ...] = (),
    within: float = READY_WITHIN,
) -> tuple[Passed, ...]:
    """Every phase of the rotation that runs, in order, the last one with 0 seconds. `show` is told where it stands.

    Raises FederationError if it takes too long, or if a process that it needs stopped.
    """
    phases: dict[str, float] = {}
    waited: dict[str, list[str]] = {}

    async def over() -> bool:
        status = await rotated.status()
        phase = status["phase"]
        phases.setdefault(phase, time.monotonic())
        members = [one["member"] for one in status["blocking"]]
        known = waited.setdefault(phase, [])
        known += [name for name in members if name not in known]
        show(f"{phase}, waits for {', '.join(members)}" if members else phase)
        return not status["running"]

    await until(f"the end of the rotation of {rotated.whose}", over, watch=watch, within=within)
    ends = [*list(phases.values())[1:], list(phases.values())[-1]]
    return tuple(
        Passed(phase, end - began, tuple(waited[phase]))
        for (phase, began), end in zip(phases.items(), ends, strict=True)
    )
