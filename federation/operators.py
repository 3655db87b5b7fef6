"""What a person needs to use a hub from elsewhere: a credential, the hub's anchors, and a contexts file.

The private key is made here and stays here; a bearer token is shown by the hub once and stored by it as a hash.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from federation.api.messages import CreatedOperator, NewOperator, Renew, Renewed
from federation.document import dump
from federation.errors import FederationError
from pki.certificate import load_pem, pem, public_key
from pki.csr import request
from pki.durable import tentative_folder, write
from pki.errors import Untrusted

T = TypeVar("T")


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
    key = ec.generate_private_key(ec.SECP256R1()) if certificate else None
    wanted = NewOperator(name=name, role=role, csr=request(key).decode() if key else None)
    with tentative_folder(folder):
        made = _read(post(wanted), CreatedOperator)
    files = {"bundle": ("bundle.pem", made.bundle)}
    if key is not None:
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files["key"] = ("key.pem", private.decode())
        hint = f"upgrade both sides, then `federation operator remove {name}` and create it again"
        files["certificate"] = ("certificate.pem", pem(_chain(made.certificates, key, hint)).decode())
    else:
        files["token_file"] = ("token", f"{made.token}\n")
    context = {"name": "hub", "url": made.url, "server_name": made.server_name}
    for setting, (file, content) in files.items():
        write(folder / file, content.encode())
        context[setting] = str(folder.resolve() / file)
    write(contexts, dump({"current": "hub", "contexts": [context]}).encode())
    return {"name": made.name, "role": made.role, "contexts": str(contexts.resolve())}


def renew_credential(post: Callable[[Renew], dict[str, Any]], certificate: Path, key: Path) -> dict[str, Any]:
    """Ask the hub through `post`, which shows the certificate, for the next one for the same key; keep it in place of
    the one before. Raises FederationError, and WriteError if it cannot be kept; the one before then stays.
    """
    try:
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is dropped on purpose: parsers may quote what they could not parse.
        raise FederationError(f"{key} does not hold a private key in PEM", "see the context") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise FederationError(f"{key} is not a key that `operator create` made", "see the context")
    answer = _read(post(Renew(csr=request(private).decode())), Renewed)
    chain = _chain(answer.certificates, private, f"{certificate} stays as it is; upgrade both sides")
    write(certificate, pem(chain))
    return {"certificate": str(certificate), "expires_at": chain[0].not_valid_after_utc.isoformat()}


def _chain(
    answered: tuple[str, ...], key: ec.EllipticCurvePrivateKey, hint: str
) -> tuple[x509.Certificate, ...]:
    """What the hub answered, if it begins with a certificate for `key`. Raises FederationError."""
    problem = "the hub answered with no certificate for our key"
    try:
        chain = load_pem("".join(answered).encode())
        is_ours = public_key(chain[0]) == key.public_key()
    except Untrusted as error:
        raise FederationError(f"{problem}: {error}", hint) from error
    if not is_ours:
        raise FederationError(f"{problem}: it is over another key", hint)
    return chain


def _read(answer: dict[str, Any], shape: type[T]) -> T:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise FederationError(
            f"the hub does not speak this version: {error}", "upgrade both sides"
        ) from error
