"""Real Envoys for tests, each from one snapshot, and the clients and backends around them. Loopback only."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h2.connection
import h2.events

from gateway.envoy.binary import find_envoy
from gateway.snapshot import Snapshot
from pki.certificate import pem
from tests.gateway.certificates import Ca, Identity
from tests.gateway.static import bootstrap

T = TypeVar("T")
DEADLINE = 20.0
"""Seconds after which a condition that has not come true fails the test."""


def eventually(ask: Callable[[], T], wanted: Callable[[T], bool], deadline: float = DEADLINE) -> T:
    """Ask until the answer is the wanted one; a socket that is not there yet counts as no answer."""
    end = time.monotonic() + deadline
    last: object = None
    while time.monotonic() < end:
        try:
            last = answer = ask()
            if wanted(answer):
                return answer
        except OSError as error:
            last = error
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline} s; last: {last!r}")


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Envoy:
    """A running Envoy: its process, and its admin interface on a unix socket."""

    pid: int
    path: Path

    def get(self, path: str) -> str:
        connection = http.client.HTTPConnection("admin", timeout=DEADLINE)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.path))
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def hosts(self, cluster: str) -> dict[str, Any]:
        """Address of each host of a cluster to what Envoy says of it."""
        said = json.loads(self.get("/clusters?format=json"))
        found = [one for one in said["cluster_statuses"] if one["name"] == cluster]
        return {_address(host): host for one in found for host in one.get("host_statuses", ())}


def _address(host: dict[str, Any]) -> str:
    address = host["address"]
    if "envoy_internal_address" in address:
        return str(address["envoy_internal_address"]["server_listener_name"])
    return f"{address['socket_address']['address']}:{address['socket_address']['port_value']}"


def validate(snapshot: Snapshot, folder: Path, identity: Identity) -> str:
    """What `envoy --mode validate` objects to; empty if nothing."""
    config = folder / "snapshot.pb"
    config.write_bytes(bootstrap(snapshot, "validated", folder / "admin", identity).SerializeToString())
    command = [str(find_envoy()), "--mode", "validate", "--config-path", str(config), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


@contextmanager
def running(snapshot: Snapshot, name: str, folder: Path, identity: Identity) -> Iterator[Envoy]:
    """An Envoy that serves the snapshot, live when the block begins and gone when it ends."""
    home = folder / name
    home.mkdir(mode=0o700)
    admin = home / "admin"
    config = home / "bootstrap.pb"
    config.write_bytes(bootstrap(snapshot, name, admin, identity).SerializeToString())
    command = [str(find_envoy()), "--config-path", str(config), "--disable-hot-restart", "--concurrency", "1"]
    command += ["--log-level", "error", "--file-flush-interval-msec", "50", "--drain-time-s", "1"]
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, cwd=home, stdout=log, stderr=log) as child,
    ):
        envoy = Envoy(child.pid, admin)
        try:
            eventually(lambda: envoy.get("/ready"), lambda said: said.startswith("LIVE"))
            yield envoy
        finally:
            child.terminate()


@contextmanager
def frozen(envoy: Envoy, seconds: float) -> Iterator[None]:
    """The process gets no processor for so long; the block ends no earlier than that."""
    os.kill(envoy.pid, signal.SIGSTOP)
    thaw = threading.Timer(seconds, os.kill, (envoy.pid, signal.SIGCONT))
    thaw.start()
    try:
        yield
    finally:
        thaw.join()


class Backend:
    """A TCP server that answers each line with the name of its cluster, or closes each connection at once."""

    def __init__(self, name: str, closing: bool) -> None:
        answer = f"{name}\n".encode()

        class Answer(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(ConnectionError):
                    while not closing and self.rfile.readline():
                        self.wfile.write(answer)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 1024

        self._server = Server(("127.0.0.1", 0), Answer)
        self.address: tuple[str, int] = ("127.0.0.1", self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def backend(name: str, closing: bool = False) -> Iterator[Backend]:
    server = Backend(name, closing)
    try:
        yield server
    finally:
        server.stop()


def ask(address: tuple[str, int]) -> str:
    """The name of the cluster that answers a new connection; empty if it is closed without an answer."""
    with socket.create_connection(address, timeout=DEADLINE) as client:
        try:
            client.sendall(b"who?\n")
            return client.recv(100).decode().strip()
        except ConnectionResetError:
            return ""


REFUSED = "refused"


def connect(
    address: tuple[str, int],
    server: Ca,
    sni: str,
    identity: Identity | None,
    authority: str,
    most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> str:
    """The status of a CONNECT over mutual TLS, or `REFUSED` if the connection does not live that long."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = most
    context.load_verify_locations(cadata=pem((server.certificate,)).decode())
    context.set_alpn_protocols(["h2"])
    if identity is not None:
        context.load_cert_chain(identity.chain, identity.key)
    try:
        with (
            socket.create_connection(address, timeout=DEADLINE) as raw,
            context.wrap_socket(raw, server_hostname=sni) as wire,
        ):
            return _status(wire, authority)
    except (ssl.SSLError, ConnectionError):
        return REFUSED


def _status(wire: ssl.SSLSocket, authority: str) -> str:
    speaker = h2.connection.H2Connection()
    speaker.initiate_connection()
    speaker.send_headers(1, [(":method", "CONNECT"), (":authority", authority)])
    wire.sendall(speaker.data_to_send())
    while data := wire.recv(65536):
        for event in speaker.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers)[b":status"].decode()
            if isinstance(event, h2.events.StreamReset):
                return REFUSED
        wire.sendall(speaker.data_to_send())
    return REFUSED
