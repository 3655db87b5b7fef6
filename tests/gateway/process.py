"""A gateway process for tests, with an identity on disk, and an agent that serves what a test gives it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.clock import SystemClock
from gateway import names
from gateway.report_pb2 import GatewayReport
from gateway.snapshot import Snapshot
from gateway.store import ResourceStore
from gateway.xds.latest import Latest
from gateway.xds.reports import ReportServer
from gateway.xds.server import RETRY_EVERY, AdsServer, Client, Denied, new_server
from pki import bundle as bundles
from pki import durable, issue
from pki.certificate import load_pem, pem
from pki.errors import PkiError
from pki.policy import Attestation, Attested, Grant, decide
from pki.spiffe import SpiffeId
from pki.validate import verify_peer
from tests.gateway.certificates import BASE, Ca

MAIN = """
import asyncio, json, signal, sys
from pathlib import Path
from federation.clock import SystemClock
from federation.listen import HostPort
from federation.telemetry import configure_logging
from gateway.launcher import run
from gateway.settings import GatewaySettings

async def main(given):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = GatewaySettings(
        name=given["name"], directory=Path(given["directory"]), advertise=HostPort(given["advertise"]),
        bind=given["bind"], bind_port=given["bind_port"], telemetry=HostPort(given["telemetry"]), drain=given["drain"],
    )
    await run(settings, stop, SystemClock())

configure_logging("info", "text", "gateway")
asyncio.run(main(json.loads(sys.argv[1])))
"""


def leaf(authority: Ca, spiffe_id: SpiffeId, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A chain of one certificate, valid from now for a day, as the cluster's authority makes it."""
    by = Attestation.SELF if spiffe_id.path == "/agent" else Attestation.TOKEN
    grant = decide(Attested(spiffe_id, by, timedelta(hours=24)), authority.trust_domain)
    assert isinstance(grant, Grant)
    now = datetime.now(UTC)
    template = issue.leaf(grant, key.public_key(), (authority.certificate,), x509.random_serial_number(), now)
    return pem([issue.sign(template, authority.key)])


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def attest(folder: Path, authority: Ca, agent: str, xds: str) -> None:
    """Leave in `folder` what a gateway has after its attestation."""
    keys = durable.private_folder(durable.private_folder(folder) / "keys")
    key = ec.generate_private_key(ec.SECP256R1())
    durable.write(keys / "gateway.key", private(key))
    durable.write(folder / "chain.pem", leaf(authority, names.gateway_id(authority.trust_domain), key))
    attested = {"agent": agent, "xds": xds, "base": BASE, "bundle": bundles.encode(authority.bundle)}
    durable.write(folder / "attested.json", msgspec.json.encode(attested))


@dataclass
class Agent:
    """Serves `snapshots` over mutual TLS, and keeps what is reported."""

    authority: Ca
    address: str
    snapshots: Latest[Snapshot]
    reports: list[GatewayReport] = field(default_factory=list)
    retry_every: float = RETRY_EVERY
    ads: AdsServer = field(init=False)
    _server: grpc.aio.Server | None = None

    def __post_init__(self) -> None:
        self.ads = AdsServer(
            self._authorize,
            lambda client, where: self.snapshots,
            SystemClock(),
            retry_every=self.retry_every,
        )

    def _authorize(self, chain: bytes) -> Client | Denied:
        try:
            bundle = {self.authority.trust_domain: self.authority.bundle}
            identity = verify_peer(load_pem(chain), bundle, datetime.now(UTC))
        except PkiError as error:
            return Denied(str(error))
        return Client(str(identity), names.GATEWAY_CLASS, "gateway-1")

    async def start(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = leaf(self.authority, SpiffeId.agent(self.authority.trust_domain), key)
        roots = self.authority.bundle.pem()
        credentials = grpc.ssl_server_credentials([(private(key), chain)], roots, require_client_auth=True)
        reports = ReportServer(self._authorize, lambda client, report: self.reports.append(report))
        self._server = new_server(self.ads.handler(), reports.handler())
        port = self._server.add_secure_port(self.address, credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


@asynccontextmanager
async def agent(authority: Ca, snapshot: Snapshot, retry_every: float = RETRY_EVERY) -> AsyncIterator[Agent]:
    made = Agent(authority, "127.0.0.1:0", Latest(snapshot), retry_every=retry_every)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Gateway:
    """A process that runs `gateway.launcher`, and what it says of itself."""

    def __init__(self, directory: Path, bind: str, bind_port: int, telemetry_port: int, drain: float) -> None:
        self.directory = directory
        self.telemetry = f"{bind}:{telemetry_port}"
        self._given = {
            "name": "gateway-1",
            "directory": str(directory),
            "advertise": f"{bind}:{bind_port}",
            "bind": bind,
            "bind_port": bind_port,
            "telemetry": self.telemetry,
            "drain": drain,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self, *, no_room: bool = False) -> None:
        """With `no_room` no file of its own can grow; nor its log, for which Envoy would be killed (SIGXFSZ)."""
        command = [sys.executable, "-c", MAIN, json.dumps(self._given)]
        if no_room:
            command = ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command]
        with (Path(os.devnull) if no_room else self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body, from the unix socket; (0, what went wrong) if nobody answers."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.directory / "api.sock"))
        except OSError as error:
            return 0, str(error)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        status = int(head.split()[1]) if head else 0
        return status, json.loads(body) if body.startswith("{") else body

    async def status(self) -> dict[str, Any]:
        _, body = await self.get("/v1/status")
        return body if isinstance(body, dict) else {}

    async def ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200


async def on_disk(path: Path) -> Snapshot:
    """What the next process would find in the store at `path` if its owner ended now, without a word."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
        store = ResourceStore(copy)
        found = await store.open(datetime.now(UTC))
        await store.close()
        return found


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def with_argument(text: str) -> list[int]:
    """The processes that were started with this argument, and are no zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
