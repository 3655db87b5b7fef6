"""The demo's world: one hub, three clusters, their gateways and sample services, each a process of its own.

Every cluster has a slice of loopback addresses that nobody else uses, so several demos live side by side.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.demo import files
from federation.demo.asking import answers, ask, until
from federation.demo.clusters import BACKENDS, ECHO, PLANS, Backend, Cluster, Gateway, Plan
from federation.demo.processes import Process
from federation.errors import FederationError
from federation.listen import HostPort

if TYPE_CHECKING:
    from federation.demo.vault import RootInOpenBao


class World:
    """Starts, changes and ends the processes of one demo in `folder`.

    `agent` and `gateway` are settings that every agent and every gateway gets besides the demo's own.
    """

    def __init__(
        self,
        folder: Path,
        agent: Mapping[str, Any] | None = None,
        gateway: Mapping[str, Any] | None = None,
        hub: Mapping[str, Any] | None = None,
        *,
        vault: bool = False,
    ) -> None:
        self.folder = folder
        self._agent_settings = agent or {}
        self._gateway_settings = gateway or {}
        self._hub_settings = hub or {}
        self.network = _unused_network()
        address = HostPort.of(str(self.network.network_address + 2), 8200)
        self.openbao = _openbao(folder / "openbao", address) if vault else None
        self.hub = self._process("hub", "serve", folder / "hub.yaml")
        self.clusters: dict[str, Cluster] = {}
        self.tokens: dict[str, str] = {}
        for number, plan in enumerate(PLANS, start=1):
            network = IPv4Network((int(self.network.network_address) + 16 * number, 28))
            self.clusters[plan.name] = self.place(plan, network)

    def place(self, plan: Plan, network: IPv4Network) -> Cluster:
        """A cluster on the addresses of `network`, not started."""
        home = self.folder / plan.name
        agent = self._process(f"{plan.name}-agent", "agent", home / "agent.yaml")
        cluster = Cluster(plan, network, home, agent)
        cluster.backends = list(self._backends(cluster))
        return cluster

    @property
    def hub_socket(self) -> Path:
        return self.folder / "hub" / "api.sock"

    @property
    def hub_api(self) -> HostPort:
        return HostPort.of(str(self.network.network_address + 1), 8443)

    @property
    def hub_sync(self) -> HostPort:
        return HostPort.of(str(self.network.network_address + 1), 8444)

    @property
    def processes(self) -> tuple[Process, ...]:
        """In the order in which they are stopped."""
        clusters = self.clusters.values()
        return (
            *(gateway.process for cluster in clusters for gateway in cluster.gateways),
            *(cluster.agent for cluster in clusters),
            self.hub,
            *(backend.process for cluster in clusters for backend in cluster.backends),
            *(() if self.openbao is None else (self.openbao.process,)),
        )

    async def start(self, progress: Callable[[str], None]) -> None:
        """Start everything, join all clusters, and return when every cluster reaches every other."""
        files.write_passphrase(self.folder)
        root: Mapping[str, Any] = {}
        if self.openbao is not None:
            root = await self.openbao.start()
            progress("OpenBao runs, is unsealed, and has the root")
        files.write_hub(self.folder, self.hub_api, self.hub_sync, {**self._hub_settings, **root})
        await self.hub.start()
        async with asyncio.TaskGroup() as group:
            for cluster in self.clusters.values():
                for backend in cluster.backends:
                    group.create_task(backend.process.start())
            await until("the hub's start", lambda: answers(self.hub_socket), watch=(self.hub,))
            progress("the hub runs")
            for cluster in self.clusters.values():
                group.create_task(self.start_cluster(cluster, progress))
        await until("the clusters' meeting", self.connected, watch=self.processes)
        progress("every cluster reaches every other")

    async def stop(self) -> None:
        """End what was started, gateways first, all at once within each kind."""
        await asyncio.gather(*(process.stop() for process in self.processes))

    async def kill(self) -> None:
        """End all of it at once."""
        await asyncio.gather(*(process.kill() for process in self.processes))

    async def served(self) -> bool:
        """Whether hub and agents run, and all that want them have found them."""
        clusters = await ask(self.hub_socket, "/v1/clusters")
        return (
            len(clusters) == len(PLANS) and all(one["connected"] for one in clusters) and await self.serving()
        )

    async def serving(self) -> bool:
        """Whether every gateway has its agent's newest plan, and reaches every other cluster."""
        for cluster in self.clusters.values():
            status = await ask(cluster.socket, "/v1/status")
            current = [
                gateway["connected"] and gateway["acknowledged"] == gateway["snapshot"] > 0
                for gateway in status["gateways"]
            ]
            reached = [peer["path"] == "up" for peer in status["peers"]]
            if (
                len(current) != cluster.plan.gateways
                or len(reached) != len(PLANS) - 1
                or not all(current + reached)
            ):
                return False
        return True

    async def connected(self) -> bool:
        """Whether, besides, every cluster plans with healthy backends in all of them."""
        for cluster in self.clusters.values():
            plan = await ask(cluster.socket, f"/v1/explain/{ECHO}")
            healthy = {line["cluster"] for port in plan["ports"] for line in port["lines"] if line["healthy"]}
            if healthy != set(self.clusters):
                return False
        return await self.serving()

    async def start_cluster(self, cluster: Cluster, progress: Callable[[str], None]) -> None:
        """Join one cluster and start its gateways; the hub has to run."""
        wanted = {"cluster": cluster.name, "may_export": ["default/*"], "ranges": [str(cluster.network)]}
        created = await ask(self.hub_socket, "/v1/tokens", method="POST", body=wanted)
        self.tokens[cluster.name] = created["token"]
        (cluster.folder / "services").mkdir(parents=True, exist_ok=True)
        for service in cluster.plan.services:
            self.write_service(cluster, service)
        files.write_agent(cluster, created["token"], self._agent_settings)
        await cluster.agent.start()
        await until(
            f"the join of {cluster.name}", lambda: answers(cluster.socket), watch=(cluster.agent, self.hub)
        )
        progress(f"{cluster.name} joined with its one-time token")
        for number in range(1, cluster.plan.gateways + 1):
            await self._start_gateway(cluster, number)
        progress(
            f"{cluster.name} has {cluster.plan.gateways} gateway{'s' if cluster.plan.gateways > 1 else ''}"
        )

    async def _start_gateway(self, cluster: Cluster, number: int) -> None:
        name = f"gateway-{number}"
        home = cluster.folder / name
        process = self._process(f"{cluster.name}-{name}", "gateway", home / "gateway.yaml")
        gateway = Gateway(name, HostPort.of(cluster.address(number), 15443), home, process)
        created = await ask(cluster.socket, "/v1/tokens", method="POST", body={"gateway_class": "eastwest"})
        files.write_gateway(gateway, created["token"], self._gateway_settings)
        cluster.gateways.append(gateway)
        await process.start()

    def _backends(self, cluster: Cluster) -> Iterator[Backend]:
        services = [name for name in cluster.plan.services for _ in range(BACKENDS if name == "echo" else 1)]
        for place, service in enumerate(services):
            address = HostPort.of(cluster.address(8 + place), 8080)
            command = (sys.executable, "-m", "federation.demo.backend", address.host, "8080", cluster.name)
            name = f"{cluster.name}-{service}-{place + 1}"
            yield Backend(service, address, Process(name, command, self.folder / f"{name}.log"))

    def write_service(self, cluster: Cluster, service: str) -> None:
        """The Kubernetes objects of one sample service; only `echo` is exported."""
        files.write_service(cluster, service, exported=service == "echo")

    def _process(self, name: str, command: str, config: Path) -> Process:
        argv = (sys.executable, "-m", "federation.cli.main", command, "--config", str(config))
        return Process(name, argv, self.folder / f"{name}.log")


