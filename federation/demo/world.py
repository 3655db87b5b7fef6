"""The demo's world: one hub, three clusters, their gateways and sample services, each a process of its own.

Every cluster has a slice of loopback addresses that nobody else uses, so several demos live side by side.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from federation.api.client import Refusal, Target, connect
from federation.demo.processes import Process
from federation.document import dump
from federation.errors import FederationError, Unreachable
from federation.listen import HostPort

BASE = "mesh.example"
ECHO = "default/echo"
SECRET = "default/secret"
READY_WITHIN = 60.0
"""Seconds that one process may take to become ready on a busy machine."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one cluster of the demo consists of."""

    name: str
    region: str
    gateways: int
    services: tuple[str, ...]


PLANS = (
    Plan("east", "eu", 1, ("echo",)),
    Plan("west", "eu", 2, ("echo", "secret")),
    Plan("central", "us", 1, ("echo",)),
)
REGIONS = ("eu", "us")
BACKENDS = 2


@dataclass(slots=True)
class Gateway:
    """A gateway of a demo cluster; `address` is where other clusters dial it."""

    name: str
    address: HostPort
    socket: Path
    process: Process

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await ask(self.socket, "/v1/status")
        return found


@dataclass(slots=True)
class Backend:
    service: str
    address: HostPort
    process: Process


@dataclass(slots=True)
class Cluster:
    """A running cluster of the demo."""

    plan: Plan
    network: IPv4Network
    folder: Path
    agent: Process
    gateways: list[Gateway] = field(default_factory=list)
    backends: list[Backend] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def socket(self) -> Path:
        return self.folder / "agent" / "api.sock"

    def of(self, service: str) -> list[Backend]:
        return [backend for backend in self.backends if backend.service == service]

    async def imports(self) -> dict[str, str]:
        """`namespace/name:port` to `host:port` of its listener in this cluster."""
        services = await ask(self.socket, "/v1/services")
        return {
            f"{service['service']}:{port['port']}": port["reach"][0]
            for service in services
            for port in service["ports"]
            if port["reach"]
        }


async def ask(path: Path, route: str, *, method: str = "GET", body: Any = None) -> Any:
    """One call of the process behind the unix socket `path`."""
    async with connect(Target(f"unix://{path}")) as client:
        return await client.call(method, route, body=body)


async def until(what: str, holds: Callable[[], Awaitable[bool]], *, watch: tuple[Process, ...] = ()) -> None:
    """Wait for a condition. Raises FederationError if it does not come, or if a process that it needs stopped."""
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    while True:
        for process in watch:
            process.check()
        try:
            if await holds():
                return
        except (Unreachable, Refusal):
            pass
        if asyncio.get_running_loop().time() > deadline:
            logs = ", ".join(str(process.log) for process in watch)
            raise FederationError(
                f"{what} did not happen within {READY_WITHIN:.0f} s", f"see {logs}" if logs else ""
            )
        await asyncio.sleep(0.03)


