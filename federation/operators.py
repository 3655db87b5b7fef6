"""What a person needs to use a hub from elsewhere: a credential, the hub's anchors, and a contexts file.

The private key is made here and stays here; a bearer token is shown by the hub once and stored by it as a hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.api.messages import NewOperator
from federation.document import dump
from federation.errors import FederationError
from pki.csr import request
from pki.durable import private_folder, write


def create_credential(
    post: Callable[[NewOperator], dict[str, Any]], name: str, role: str, certificate: bool, folder: Path
) -> dict[str, Any]:
    """Ask the hub through `post`, write everything to `folder`, and say where the contexts file is.

    Raises FederationError if the folder holds a credential already: overwriting it would lock somebody out.
    """
    contexts = folder / "contexts.yaml"
    if contexts.exists():
        raise FederationError(f"{contexts} exists already", "choose another folder, or remove it first")
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP256R1()) if certificate else None
    made = post(NewOperator(name=name, role=role, csr=request(key).decode() if key else None))  # type: ignore[arg-type]
    folder = folder.resolve()
    context = {
        "name": "hub",
        "url": made["url"],
        "server_name": made["server_name"],
        "bundle": str(folder / "bundle.pem"),
    }
    write(folder / "bundle.pem", made["bundle"].encode())
    if key is not None:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write(folder / "key.pem", pem)
        write(folder / "certificate.pem", "".join(made["certificates"]).encode())
        context |= {"certificate": str(folder / "certificate.pem"), "key": str(folder / "key.pem")}
    else:
        write(folder / "token", (made["token"] + "\n").encode())
        context |= {"token_file": str(folder / "token")}
    write(contexts, dump({"current": "hub", "contexts": [context]}).encode())
    return {"name": made["name"], "role": made["role"], "contexts": str(contexts.resolve())}
