"""Two real gateways, east and west, each from a compiled snapshot; central is an enemy with a CA of its own."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.inputs import FabricInputs
from federation.model import Service
from federation.route import PortPlan
from gateway import names
from gateway.check import check
from gateway.compile import Place, compile_step, start
from gateway.snapshot import Snapshot
from gateway.tuning import PathTuning, Tuning, TunnelTuning
from tests.gateway.certificates import BASE, Identity, ca
from tests.gateway.envoys import (
    DEADLINE,
    REFUSED,
    Backend,
    Envoy,
    ask,
    backend,
    connect,
    eventually,
    free_port,
    frozen,
    running,
)
from tests.gateway.plans import ECHO, fabric, line, peer, plan

pytestmark = pytest.mark.live

EAST, WEST = "127.0.0.1", "127.0.0.2"
SHOP = Service("default", "shop")
SECRET = Service("default", "secret")
STORM = Service("default", "storm")


def snapshot(around: FabricInputs, plans: Sequence[PortPlan], tuning: Tuning) -> Snapshot:
    by_service = {one.service: (one,) for one in plans}
    made = compile_step(start(around, tuning), by_service, around).snapshots[around.binds[0]]
    assert check(made).problems == ()
    return made


@dataclass(frozen=True)
class Pair:
    """What a test needs to know of the running pair; `echo` and `storm` are listeners in east."""

    east: Envoy
    west: Envoy
    west_gateway: tuple[str, int]
    echo: tuple[str, int]
    storm: tuple[str, int]
    east_backend: Backend
    west_backend: Backend
    logs: Path


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """PINGs are patient here: a gateway that a test or a busy machine holds up for a moment is not a lost one."""
    ports = {name: free_port(address) for name, address in (("east", EAST), ("west", WEST))}
    listen, storm = free_port(EAST), free_port(EAST)
    east_place: Place = (names.GATEWAY_CLASS, EAST, ports["east"])
    west_place: Place = (names.GATEWAY_CLASS, WEST, ports["west"])
    tuning = Tuning(
        access_log="access.json",
        tunnel=TunnelTuning(ejection=0.2, longest_ejection=0.4),
        path=PathTuning(ping_timeout=DEADLINE),
    )
    with ExitStack() as stack:
        here, there = stack.enter_context(backend("east")), stack.enter_context(backend("west"))
        closing = stack.enter_context(backend("west", closing=True))
        east = snapshot(
            fabric(peer("west", (WEST, ports["west"])), binds=[east_place]),
            [
                plan(["east"], ["west"], listen_port=listen, local=[here.address]),
                plan(["west"], service=STORM, listen_port=storm),
            ],
            tuning,
        )
        west = snapshot(
            fabric(peer("east"), peer("central"), me="west", binds=[west_place]),
            [
                plan(["west"], service=ECHO, listen_port=None, local=[there.address], exported_to=["east"]),
                plan(
                    ["west"], service=SHOP, listen_port=None, local=[there.address], exported_to=["central"]
                ),
                plan(["west"], service=SECRET, listen_port=None, local=[there.address]),
                plan(
                    ["west"], service=STORM, listen_port=None, local=[closing.address], exported_to=["east"]
                ),
            ],
            tuning,
        )
        west_envoy = stack.enter_context(running(west, "west", tmp_path, ca("west").write(tmp_path / "w")))
        east_envoy = stack.enter_context(running(east, "east", tmp_path, ca("east").write(tmp_path / "e")))
        eventually(
            lambda: east_envoy.hosts("gateway/west"),
            lambda hosts: (
                [host["health_status"].get("eds_health_status") for host in hosts.values()] == ["HEALTHY"]
                and not any("failed_active_health_check" in host["health_status"] for host in hosts.values())
            ),
        )
        yield Pair(
            east_envoy,
            west_envoy,
            (WEST, ports["west"]),
            (EAST, listen),
            (EAST, storm),
            here,
            there,
            tmp_path,
        )


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in log.read_text().splitlines()] if log.exists() else []


def test_a_request_is_answered_here_then_there_and_the_log_says_so(pair: Pair) -> None:
    assert ask(pair.echo) == "east"
    pair.east_backend.stop()
    assert [ask(pair.echo) for _ in range(20)] == ["west"] * 20

    written = eventually(
        lambda: [one for one in entries(pair.logs / "east/access.json") if one["direction"] == "outbound"],
        lambda lines: len(lines) == 21,
    )
    assert written[0] | {"service": "default/echo:80", "source": "east", "destination": "east"} == written[0]
    far = written[-1]
    assert far | {"destination": "west", "reason": "local", "tier": 1, "source": "east"} == far
    inbound = eventually(lambda: entries(pair.logs / "west/access.json"), lambda lines: len(lines) == 20)
    expected = {
        "direction": "inbound",
        "source": "east",
        "destination": "west",
        "authority": names.authority(ECHO, 80),
        "gateway": "{}:{}".format(*pair.west_gateway),
        "backend": "{}:{}".format(*pair.west_backend.address),
        "peer": "spiffe://east.mesh.example/gateway/eastwest",
        "code": 200,
    }
    assert all(one | expected == one for one in inbound)


def knock(pair: Pair, chain_of: str, identity: Identity | None, service: Service) -> str:
    west = ca("west")
    sni = names.sni(chain_of, west.trust_domain)
    return connect(pair.west_gateway, west, sni, identity, names.authority(service, 80))


def test_only_what_is_exported_to_a_peer_is_reached_by_it(pair: Pair, tmp_path: Path) -> None:
    east = ca("east").write(tmp_path / "own")
    central = ca("central").write(tmp_path / "other")
    assert knock(pair, "east", east, ECHO) == "200"
    assert knock(pair, "east", east, SHOP) == "404"
    assert knock(pair, "east", east, SECRET) == "404"
    assert knock(pair, "central", central, SHOP) == "200"
    assert knock(pair, "central", central, ECHO) == "404"
    assert knock(pair, "central", central, SECRET) == "404"


def test_a_chain_takes_the_certificates_of_its_peer_only(pair: Pair, tmp_path: Path) -> None:
    own, other = (f"spiffe://{name}.{BASE}/gateway/eastwest" for name in ("central", "east"))
    enemy = ca("central")
    attacks = {
        "honest, on a foreign chain": enemy.write(tmp_path / "1"),
        "forged": enemy.write(tmp_path / "2", other),
        "both, own first": enemy.write(tmp_path / "3", own, other),
        "both, foreign first": enemy.write(tmp_path / "4", other, own),
        "another role": ca("east").write(tmp_path / "5", f"spiffe://east.{BASE}/agent"),
        "no certificate": None,
    }
    outcome = {name: knock(pair, "east", identity, ECHO) for name, identity in attacks.items()}
    assert outcome == dict.fromkeys(attacks, REFUSED)
    assert knock(pair, "east", ca("east").write(tmp_path / "6"), ECHO) == "200"

    two_faced = attacks["both, own first"]
    assert knock(pair, "central", two_faced, ECHO) == "404", "on its own chain it counts for its own cluster"
    assert knock(pair, "central", two_faced, SHOP) == "200"


@pytest.mark.parametrize("sni", ["from-north.west.mesh.example", "from-east.central.mesh.example", "west"])
def test_a_name_without_a_chain_is_closed(pair: Pair, tmp_path: Path, sni: str) -> None:
    east = ca("east").write(tmp_path / "own")
    west = ca("west")
    assert connect(pair.west_gateway, west, sni, east, names.authority(ECHO, 80)) == REFUSED


def test_nothing_older_than_tls_1_3_is_spoken_or_accepted(pair: Pair, tmp_path: Path) -> None:
    said = json.loads(pair.east.get("/stats?format=json&filter=cluster.gateway/west.ssl.versions"))
    assert {one["name"].rpartition("versions.")[2] for one in said["stats"] if one["value"]} == {"TLSv1.3"}

    west, east = ca("west"), ca("east").write(tmp_path / "own")
    sni = names.sni("east", west.trust_domain)
    older = ssl.TLSVersion.TLSv1_2
    assert connect(pair.west_gateway, west, sni, east, names.authority(ECHO, 80), most=older) == REFUSED


def test_a_tier_keeps_all_of_its_traffic_while_one_light_cluster_of_it_is_healthy(
    pair: Pair, tmp_path: Path
) -> None:
    port, listen = free_port(EAST), free_port(EAST)
    two_in_a_tier = plan(
        [line("west", 1), line("central", 10**6, healthy=False)],
        ["east"],
        listen_port=listen,
        local=[pair.east_backend.address],
    )
    peers = peer("west", pair.west_gateway), peer("central", (WEST, free_port(WEST)))
    made = snapshot(fabric(*peers, binds=[(names.GATEWAY_CLASS, EAST, port)]), [two_in_a_tier], Tuning())
    with running(made, "light", tmp_path, ca("east").write(tmp_path / "light-id")) as admin:
        hosts = admin.hosts("default/echo:80")
        assert hosts["to/central"]["health_status"]["eds_health_status"] == "UNHEALTHY"
        assert (hosts["to/west"]["weight"], hosts["to/central"]["weight"]) == (1, 3999)
        assert Counter(ask((EAST, listen)) for _ in range(200)) == {"west": 200}
        pair.west_backend.stop()
        assert Counter(ask((EAST, listen)) for _ in range(50)) == {"east": 50}


CLOSES = 2400
"""More than the 1,000 resets in a burst at which Envoy's default HTTP/2 codec ends a connection."""


def abort(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=DEADLINE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"who?\n")


def aborted_by_clients(pair: Pair) -> None:
    for _ in range(CLOSES):
        abort(pair.storm)


def aborted_while_the_gateway_is_off_the_processor(pair: Pair) -> None:
    for _ in range(4):
        with frozen(pair.east, 0.3):
            for _ in range(CLOSES):
                abort(pair.storm)


def closed_by_the_backend(pair: Pair) -> None:
    for _ in range(CLOSES):
        assert ask(pair.storm) == ""


@pytest.mark.parametrize(
    "storm", [aborted_by_clients, aborted_while_the_gateway_is_off_the_processor, closed_by_the_backend]
)
def test_a_storm_on_one_service_leaves_the_tunnels_of_another_alone(
    pair: Pair, storm: Callable[[Pair], None]
) -> None:
    pair.east_backend.stop()
    with socket.create_connection(pair.echo, timeout=DEADLINE) as kept:
        kept.sendall(b"who?\n")
        assert kept.recv(100) == b"west\n"
        storm(pair)
        kept.sendall(b"who?\n")
        assert kept.recv(100) == b"west\n", "the same connection still answers"
