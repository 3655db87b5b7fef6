"""What the demo consists of: which clusters are planned, and what each has once it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from federation.demo.asking import ask
from federation.demo.processes import Process
from federation.listen import HostPort

BASE = "mesh.example"
ECHO = "default/echo"
SECRET = "default/secret"


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
    folder: Path
    process: Process

    @property
    def socket(self) -> Path:
        return self.folder / "state" / "api.sock"

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = await ask(self.socket, "/v1/status")
        return found


@dataclass(slots=True)
class Backend:
    """One process behind a sample service."""

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

    def address(self, number: int) -> str:
        """The agent has number 0; gateways and backends follow."""
        return str(self.network.network_address + number)

    def of(self, service: str) -> list[Backend]:
        return [backend for backend in self.backends if backend.service == service]

    async def imports(self) -> dict[str, str]:
        """`namespace/name:port` to `host:port` of its listener at one gateway of this cluster."""
        return {port: reach[0] for port, reach in (await self.reach()).items()}

    async def reach(self) -> dict[str, list[str]]:
        """`namespace/name:port` to `host:port` of its listener at each gateway of this cluster."""
        services = await ask(self.socket, "/v1/services")
        return {
            f"{service['service']}:{port['port']}": port["reach"]
            for service in services
            for port in service["ports"]
            if port["reach"]
        }
