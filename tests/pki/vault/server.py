"""A real OpenBao server for tests: TLS with a CA of its own, memory as storage, sealed and unsealed by its key.

    with bao_server(folder) as bao:
        bao.write("sys/mounts/mesh-root", type="pki")

It listens on a loopback address of its own, is killed by its pid at the end, and dies with the test run if that is
killed.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from federation.demo.openbao import Server
from federation.listen import HostPort
from gateway.envoy import tether

READY_WITHIN = 30.0


class Bao:
    """A running server. `root_token` may do everything; `pid` is that of the server itself."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder, unused())
        self.server.write()
        self.root_token = ""
        self._unseal_key = ""
        self._log = folder / "bao.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self.server.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def ca(self) -> Path:
        return self.server.ca

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        """Its log, where it would write what it should not know of us."""
        return self._log.read_text()

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, namespace: str = ""
    ) -> dict[str, Any]:
        """The answer of `method` on `/v1/path` to the holder of `token`, the root unless it is given.

        Raises `requests.HTTPError` with what the server said.
        """
        headers = {"X-Vault-Token": self.root_token if token is None else token}
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method, f"{self.url}/v1/{path}", json=body, headers=headers, verify=str(self.ca), timeout=30
            )
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text}", response=answer)
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def write(self, path: str, /, **body: Any) -> dict[str, Any]:
        """What the root gets for writing `body`: its `data`, empty where nothing is answered."""
        found: dict[str, Any] = self.call("POST", path, body).get("data") or {}
        return found

    def initialise(self) -> None:
        """Wait for the server, make its keys and unseal it."""
        deadline = time.monotonic() + READY_WITHIN
        while True:
            assert self._process.poll() is None, self.said
            try:
                made = self.call("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline, self.said
                time.sleep(0.02)
        self.root_token, (self._unseal_key,) = made["root_token"], made["keys"]
        self.unseal()

    def seal(self) -> None:
        self.call("POST", "sys/seal")

    def unseal(self) -> None:
        """Returns when it is active: right after the last key it still answers 503."""
        self.call("POST", "sys/unseal", {"key": self._unseal_key})
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                self.call("GET", "sys/health")
                return
            except requests.HTTPError:
                assert time.monotonic() < deadline, self.said
                time.sleep(0.02)

    def freeze(self) -> None:
        """It keeps its connections, and takes new ones, and answers none."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def bao_server(folder: Path) -> Iterator[Bao]:
    """An unsealed server for the life of the context, in `folder`, which is made if it is missing."""
    bao = Bao(folder)
    try:
        bao.initialise()
        yield bao
    finally:
        bao.kill()


def unused() -> HostPort:
    """A port of a loopback address on which nobody listens."""
    while True:
        host = f"127.{random.randint(64, 250)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((host, 8200))
            except OSError:
                continue
            return HostPort.of(host, 8200)