class World:
    """Starts, changes and ends the processes of one demo in `folder`.

    `agent` and `gateway` are settings that every agent and every gateway gets besides the demo's own.
    """

    def __init__(
        self, folder: Path, agent: Mapping[str, Any] | None = None, gateway: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self._agent_settings = agent or {}
        self._gateway_settings = gateway or {}
        self.network = _unused_network()
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
        )

    async def start(self, progress: Callable[[str], None]) -> None:
        """Start everything, join all clusters, and return when every cluster reaches every other."""
        self._write_hub()
        await self.hub.start()
        async with asyncio.TaskGroup() as group:
            for cluster in self.clusters.values():
                for backend in cluster.backends:
                    group.create_task(backend.process.start())
            await until("the hub's start", lambda: _answers(self.hub_socket), watch=(self.hub,))
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
        (cluster.folder / "services").mkdir(parents=True, exist_ok=True)
        wanted = {"cluster": cluster.name, "may_export": ["default/*"], "ranges": [str(cluster.network)]}
        created = await ask(self.hub_socket, "/v1/tokens", method="POST", body=wanted)
        self.tokens[cluster.name] = created["token"]
        _write_private(cluster.folder / "join.token", created["token"])
        for service in cluster.plan.services:
            self.write_service(cluster, service)
        self._write_agent(cluster)
        await cluster.agent.start()
        await until(
            f"the join of {cluster.name}", lambda: _answers(cluster.socket), watch=(cluster.agent, self.hub)
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
        home.mkdir(exist_ok=True)
        created = await ask(cluster.socket, "/v1/tokens", method="POST", body={"gateway_class": "eastwest"})
        _write_private(home / "token", created["token"])
        address = HostPort.of(self._address(cluster, number), 15443)
        settings = {
            "name": name,
            "advertise": str(address),
            "token": str(home / "token"),
            "directory": str(home / "state"),
            "listen": {"address": address.host, "eastwest": 15443, "telemetry": f"{address.host}:9466"},
            "envoy": {"drain": "1s"},
        }
        _write(home / "gateway.yaml", dump(settings | dict(self._gateway_settings)))
        process = self._process(f"{cluster.name}-{name}", "gateway", home / "gateway.yaml")
        cluster.gateways.append(Gateway(name, address, home / "state" / "api.sock", process))
        await process.start()

    def _backends(self, cluster: Cluster) -> Iterator[Backend]:
        services = [name for name in cluster.plan.services for _ in range(BACKENDS if name == "echo" else 1)]
        for place, service in enumerate(services):
            address = HostPort.of(self._address(cluster, 8 + place), 8080)
            command = (sys.executable, "-m", "federation.demo.backend", address.host, "8080", cluster.name)
            name = f"{cluster.name}-{service}-{place + 1}"
            yield Backend(service, address, Process(name, command, self.folder / f"{name}.log"))

    def write_service(self, cluster: Cluster, service: str) -> None:
        """The Kubernetes objects of one sample service; only `echo` is exported."""
        addresses = [backend.address.host for backend in cluster.of(service)]
        text = objects(service, addresses, exported=service == "echo")
        _write(cluster.folder / "services" / f"{service}.yaml", text)

    def _write_hub(self) -> None:
        host = self.hub_api.host
        settings = {
            "base": BASE,
            "directory": str(self.folder / "hub"),
            "advertise": {"api": str(self.hub_api), "sync": str(self.hub_sync)},
            "listen": {"api": str(self.hub_api), "sync": str(self.hub_sync), "telemetry": f"{host}:9464"},
        }
        _write(self.folder / "hub.yaml", dump(settings))

    def _write_agent(self, cluster: Cluster) -> None:
        host = self._address(cluster, 0)
        settings = {
            "cluster": cluster.name,
            "region": cluster.plan.region,
            "regions": list(REGIONS),
            "directory": str(cluster.folder / "agent"),
            "services": str(cluster.folder / "services"),
            "join_token": str(cluster.folder / "join.token"),
            "advertise": {"api": f"{host}:8445", "xds": f"{host}:8446"},
            "listen": {"api": f"{host}:8445", "xds": f"{host}:8446", "telemetry": f"{host}:9465"},
            "access_log": str(cluster.folder / "access.log"),
        }
        _write(cluster.folder / "agent.yaml", dump(settings | dict(self._agent_settings)))

    def _process(self, name: str, command: str, config: Path) -> Process:
        argv = (sys.executable, "-m", "federation.cli.main", command, "--config", str(config))
        return Process(name, argv, self.folder / f"{name}.log")

    @staticmethod
    def _address(cluster: Cluster, number: int) -> str:
        return str(cluster.network.network_address + number)


def objects(name: str, addresses: Sequence[str], *, port: int = 8080, exported: bool = True) -> str:
    """The service `default/<name>:80` as Kubernetes objects, in YAML; its backends listen on `port`."""
    meta = {"name": name, "namespace": "default"}
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        },
    ]
    if exported:
        api = "multicluster.x-k8s.io/v1beta1"
        found.append({"apiVersion": api, "kind": "ServiceExport", "metadata": meta})
    return "---\n".join(dump(each) for each in found)


async def _answers(path: Path) -> bool:
    await ask(path, "/v1/status")
    return True


def _unused_network() -> IPv4Network:
    """A /26 of loopback addresses on which nobody listens."""
    for _ in range(100):
        start = IPv4Address(f"127.{random.randint(64, 191)}.{random.randint(0, 255)}.0")
        try:
            for port in (8443, 8444, 8445, 8446, 9464, 9465, 9466, 15443):
                with socket.socket() as probe:
                    probe.bind((str(start + 1), port))
        except OSError:
            continue
        return IPv4Network((int(start), 26))
    raise FederationError(
        "no loopback address with free ports was found", "stop what listens on 0.0.0.0:8443-8446"
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_private(path: Path, text: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as file:
        file.write(text)


@asynccontextmanager
async def world(
    folder: Path,
    progress: Callable[[str], None],
    agent: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
) -> AsyncIterator[World]:
    """A running world for the life of the context; nothing of it is left afterwards but the folder.

    Whoever is cancelled while it stops does not wait any longer: what still runs is killed.
    """
    made = World(folder, agent, gateway)
    try:
        await made.start(progress)
        yield made
    finally:
        try:
            await made.stop()
        except asyncio.CancelledError:
            await made.kill()
            raise
