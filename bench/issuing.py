"""Clients that ask for certificates as fast as they are answered: of our issuer, and of OpenBao.

Every certificate has a request of its own, signed before it is asked for, on the CPU of the load. Ours are renewals for
the key that a workload has; when all are re-keyed, each proves with the old key that the new one is its own.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from bench.issuer import ANCHORS, CARRIERS, CHAIN, FLEET, KEY, SERVER_NAME
from federation.errors import FederationError
from federation.listen import HostPort
from federation.svid import svid_pb2 as pb
from federation.svid.client import Agent, issue, renewal, request
from federation.svid.demand import Answer, Given
from pki import csr
from pki.certificate import load_der

CLIENTS = CARRIERS
"""Calls at a time, on as many connections."""


Call = Callable[[], Awaitable[float]]
"""Makes one call and says how long it took, in seconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one slice brought: certificates, seconds that passed, and seconds that each call took."""

    certificates: int
    seconds: float
    calls: tuple[float, ...]

    @property
    def p99(self) -> float:
        """Seconds within which 99 of 100 calls were answered."""
        return sorted(self.calls)[len(self.calls) * 99 // 100]


@dataclass(slots=True)
class _Workload:
    """One identity: its key, and the serial number of its latest certificate."""

    key: ec.EllipticCurvePrivateKey
    serial: int
    following: ec.EllipticCurvePrivateKey

    def wish(self, new_key: bool) -> pb.Wish:
        self.following = ec.generate_private_key(ec.SECP256R1()) if new_key else self.key
        return renewal(request(self.following), self.serial, self.key if new_key else None)

    def take(self, outcome: object) -> None:
        if not isinstance(outcome, Given):
            raise FederationError(f"our issuer refused: {outcome}")
        self.key, self.serial = self.following, load_der(outcome.chain[0]).serial_number


def _workload(private: bytes, serial: bytes) -> _Workload:
    key = load_der_private_key(private, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return _Workload(key, int.from_bytes(serial), key)


class Fleet:
    """Workloads of our issuer, each with the latest certificate of its line."""

    def __init__(self, folder: Path, address: HostPort) -> None:
        agent = Agent(str(address), SERVER_NAME, (folder / ANCHORS).read_bytes())
        self._channels = [
            agent.channel(
                (folder / CHAIN.format(number)).read_bytes(), (folder / KEY.format(number)).read_bytes()
            )
            for number in range(CARRIERS)
        ]
        fleet = msgspec.msgpack.decode((folder / FLEET).read_bytes(), type=list[tuple[bytes, bytes]])
        self.workloads = [_workload(*kept) for kept in fleet]

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def renew(self, batch: int, seconds: float) -> Load:
        """Renew for so long, `batch` certificates in a call; each client has its own workloads."""
        clients = [self._client(number, batch) for number in range(len(self._channels))]
        return await _load(clients, batch, seconds)

    def _client(self, number: int, batch: int) -> Call:
        share = len(self.workloads) // len(self._channels)
        mine = cycle(self.workloads[number * share : (number + 1) * share])

        async def call() -> float:
            return await self._call(self._channels[number], list(islice(mine, batch)))

        return call

    async def rekey(self, batch: int) -> Load:
        """All workloads at once, `batch` in a call, every call made at the same moment."""
        everyone = iter(self.workloads)
        batches = iter(lambda: list(islice(everyone, batch)), [])
        prepared = [(each, [one.wish(new_key=True) for one in each]) for each in batches]
        began = time.perf_counter()
        calls = await asyncio.gather(
            *(
                self._send(self._channels[place % len(self._channels)], each, wishes)
                for place, (each, wishes) in enumerate(prepared)
            )
        )
        return Load(len(self.workloads), time.perf_counter() - began, tuple(calls))

    async def _call(self, channel: grpc.aio.Channel, batch: list[_Workload]) -> float:
        return await self._send(channel, batch, [one.wish(new_key=False) for one in batch])

    async def _send(self, channel: grpc.aio.Channel, batch: list[_Workload], wishes: list[pb.Wish]) -> float:
        began = time.perf_counter()
        answer: Answer = await issue(channel, wishes)
        took = time.perf_counter() - began
        for one, outcome in zip(batch, answer.outcomes, strict=True):
            one.take(outcome)
        return took


class Bao:
    """Clients of OpenBao's `pki/sign`, each with a kept TLS connection of its own."""

    def __init__(self, url: str, ca: Path, token: str, role: str) -> None:
        self._context = ssl.create_default_context(cafile=str(ca))
        self._place = f"{url}/v1/pki/sign/{role}"
        self._headers = {"X-Vault-Token": token}

    async def sign(self, seconds: float) -> Load:
        """Sign for so long."""
        sessions = [
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._context, limit=1))
            for _ in range(CLIENTS)
        ]
        try:
            return await _load([partial(self._call, session) for session in sessions], 1, seconds)
        finally:
            for session in sessions:
                await session.close()

    async def _call(self, session: aiohttp.ClientSession) -> float:
        key = ec.generate_private_key(ec.SECP256R1())
        body: dict[str, Any] = {
            "csr": csr.request(key).decode(),
            "common_name": "n.bench.example",
            "ttl": "1h",
        }
        sent = msgspec.json.encode(body)
        began = time.perf_counter()
        async with session.post(self._place, data=sent, headers=self._headers) as response:
            answer = await response.read()
        took = time.perf_counter() - began
        if response.status != 200 or b"BEGIN CERTIFICATE" not in answer:
            raise FederationError(f"OpenBao refused: {answer.decode(errors='replace')}")
        return took


async def _load(clients: list[Call], batch: int, seconds: float) -> Load:
    """Every client makes one call after the other until the time is over."""
    began = time.perf_counter()

    async def calls(call: Call) -> list[float]:
        took = []
        while time.perf_counter() - began < seconds:
            took.append(await call())
        return took

    found = await asyncio.gather(*map(calls, clients))
    made = tuple(one for each in found for one in each)
    return Load(len(made) * batch, time.perf_counter() - began, made)