def _openbao(folder: Path, address: HostPort) -> RootInOpenBao:
    """Imported when it is wanted: what speaks to Vault costs a fifth of a second."""
    from federation.demo.vault import RootInOpenBao

    return RootInOpenBao(folder, address)


def _unused_network() -> IPv4Network:
    """A /26 of loopback addresses on which nobody listens."""
    for _ in range(100):
        start = IPv4Address(f"127.{random.randint(64, 191)}.{random.randint(0, 255)}.0")
        try:
            for port in (8200, 8443, 8444, 8445, 8446, 9464, 9465, 9466, 15443):
                with socket.socket() as probe:
                    probe.bind((str(start + 1), port))
        except OSError:
            continue
        return IPv4Network((int(start), 26))
    raise FederationError(
        "no loopback address with free ports was found", "stop what listens on 0.0.0.0:8443-8446"
    )


@asynccontextmanager
async def world(
    folder: Path,
    progress: Callable[[str], None],
    agent: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    hub: Mapping[str, Any] | None = None,
    *,
    vault: bool = False,
) -> AsyncIterator[World]:
    """A running world for the life of the context; nothing of it is left afterwards but the folder.

    With `vault` the root is in an OpenBao of its own.
    Whoever is cancelled while it stops does not wait any longer: what still runs is killed.
    """
    made = World(folder, agent, gateway, hub, vault=vault)
    try:
        await made.start(progress)
        yield made
    finally:
        try:
            await made.stop()
        except asyncio.CancelledError:
            await made.kill()
            raise
