"""A Vault as `deploy/vault/prepare` leaves it, and sessions of what it made there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from federation.clock import Clock, SystemClock
from federation.demo.openbao import find_bao
from pki.vault.issuer import Issuer
from pki.vault.login import AppRole, Method
from pki.vault.session import Session
from pki.vault.wire import Place
from tests.pki.vault.server import Bao

BASE = "mesh.example"
PREPARE = Path(__file__).parents[3] / "deploy" / "vault" / "prepare"
NUMBERS: Iterator[int] = count(1)


@dataclass(frozen=True)
class Prepared:
    """What the script made, and the settings that it printed."""

    bao: Bao
    mount: str
    role: str
    role_id: str
    secret_id: Path
    issuer_id: str
    said: str

    @property
    def issuer(self) -> Issuer:
        return Issuer(self.mount, self.issuer_id)

    def method(self, keep: Path | None = None) -> AppRole:
        return AppRole(self.role_id, self.secret_id, keep)

    def session(
        self,
        method: Method | None = None,
        clock: Clock | None = None,
        tell: Callable[[str], None] = lambda _: None,
        place: Place | None = None,
    ) -> Session:
        place = place or Place(self.bao.url, self.bao.ca, timeout=2.0)
        return Session(place, method or self.method(), clock or SystemClock(), tell)


def run(bao: Bao, *arguments: str, namespace: str = "") -> subprocess.CompletedProcess[str]:
    """The script, as the root of the server."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(bao.server.folder),
        "BAO": str(find_bao()),
        "VAULT_ADDR": bao.url,
        "VAULT_TOKEN": bao.root_token,
        "VAULT_CACERT": str(bao.ca),
        "VAULT_NAMESPACE": namespace,
    }
    return subprocess.run(
        [str(PREPARE), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def prepare(bao: Bao, what: str, folder: Path, *more: str) -> Prepared:
    """Names of its own for each call, so that tests may share a server."""
    number = next(NUMBERS)
    mount, role, file = f"mesh-{what}-{number}", f"federation-{what}-{number}", folder / f"secret-id-{number}"
    arguments = [what, "--mount", mount, "--role", role, "--secret-id", str(file), *more]
    done = run(bao, *arguments, *(("--base", BASE) if what == "root" else ()))
    assert done.returncode == 0, done.stderr
    role_id, issuer = (re.search(rf"{name}: (\S+)", done.stdout) for name in ("role_id", "issuer"))
    assert role_id is not None
    return Prepared(bao, mount, role, role_id[1], file, issuer[1] if issuer else "", done.stdout)
