"""A tunnel lives as long as its client and its backend want it to, whatever is changed around it meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from ipaddress import IPv4Network
from typing import Any

import pytest

from federation.demo.asking import ask, until
from federation.demo.clusters import Plan
from federation.demo.world import World
from gateway import names
from tests.scenarios.changes import (
    REMOTE,
    add_service,
    admin,
    planned,
    reach,
    remove_service,
    settled,
    withdrawn,
)
from tests.scenarios.conftest import DRAIN, IDLE
from tests.scenarios.traffic import QUESTION, answered_by, kept

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

LINES = 4
"""Connections that stay, so that some go through each of west's two gateways."""

HOUR = "3600s"


async def test_established_tunnels_outlive_every_change_of_services(federation: World) -> None:
    """Services and backends come and go, their own too; hub and agents are killed."""
    west = federation.clusters["west"]
    both = [one.address.host for one in west.of("echo")]
    to = await reach(federation, "east", REMOTE)
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(kept(to)) for _ in range(LINES)]
        assert {line.who for line in lines} == {"west"}
        for cluster in federation.clusters:
            add_service(federation, cluster, "passing")
            await planned(federation, "east", "passing", {cluster})
            await settled(federation)
            remove_service(federation, cluster, "passing")
            await withdrawn(federation, "east", "passing")
        for addresses in (both[:1], both[1:], both):
            add_service(federation, "west", REMOTE, addresses)
            await settled(federation)
        remove_service(federation, "central", REMOTE)
        await planned(federation, "east", REMOTE, {"west"})
        add_service(federation, "east", REMOTE)
        await until("east's own answer to new clients", answered_by(to, "east"))
        remove_service(federation, "east", REMOTE)
        await planned(federation, "east", REMOTE, {"west"})
        for process in (federation.hub, federation.clusters["east"].agent, west.agent):
            await process.kill()
            await process.start()
        await until("the return of hub and agents", federation.served, watch=federation.processes)
        await settled(federation)
        for line in lines:
            assert await line.goes_on(), line.ended
        assert {line.who for line in lines} == {"west"}


async def test_established_tunnels_outlive_renewals_and_peers_that_come_and_go(hasty: World) -> None:
    """Every certificate on the way is renewed twice; one cluster joins and leaves, another is put aside for a while."""
    to = await reach(hasty, "east", REMOTE)
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(kept(to)) for _ in range(LINES)]
        assert {line.who for line in lines} == {"west"}
        before = await _certificates(hasty)
        free = IPv4Network((int(hasty.network.network_address) + 8, 29))
        north = hasty.clusters["north"] = hasty.place(Plan("north", "us", 0, ()), free)
        try:
            await hasty.start_cluster(north, lambda _: None)
            await _chains(hasty, {"central", "north"})
            await ask(hasty.hub_socket, "/v1/clusters/north", method="DELETE")
            await _chains(hasty, {"central"})
        finally:
            del hasty.clusters["north"]
            await north.agent.stop()
        for state, peers in (("quarantined", set()), ("active", {"central"})):
            await ask(hasty.hub_socket, "/v1/clusters/central", method="PUT", body={"state": state})
            await _chains(hasty, peers)
        between = await _renewed(hasty, before)
        await _renewed(hasty, between)
        await asyncio.sleep(DRAIN)
        for line in lines:
            assert await line.goes_on(), line.ended


async def _chains(world: World, others: set[str]) -> None:
    """Wait until the Envoys of east and west have filter chains for each other and `others`."""

    async def as_wanted() -> bool:
        for name, peer in (("east", "west"), ("west", "east")):
            wanted = {names.inbound(one) for one in (peer, *others)}
            for gateway in world.clusters[name].gateways:
                dump = await admin(gateway, "/config_dump", resource="dynamic_listeners")
                found = {one["name"] for one in _with(dump, "filter_chain_match")}
                if found != wanted:
                    return False
        return True

    await until(f"filter chains for {sorted(others)}", as_wanted, watch=world.processes)


async def _certificates(world: World) -> list[set[str]]:
    """The serial numbers of the leaves that the Envoys of east and west use."""
    gateways = [one for name in ("east", "west") for one in world.clusters[name].gateways]
    found = [await admin(one, "/certs") for one in gateways]
    return [
        {leaf["serial_number"] for one in each["certificates"] for leaf in one["cert_chain"]}
        for each in found
    ]


async def _renewed(world: World, before: list[set[str]]) -> list[set[str]]:
    """The serial numbers once every Envoy has a leaf that it did not have before, and none of the old ones."""
    found = before

    async def all_new() -> bool:
        nonlocal found
        found = await _certificates(world)
        return all(now and not now & old for now, old in zip(found, before, strict=True))

    await until("the renewal of all certificates", all_new, watch=world.processes)
    return found


@pytest.mark.parametrize("service", ["echo", REMOTE])
async def test_idle_tunnel_is_closed_when_its_time_is_over_and_not_before(hasty: World, service: str) -> None:
    """`echo` stays within east, the other goes through two Envoys: the hop that waits least decides."""
    to = await reach(hasty, "east", service)
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        began = time.monotonic()
        writer.write(QUESTION)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(10 * IDLE):
            assert await reader.read() in (b"east\n", b"west\n")
        assert time.monotonic() - began > 0.95 * IDLE
    finally:
        writer.close()


async def test_no_shorter_default_of_envoy_remains_on_any_hop(federation: World) -> None:
    """Everything that counts idle time on the way of a tunnel is set, and nothing limits how long one lives.

    Envoy's own: 5 minutes for a stream, 15 s for a route, one hour for connections and TCP sessions.
    """
    for cluster in federation.clusters.values():
        gateway = cluster.gateways[0]
        kinds = ("dynamic_listeners", "dynamic_active_clusters", "dynamic_route_configs")
        dump = [await admin(gateway, "/config_dump", resource=kind) for kind in kinds]
        managers = list(_of_type(dump, "HttpConnectionManager"))
        sessions = list(_of_type(dump, "TcpProxy"))
        upstreams = list(_of_type(dump, "HttpProtocolOptions"))
        routes = [one["route"] for one in _with(dump, "route")]
        assert len(managers) >= 5, "for two peers, for ourselves, and on the ways to two peers"
        assert len(sessions) >= 2, "the imports"
        assert len(upstreams) >= 4, "the imports, and the gateways of two peers"
        assert len(routes) >= 5
        for manager in managers:
            assert manager["stream_idle_timeout"] == HOUR
            assert manager["common_http_protocol_options"] == {"idle_timeout": HOUR}
            assert "request_timeout" not in manager
        assert {one["idle_timeout"] for one in sessions} == {HOUR}
        assert {one["common_http_protocol_options"]["idle_timeout"] for one in upstreams} == {HOUR}
        assert {(one["timeout"], one["idle_timeout"]) for one in routes} == {("0s", HOUR)}
        for limit in ("max_stream_duration", "max_connection_duration", "max_downstream_connection_duration"):
            assert not list(_with(dump, limit))


def _of_type(dump: Any, name: str) -> Iterator[dict[str, Any]]:
    """Every message of this type in a dump, whatever it is nested in."""
    return (one for one in _with(dump, "@type") if one["@type"].rpartition(".")[2] == name)


def _with(tree: Any, key: str) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value that has `key`."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree
        for inner in tree.values():
            yield from _with(inner, key)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _with(inner, key)
