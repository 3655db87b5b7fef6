"""What the scenarios do to a running federation: change its services, look at it, and make it whole again."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.api.client import Target, connect
from federation.demo.asking import ask, until
from federation.demo.clusters import Gateway
from federation.demo.files import objects
from federation.demo.world import World
from federation.listen import HostPort

REMOTE = "remote"
"""A service that west and central export, and east does not: from east its connections are tunnels."""

OWN = ("echo.yaml", "secret.yaml", f"{REMOTE}.yaml")


def add_service(
    world: World,
    cluster: str,
    name: str,
    addresses: Sequence[str] | None = None,
    *,
    port: int = 8080,
    exported: bool = True,
) -> None:
    """Describe `default/<name>` in `cluster`, on the backends of its sample service if no others are given.

    The file appears whole, as a careful writer's would.
    """
    home = world.clusters[cluster]
    found = [one.address.host for one in home.of("echo")] if addresses is None else addresses
    replace(home.folder / "services" / f"{name}.yaml", objects(name, found, port=port, exported=exported))


def replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def remove_service(world: World, cluster: str, name: str) -> None:
    (world.clusters[cluster].folder / "services" / f"{name}.yaml").unlink()


async def reach(world: World, cluster: str, name: str) -> HostPort:
    """Where `default/<name>:80` is reached in `cluster`, as soon as it is."""
    found: dict[str, str] = {}

    async def imported() -> bool:
        found.update(await world.clusters[cluster].imports())
        return f"default/{name}:80" in found

    await until(f"the import of {name} in {cluster}", imported)
    return HostPort.parse(found[f"default/{name}:80"])


async def withdrawn(world: World, cluster: str, name: str) -> None:
    async def not_imported() -> bool:
        return f"default/{name}:80" not in await world.clusters[cluster].imports()

    await until(f"the end of {name} in {cluster}", not_imported)


async def healthy(world: World, cluster: str, name: str) -> set[str]:
    """The clusters in which `cluster` counts on healthy backends of `default/<name>`."""
    plan = await ask(world.clusters[cluster].socket, f"/v1/explain/default/{name}")
    return {line["cluster"] for port in plan["ports"] for line in port["lines"] if line["healthy"]}


async def planned(world: World, cluster: str, name: str, clusters: set[str]) -> None:
    async def as_planned() -> bool:
        return await healthy(world, cluster, name) == clusters

    await until(f"{cluster} counting on {sorted(clusters)} for {name}", as_planned)


async def settled(world: World) -> None:
    """Wait until every Envoy has what its agent wants it to have."""
    gateways = [gateway for cluster in world.clusters.values() for gateway in cluster.gateways]

    async def live() -> bool:
        return all([(await gateway.status())["envoy_live"] for gateway in gateways])

    await until("every Envoy's start", live, watch=world.processes)
    await until("the newest plan at every gateway", world.serving, watch=world.processes)


async def admin(gateway: Gateway, path: str, **query: str) -> Any:
    """What the gateway's Envoy says of itself."""
    async with connect(Target(f"unix://{gateway.socket.parent / 'admin.sock'}")) as client:
        return await client.get(path, **query)


async def listeners(gateway: Gateway) -> dict[str, tuple[str, int]]:
    """Where the gateway's Envoy listens for clients and peers; one that has just started says nothing of listeners."""
    found = await admin(gateway, "/listeners", format="json")
    statuses = found.get("listener_statuses", ())
    sockets = {one["name"]: one["local_address"].get("socket_address") for one in statuses}
    return {name: (at["address"], at["port_value"]) for name, at in sockets.items() if at}


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether the process is there and not merely waiting for its parent to read its status."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def gone(*pids: int) -> None:
    async def all_gone() -> bool:
        return not any(alive(pid) for pid in pids)

    await until(f"the end of {pids}", all_gone)


async def mend(world: World) -> None:
    """Start what does not run, take back what was changed, and wait until every cluster counts on every other."""
    for process in world.processes:
        process.signal(signal.SIGCONT)
        if not process.running:
            await process.start()
    added = set[str]()
    for cluster in world.clusters.values():
        for path in (cluster.folder / "services").iterdir():
            if path.name not in OWN:
                path.unlink()
                added.add(path.stem)
        for service in cluster.plan.services:
            world.write_service(cluster, service)
        if cluster.name != "east":
            add_service(world, cluster.name, REMOTE)
    await until("the return of the hub and its agents", world.served, watch=world.processes)
    await until("the clusters' meeting", world.connected, watch=world.processes)
    for name in world.clusters:
        await planned(world, name, REMOTE, {"west", "central"})
        for service in sorted(added - {REMOTE}):
            await withdrawn(world, name, service)
    await settled(world)
