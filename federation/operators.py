"""What a person needs to use a hub from elsewhere: a credential, the hub's anchors, and a contexts file.

The private key is made here and stays here; a bearer token is shown by the hub once and stored by it as a hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.api.messages import CreatedOperator, NewOperator
from federation.document import dump
from federation.errors import FederationError
from pki.csr import request
from pki.durable import private_folder, write


def create_credential(
    post: Callable[[NewOperator], dict[str, Any]],
    name: str,
    role: Literal["viewer", "operator"],
    certificate: bool,
    folder: Path,
) -> dict[str, Any]:
    """Ask the hub through `post`, write everything to `folder`, and say where the contexts file is.

    Raises FederationError if the folder holds a credential already: overwriting it would lock somebody out.
    """
    contexts = folder / "contexts.yaml"
    if contexts.exists():
        raise FederationError(f"{contexts} exists already", "choose another folder, or remove it first")
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP256R1()) if certificate else None
    wanted = NewOperator(name=name, role=role, csr=request(key).decode() if key else None)
    made = _read(post(wanted))
    files = {"bundle": ("bundle.pem", made.bundle)}
    if key is not None:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files["key"] = ("key.pem", pem.decode())
        files["certificate"] = ("certificate.pem", "".join(made.certificates))
    else:
        files["token_file"] = ("token", f"{made.token}\n")
    context = {"name": "hub", "url": made.url, "server_name": made.server_name}
    for setting, (file, content) in files.items():
        write(folder / file, content.encode())
        context[setting] = str(folder.resolve() / file)
    write(contexts, dump({"current": "hub", "contexts": [context]}).encode())
    return {"name": made.name, "role": made.role, "contexts": str(contexts.resolve())}


def _read(answer: dict[str, Any]) -> CreatedOperator:
    try:
        return msgspec.convert(answer, CreatedOperator)
    except msgspec.ValidationError as error:
        raise FederationError(
            f"the hub does not speak this version: {error}", "upgrade both sides"
        ) from error
