"""Which process a command speaks to: `--hub`, `FEDERATION_HUB`, the current context, else the hub's local socket.

A contexts file (`~/.config/federation/contexts.yaml`, or the file named by `FEDERATION_CONTEXTS`) names remote hubs:

    current: prod
    contexts:
      - name: prod
        url: https://hub.prod.example:8443
        bundle: /home/me/.config/federation/prod.pem     # the hub's anchors, from `federation operator create`
        server_name: federation.hub.mesh.example
        token_file: /home/me/.config/federation/prod.token
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from msgspec import Struct

from federation.api.client import ApiClient, Target, connect
from federation.api.tls import client_context
from federation.document import read
from federation.errors import FederationError, InputError
from federation.written import File

DEFAULT_SOCKET = Path("/var/lib/federation/hub/api.sock")


class Context(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A process that is reached often. Either a bearer token or a client certificate says who we are."""

    name: str
    url: str
    bundle: File | None = None
    server_name: str | None = None
    token_file: File | None = None
    certificate: File | None = None
    key: File | None = None


class Contexts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    current: str | None = None
    contexts: tuple[Context, ...] = ()


def contexts_file() -> Path:
    if named := os.environ.get("FEDERATION_CONTEXTS"):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "federation" / "contexts.yaml"


def resolve(wanted: str | None) -> Target:
    """The target that `wanted` (of `--hub` or the environment) means. Raises InputError or FederationError."""
    contexts = _contexts()
    if wanted is None:
        wanted = contexts.current or f"unix://{DEFAULT_SOCKET}"
    if wanted.startswith("unix://"):
        return Target(wanted)
    for context in contexts.contexts:
        if wanted in (context.name, context.url):
            return _target(context)
    if wanted.startswith("https://"):
        raise FederationError(
            f"nothing says which certificate {wanted} should have",
            f"add a context with its bundle to {contexts_file()}",
        )
    names = ", ".join(context.name for context in contexts.contexts) or "none are defined"
    raise FederationError(
        f"{wanted!r} is no context",
        f"contexts: {names}; or give unix:///path/to/api.sock or https://host:port",
    )


def _contexts() -> Contexts:
    path = contexts_file()
    if not path.exists():
        return Contexts()
    documents = read(path)
    if len(documents) != 1:
        raise InputError(f"{len(documents)} documents", file=str(path), allowed="exactly one")
    return documents[0].convert(Contexts)


def _target(context: Context) -> Target:
    if context.url.startswith("unix://"):
        return Target(context.url)
    if context.bundle is None:
        raise FederationError(f"context {context.name} has no bundle", f"name it in {contexts_file()}")
    anchors = x509.load_pem_x509_certificates(_content(context.bundle))
    token = _content(context.token_file).decode().strip() if context.token_file else None
    tls = client_context(anchors, context.certificate, context.key)
    return Target(context.url, tls, context.server_name, token)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FederationError(f"cannot read {path}: {error.strerror}", f"see {contexts_file()}") from error


@asynccontextmanager
async def client(wanted: str | None) -> AsyncIterator[ApiClient]:
    """A client of the wanted process for the life of the context."""
    async with connect(resolve(wanted)) as found:
        yield found
