"""What a certificate costs: our issuer, with its journal, and OpenBao's `pki/sign`, with its audit log, side by side.

Both sign with P-256 over TLS for as many clients at a time; each server has one CPU and the clients have the other. The
cost is CPU time of the server, which is what a core can give, however fast the clients are. Nothing is stored by
OpenBao (`no_store`), while ours keeps a ledger of what lives.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.harness import Cost, Judged, Row, alternate
from bench.issuer import DOOR
from bench.issuing import CLIENTS, Bao, Fleet, Load
from bench.processes import (
    LOAD_CPU,
    SERVER_CPU,
    cpu_seconds,
    listening,
    loopback,
    pin,
    resident_bytes,
    running,
)
from federation.api.tls import client_context
from federation.demo.openbao import Server
from federation.listen import HostPort
from pki import durable
from pki.certificate import load_pem

WORKLOADS = 2000
SLICE = 1.0
"""Seconds of load at a time."""
BATCH = 16
LARGE_BATCH = 40
"""Certificates of one call when all are re-keyed: fifty nodes with forty workloads each."""
REKEYED = 3
"""How often all are re-keyed at once."""


async def issuance(folder: Path) -> list[Row]:
    """CPU time a certificate, single and in batches, the slowest calls, and everybody re-keyed at once."""
    async with _ours(folder) as (fleet, ours), _openbao(folder) as (bao, peer):
        rows = await _compared("issuance", 1, fleet, ours, bao, peer, 1 / 1.5)
        rows += await _compared(f"issuance-{BATCH}", BATCH, fleet, ours, bao, peer, 1 / 3)
        before = resident_bytes(ours)
        rekeyed = [await fleet.rekey(LARGE_BATCH) for _ in range(REKEYED)]
        slowest = tuple(load.p99 * 1e3 for load in rekeyed)
        note = f"p99, {WORKLOADS:,} identities re-keyed at once, {LARGE_BATCH} a call"
        rows.append(Row("issuance-rekey", "ms", slowest, (), Judged.WORST, 1000.0, note))
        grown = (resident_bytes(ours) / 2**20,)
        note = f"resident after that, {before / 2**20:.0f} MiB before"
        rows.append(
            Row("issuance-memory", "MiB", grown, (resident_bytes(peer) / 2**20,), Judged.RATIO, None, note)
        )
    return [*rows, await _two_processes(folder)]


async def _two_processes(folder: Path) -> Row:
    """Time a certificate with a door in front of the issuer, beside the issuer alone; both are loaded to the full."""
    async with (
        _ours(folder, "alone") as (fleet, _),
        _ours(folder, "with-door", door=True) as (fleet_of_two, _),
    ):

        def renewing(which: Fleet) -> Callable[[], Awaitable[Cost]]:
            async def renew() -> Cost:
                load = await which.renew(BATCH, SLICE)
                return Cost(load.seconds * 1e6, load.certificates)

            return renew

        two, one = await alternate(renewing(fleet_of_two), renewing(fleet), 1)
    note = f"time a certificate, {BATCH} a call: issuer and one door, and the issuer alone"
    return Row("issuance-two", "µs", two, one, Judged.RATIO, 1 / 1.7, note)


async def _compared(
    name: str, batch: int, fleet: Fleet, ours: int, bao: Bao, peer: int, goal: float
) -> list[Row]:
    """The CPU time of one certificate, and how long the slowest call in a hundred took."""
    mine: list[Load] = []
    theirs: list[Load] = []

    async def renew() -> Cost:
        before = cpu_seconds((ours,))
        mine.append(await fleet.renew(batch, SLICE))
        return Cost((cpu_seconds((ours,)) - before) * 1e6, mine[-1].certificates)

    async def sign() -> Cost:
        before = cpu_seconds((peer,))
        theirs.append(await bao.sign(SLICE))
        return Cost((cpu_seconds((peer,)) - before) * 1e6, theirs[-1].certificates)

    spent, peers = await alternate(renew, sign, 1)
    of = "a certificate" if batch == 1 else f"a certificate, {batch} a call"
    slow, peers_slow = (tuple(load.p99 * 1e3 for load in loads[1:]) for loads in (mine, theirs))
    return [
        Row(name, "µs", spent, peers, Judged.RATIO, goal, f"CPU {of}; OpenBao pki/sign, one a call"),
        Row(
            f"{name}-p99",
            "ms",
            slow,
            peers_slow,
            Judged.RATIO,
            1.0 if batch == 1 else None,
            f"p99 of a call, {CLIENTS} at a time",
        ),
    ]


@asynccontextmanager
async def _ours(
    folder: Path, name: str = "issuer", *, door: bool = False
) -> AsyncIterator[tuple[Fleet, int]]:
    """Our issuer's clients, and its process. A door has the CPU of the load."""
    home = durable.private_folder(folder / name)
    (host,) = loopback(1, [8446])
    address = HostPort.of(host, 8446)
    command = (sys.executable, "-m", "bench.issuer", str(home), str(address), str(WORKLOADS))
    pin((os.getpid(),), LOAD_CPU)
    async with running(name, (*command, *(["door"] if door else [])), folder, SERVER_CPU) as process:
        await listening(process, address)
        if door:
            pin((int((home / DOOR).read_text()),), LOAD_CPU)
        fleet = Fleet(home, address)
        try:
            yield fleet, process.pid
        finally:
            await fleet.close()


@asynccontextmanager
async def _openbao(folder: Path) -> AsyncIterator[tuple[Bao, int]]:
    """OpenBao's clients, and its process: unsealed, with a PKI mount, a role and an audit log in a file."""
    (host,) = loopback(1, [8200])
    server = Server(folder / "bao", HostPort.of(host, 8200))
    server.write()
    settings = server.folder / "bao.hcl"
    audit = (
        f'audit "file" "to-file" {{\n  options {{\n    file_path = "{server.folder}/audit.log"\n  }}\n}}\n'
    )
    settings.write_text(settings.read_text() + audit)
    async with running("openbao", server.command(), folder, SERVER_CPU) as process:
        await listening(process, server.address)
        yield Bao(server.url, server.ca, await _prepared(server), "bench"), process.pid


async def _prepared(server: Server) -> str:
    """The token of its root, once the role `bench` signs for everybody who shows it."""
    tls = client_context(load_pem(server.ca.read_bytes()))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:

        async def call(path: str, token: str = "", **body: Any) -> Any:
            headers = {"X-Vault-Token": token}
            async with session.post(f"{server.url}/v1/{path}", json=body, headers=headers) as response:
                response.raise_for_status()
                return await response.json() if response.content_length else {}

        made = await call("sys/init", secret_shares=1, secret_threshold=1)
        root: str = made["root_token"]
        await call("sys/unseal", key=made["keys"][0])
        while True:
            async with session.get(f"{server.url}/v1/sys/health") as response:
                if response.status == 200:
                    break
            await asyncio.sleep(0.02)
        await call("sys/mounts/pki", root, type="pki")
        await call("pki/root/generate/internal", root, common_name="bench", key_type="ec", key_bits=256)
        role = {"allow_any_name": True, "enforce_hostnames": False, "key_type": "ec", "key_bits": 256}
        await call("pki/roles/bench", root, no_store=True, max_ttl="24h", **role)
        return root
