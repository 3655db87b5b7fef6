"""The tour: nine steps, each with what it claims. Faults strike under load of 200 new connections a second.

A claim is about who answers, in which order, and how many requests fail; times are shown beside their goals.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from federation.api.client import Refusal
from federation.demo import attacks
from federation.demo.asking import ask, until
from federation.demo.claims import Record, Screen
from federation.demo.clusters import ECHO, SECRET, Gateway
from federation.demo.files import PASSPHRASE
from federation.demo.load import Load, request, running
from federation.demo.processes import Process
from federation.demo.rotation import WAY, Rotated, follow
from federation.demo.world import World
from federation.listen import HostPort
from pki.keys.passphrase import from_file

SETTLE = 1.5
"""Seconds of load before and after a fault."""

FROZEN_GOAL = 0.350 + 0.500 + 0.150
"""PING interval + PING time-out + 150 ms."""

ECHO_PORT = f"{ECHO}:80"
WEST = "spiffe://west.mesh.example/gateway/eastwest"


class Tour:
    """Walks through a running world."""

    def __init__(self, world: World, record: Record, screen: Screen) -> None:
        self._world = world
        self._record = record
        self._screen = screen
        self._echo = HostPort.parse("127.0.0.1:1")

    async def run(self) -> None:
        self._echo = HostPort.parse((await self._world.clusters["east"].imports())[ECHO_PORT])
        await self.joined()
        await self.local_first()
        await self.failover()
        await self.region_dies()
        await self.everything_returns()
        await self.control_plane_dies()
        await self.not_exported()
        await self.forged()
        await self.replaced()

    async def joined(self) -> None:
        self._screen.step("1. Three clusters joined with one-time tokens")
        clusters = await ask(self._world.hub_socket, "/v1/clusters")
        names = sorted(cluster["name"] for cluster in clusters if cluster["connected"])
        self._record.claim(
            "east, west and central are members", names == ["central", "east", "west"], ", ".join(names)
        )
        answer = await attacks.replay_token(self._world)
        refused = isinstance(answer, Refusal) and answer.code == "token"
        self._record.claim("a used token is refused", refused, str(answer))
        if self._world.openbao is not None:
            await self.root_in_openbao()

    async def root_in_openbao(self) -> None:
        from federation.demo.vault import look_for_root_key

        folder = self._world.folder
        passphrase = from_file(folder / PASSPHRASE)
        status = await ask(self._world.hub_socket, "/v1/status")
        found = await asyncio.to_thread(look_for_root_key, folder / "hub", passphrase)
        self._record.claim(
            "the root is in OpenBao, and its key is not on the disk of the hub",
            status["root"] == "vault" and not found.roots and found.keys > 0,
            f"{found.files} files, {found.keys} private keys, {len(found.roots)} of them the root's",
        )

    async def local_first(self) -> None:
        self._screen.step("2. A request in east is answered by east")
        answer = await request(self._echo)
        self._record.claim(
            "east answers", answer.who == "east", f"{answer.who} in {answer.seconds * 1000:.0f} ms"
        )

    async def failover(self) -> None:
        self._screen.step("3. Local backends stop, then gateways of the next cluster")
        east, west = self._world.clusters["east"], self._world.clusters["west"]
        first, second = west.gateways
        await self._strike(
            "both backends of east are killed: west answers",
            _kill(*(one.process for one in east.of("echo"))),
            "west",
        )
        peer = await attacks.peer_identity(self._world, "east", "west")
        self._record.claim("the peer proves who it is by mutual TLS", peer == WEST, str(peer))
        envoys = [(await gateway.status())["envoy_pid"] for gateway in west.gateways]
        await self._strike(
            "one gateway of west is killed: west still answers", _kill_gateway(first, envoys[0]), "west"
        )
        try:
            await self._strike(
                "the other gateway of west is frozen: central answers",
                _freeze(second, envoys[1]),
                "central",
                slowest=FROZEN_GOAL,
            )
        finally:
            _thaw(second, envoys[1])
        await first.process.start()
        await until("west's return", self._answered_by("west"))
        await until("the clusters' meeting", self._world.serving, watch=(west.agent, first.process))

    async def region_dies(self) -> None:
        self._screen.step("4. The whole cluster west dies")
        west = self._world.clusters["west"]
        envoys = [(await gateway.status())["envoy_pid"] for gateway in west.gateways]
        everything = [
            west.agent,
            *(one.process for one in west.gateways),
            *(one.process for one in west.backends),
        ]
        await self._strike(
            "gateways, agent and backends are killed: central answers", _kill(*everything), "central"
        )
        await until("the end of west's Envoys", _gone(envoys))

    async def everything_returns(self) -> None:
        self._screen.step("5. Everything returns")
        east, west = self._world.clusters["east"], self._world.clusters["west"]
        async with running(self._echo) as load, self._watched("everything starts", load):
            began = time.monotonic()
            for process in (
                west.agent,
                *(one.process for one in west.backends),
                *(one.process for one in west.gateways),
            ):
                await process.start()
            for backend in east.of("echo"):
                await backend.process.start()
            await until("east's return", self._answered_by("east"))
            returned = time.monotonic() - began
            await asyncio.sleep(SETTLE)
        last = load.since(time.monotonic() - SETTLE / 2).clusters
        self._record.claim("east answers again", set(last) == {"east"}, f"after {returned:.1f} s")
        self._record.claim(
            "no request fails on the way back", load.failed == 0, _figure(load), answers=load.answers
        )
        await until("the clusters' meeting", self._world.connected, watch=self._world.processes)

    async def control_plane_dies(self) -> None:
        self._screen.step("6. The federation service dies, then every agent, then the local backends")
        world = self._world
        agents = [cluster.agent for cluster in world.clusters.values()]
        await self._strike("the hub is killed: east answers", _kill(world.hub), "east")
        await self._strike("all agents are killed: east answers", _kill(*agents), "east")
        local = [backend.process for backend in world.clusters["east"].of("echo")]
        await self._strike(
            "both backends of east are killed: west answers, nobody in control", _kill(*local), "west"
        )
        for process in (world.hub, *agents):
            await process.start()
        await until("the return of hub and agents", world.served, watch=(world.hub, *agents))

    async def not_exported(self) -> None:
        self._screen.step("7. What is not exported cannot be reached")
        imports = await attacks.listeners(self._world, "east")
        self._record.claim(
            f"{SECRET} has no listener in east", not any("secret" in name for name in imports), "by name"
        )
        for authority in ("secret.default.svc.clusterset.local:80", "echo.default.svc.clusterset.local:80"):
            outcome = await attacks.tunnel(self._world, "east", "west", authority)
            wanted = 200 if authority.startswith("echo") else 404
            what = "answers" if wanted == 200 else "refuses"
            self._record.claim(
                f"west's gateway {what} {authority.split('.')[0]} to east's own gateway certificate",
                outcome.status == wanted,
                str(outcome),
            )

    async def forged(self) -> None:
        self._screen.step("8. A cluster cannot speak for another one")
        for claim in await attacks.forgeries(self._world):
            self._record.claim(claim.text, claim.holds, claim.figure)

    async def replaced(self) -> None:
        if self._world.openbao is None:
            self._screen.step("9. All clusters get another root while requests flow")
            await self._replaced(Rotated.of_root(self._world), "the root")
        else:
            self._screen.step("9. West gets another authority while requests flow")
            rotated = Rotated.of_cluster(self._world.clusters["west"])
            await self._replaced(rotated, f"the authority of {rotated.whose}")

    async def _replaced(self, rotated: Rotated, what: str) -> None:
        west = self._world.clusters["west"]
        before = rotated.keys()
        stands = "begins"
        async with running(self._echo) as load, self._watched(lambda: f"{rotated.whose}: {stands}", load):

            def show(text: str) -> None:
                nonlocal stands
                stands = text

            await asyncio.sleep(SETTLE)
            await rotated.start("shown in the tour")
            phases = await follow(rotated, show, (self._world.hub, west.agent))
            stands = "one of its gateways starts anew"
            gateway = west.gateways[0].process
            await gateway.stop()
            await gateway.start()
            await until("the clusters' meeting", self._world.serving, watch=(gateway,))
            last = time.monotonic()
            await asyncio.sleep(SETTLE)
        self._record.claim(
            f"{what} is replaced, then a gateway of west starts anew: no request fails",
            load.failed == 0 and set(load.since(last).clusters) == {"west"},
            _figure(load),
            answers=load.answers,
        )
        self._record.claim(
            "each step waits until everybody is ready for it",
            tuple(one.phase for one in phases if one.phase != "prepared") == WAY,
            "; ".join(str(one) for one in phases if one.waited_for),
        )
        after = rotated.keys()
        self._record.claim(
            "the old key is destroyed",
            len(after) == 1 and not after & before,
            f"{', '.join(sorted(before))} → {', '.join(sorted(after))}",
        )
        peer = await attacks.peer_identity(self._world, "east", "west", rotated.certificates)
        self._record.claim(
            "to whoever believes the new one alone, west proves who it is", peer == WEST, str(peer)
        )

    async def _strike(
        self, text: str, fault: Callable[[], Awaitable[None]], who: str, slowest: float | None = None
    ) -> None:
        """Strike under load, and claim who answers afterwards and that only what was in flight could fail.

        `slowest` is the goal, in seconds, for the slowest answer.
        """
        async with running(self._echo) as load, self._watched(text, load):
            await asyncio.sleep(SETTLE)
            moment = time.monotonic()
            await fault()
            struck = time.monotonic()
            await until(f"an answer by {who}", self._answered_by(who))
            await asyncio.sleep(SETTLE)
        last = load.since(time.monotonic() - SETTLE / 2).clusters
        in_flight = load.in_flight(moment, struck)
        self._record.claim(
            text,
            set(last) == {who} and load.failed <= in_flight,
            _figure(load),
            f"failed at most {in_flight} in flight"
            + ("" if slowest is None else f"; slowest at most {slowest * 1000:.0f} ms"),
            load.answers,
            missed=slowest is not None and load.slowest > slowest,
        )

    @asynccontextmanager
    async def _watched(self, text: str | Callable[[], str], load: Load) -> AsyncIterator[None]:
        """Show who answers, ten times a second."""

        async def watch() -> None:
            while True:
                self._screen.watch(text if isinstance(text, str) else text(), load.answers)
                await asyncio.sleep(0.1)

        watching = asyncio.create_task(watch(), name="demo-watch")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _answered_by(self, who: str) -> Callable[[], Awaitable[bool]]:
        async def answered() -> bool:
            return (await request(self._echo)).who == who

        return answered


def _figure(load: Load) -> str:
    return f"{load.failed} of {len(load.answers)} failed, slowest {load.slowest * 1000:.0f} ms"


def _kill(*processes: Process) -> Callable[[], Awaitable[None]]:
    async def kill() -> None:
        for process in processes:
            process.signal(signal.SIGKILL)
        for process in processes:
            await process.kill()

    return kill


def _kill_gateway(gateway: Gateway, envoy: int) -> Callable[[], Awaitable[None]]:
    async def kill() -> None:
        _signal(envoy, signal.SIGKILL)
        await gateway.process.kill()

    return kill


def _freeze(gateway: Gateway, envoy: int) -> Callable[[], Awaitable[None]]:
    async def freeze() -> None:
        gateway.process.signal(signal.SIGSTOP)
        _signal(envoy, signal.SIGSTOP)

    return freeze


def _thaw(gateway: Gateway, envoy: int) -> None:
    _signal(envoy, signal.SIGCONT)
    gateway.process.signal(signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _gone(pids: list[int]) -> Callable[[], Awaitable[bool]]:
    async def gone() -> bool:
        return not any(_exists(pid) for pid in pids)

    return gone


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
