"""The root of a demo in an OpenBao of its own: started, unsealed and prepared as a user would, and one claim about it.

The server's own root token is revoked before the hub starts: nobody in the demo may do more than the policy says.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.demo.asking import until
from federation.demo.clusters import BASE
from federation.demo.openbao import Server, find_bao
from federation.demo.processes import Process
from federation.document import parse
from federation.errors import FederationError
from federation.listen import HostPort
from pki.certificate import load_pem, public_key
from pki.errors import VaultError
from pki.keys.passphrase import Passphrase
from pki.vault.wire import Place, Vault

LONGEST_FILE = 1 << 20


class RootInOpenBao:
    """An OpenBao in `folder` that listens on `address`."""

    def __init__(self, folder: Path, address: HostPort) -> None:
        self.folder = folder
        self.server = Server(folder, address)
        self.process = Process("openbao", self.server.command(), folder.parent / "openbao.log")
        self._vault = Vault(Place(self.server.url, self.server.ca))

    async def start(self) -> dict[str, Any]:
        """Start it, unseal it, prepare it; the settings of a hub whose root is there."""
        self.server.write()
        await self.process.start()
        await until("the start of OpenBao", self._listens, watch=(self.process,))
        made = await self._ask("sys/init", {"secret_shares": 1, "secret_threshold": 1})
        await self._ask("sys/unseal", {"key": made["keys"][0]})
        await until("OpenBao's unsealing", self._is_active, watch=(self.process,))
        self._vault.token = made["root_token"]
        root = await self._prepare(made["root_token"])
        await self._ask("auth/token/revoke-self", {})
        self._vault.close()
        return {"root": root}

    async def _prepare(self, token: str) -> dict[str, Any]:
        """What the script that users run makes, and says about it."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "BAO": str(find_bao()),
            "VAULT_ADDR": self.server.url,
            "VAULT_CACERT": str(self.server.ca),
            "VAULT_TOKEN": token,
        }
        secret_id = self.folder / "secret-id"
        done = await asyncio.create_subprocess_exec(
            *("/bin/sh", str(_script()), "root", "--base", BASE, "--secret-id", str(secret_id)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        said, problem = await done.communicate()
        if done.returncode:
            raise FederationError(
                f"OpenBao could not be prepared: {problem.decode(errors='replace').strip()}"
            )
        root = parse(said.decode(), "deploy/vault/prepare")[0].value["root"]["vault"]  # type: ignore[index]
        return {"vault": {"address": self.server.url, "ca": str(self.server.ca), **root}}

    async def _listens(self) -> bool:
        try:
            await asyncio.to_thread(self._vault.get, "sys/seal-status")
        except VaultError:
            return False
        return True

    async def _is_active(self) -> bool:
        try:
            await asyncio.to_thread(self._vault.get, "sys/health")
        except VaultError:
            return False
        return True

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(self._vault.post, path, body)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in the folder of a hub: files, private keys in them, and those of them that are the root's."""

    files: int
    keys: int
    roots: tuple[Path, ...]


def look_for_root_key(hub: Path, passphrase: Passphrase) -> Looked:
    """Open every private key in the folder of a hub, and compare it with the root that all members pin."""
    (root,) = load_pem((hub / "root" / "self-signed.pem").read_bytes(), most=1)
    files = [path for path in sorted(hub.rglob("*")) if path.is_file()]
    keys = [(path, key) for path in files for key in _keys(path, passphrase)]
    return Looked(
        len(files), len(keys), tuple(path for path, key in keys if key.public_key() == public_key(root))
    )


def _keys(path: Path, passphrase: Passphrase) -> Iterator[ec.EllipticCurvePrivateKey]:
    """Every private key in PEM in a file, whatever else is in it."""
    with path.open("rb") as file:
        rest = file.read(LONGEST_FILE)
    while (begin := rest.find(b"-----BEGIN ")) >= 0:
        head, _, rest = rest[begin:].partition(b"-----END ")
        label, _, rest = rest.partition(b"-----")
        if label.endswith(b"PRIVATE KEY"):
            secret = passphrase.secret if b"ENCRYPTED" in label else None
            text = head + b"-----END " + label + b"-----\n"
            key = serialization.load_pem_private_key(text, secret)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                yield key


def _script() -> Path:
    """`deploy/vault/prepare`, beside this module in a wheel, in the source tree otherwise."""
    here = Path(__file__)
    for path in (here.parent / "deploy_vault" / "prepare", here.parents[2] / "deploy" / "vault" / "prepare"):
        if path.is_file():
            return path
    raise FederationError("deploy/vault/prepare is missing", "run the demo from a whole source tree or wheel")
