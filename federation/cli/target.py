"""Which process a command speaks to: `--hub`, `FEDERATION_HUB`, the current context, else the hub's local socket.

A contexts file (`~/.config/federation/contexts.yaml`, or the file named by `FEDERATION_CONTEXTS`) names remote hubs:

    current: prod
    contexts:
      - name: prod
        url: https://hub.prod.example:8443
        bundle: /home/me/.config/federation/prod.pem     # the hub's anchors, from `federation operator create`
        server_name: federation.hub.mesh.example
        token_file: /home/me/.config/federation/prod.token

Without a file at the usual place there are no contexts. One that the environment names has to be there: otherwise a
slip in its name would mean the hub of this machine, with all that its socket allows.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from msgspec import Struct

from federation.api.client import UNIX, ApiClient, Target, connect
from federation.api.tls import client_context
from federation.document.file import read
from federation.errors import InputError
from federation.written import File
from pki import durable
from pki.durable import read_private
from pki.errors import KeyFileError

ENVIRONMENT = "FEDERATION_CONTEXTS"
LONGEST_SECRET = 1 << 16
"""Bytes of a bearer token or a private key."""

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
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "federation" / "contexts.yaml"


def resolve(wanted: str | None) -> Target:
    """The target that `wanted` (of `--hub` or the environment) means. Raises InputError."""
    contexts = _contexts()
    asked = "--hub" if wanted is not None else str(contexts_file())
    if wanted is None:
        wanted = contexts.current or f"{UNIX}{DEFAULT_SOCKET}"
    if wanted.startswith(UNIX):
        return _local(wanted, asked)
    for context in contexts.contexts:
        if wanted in (context.name, context.url):
            return _target(context)
    if wanted.startswith("https://"):
        raise InputError(
            f"nothing says which certificate {wanted} should have",
            file=asked,
            hint=f"add a context with its bundle to {contexts_file()}; `federation operator create` writes one",
        )
    names = ", ".join(context.name for context in contexts.contexts) or "none is defined"
    raise InputError(
        f"{wanted!r} is no context", file=asked, allowed=f"unix:///path/to/api.sock, or a context ({names})"
    )


def credential(wanted: str | None) -> tuple[Path, Path]:
    """The files of certificate and key in the context that `wanted` means. Raises InputError."""
    contexts = _contexts()
    name = wanted or contexts.current
    context = next((one for one in contexts.contexts if name in (one.name, one.url)), None)
    if context is None or context.certificate is None or context.key is None:
        raise InputError(
            "the context has no certificate" if context else "no context is chosen",
            file=str(contexts_file()),
            hint="a bearer token is not renewed: it is good until its operator is removed",
        )
    _secret(context.key)
    return context.certificate, context.key


async def learn_anchors(wanted: str | None) -> bool:
    """Put the hub's newer anchors in place of those that the context pins, if signatures lead there; False if not.

    Raises FederationError if the hub does not tell them, or WriteError.
    """
    from federation.anchors import newer_anchors

    contexts = _contexts()
    name = wanted or contexts.current
    context = next((one for one in contexts.contexts if name in (one.name, one.url)), None)
    if context is None or context.bundle is None:
        return False
    newer = await newer_anchors(context.url, _pinned(context, context.bundle))
    if newer is None:
        return False
    await asyncio.to_thread(durable.write, context.bundle, newer.pem())
    return True


def _contexts() -> Contexts:
    path = contexts_file()
    if not os.path.lexists(path):
        if os.environ.get(ENVIRONMENT):
            raise InputError(
                "no such file", file=str(path), hint=f"{ENVIRONMENT} names it; correct that, or unset it"
            )
        return Contexts()
    documents = read(path)
    if len(documents) != 1:
        raise InputError(f"{len(documents)} documents", file=str(path), allowed="exactly one")
    contexts = documents[0].convert(Contexts)
    names = [context.name for context in contexts.contexts]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise documents[0].error(("contexts", place, "name"), f"{name!r} is there already")
    return contexts


def _local(url: str, asked: str) -> Target:
    if not Path(url.removeprefix(UNIX)).is_absolute():
        raise InputError(
            f"{url!r} does not name a socket",
            file=asked,
            allowed="an absolute path, as in unix:///path/to/api.sock",
        )
    return Target(url)


def _target(context: Context) -> Target:
    of = f"{contexts_file()}: context {context.name}"
    if context.url.startswith(UNIX):
        return _local(context.url, of)
    if not context.url.startswith("https://"):
        raise InputError(
            f"{context.url!r} is not called",
            file=of,
            field="url",
            allowed="unix:///path and https://host:port",
        )
    if context.bundle is None:
        raise InputError(
            "missing",
            file=of,
            field="bundle",
            hint="without it nothing says which certificate the hub should have",
        )
    if (context.certificate is None) != (context.key is None):
        raise InputError(
            "one without the other", file=of, field="certificate, key", allowed="both or neither"
        )
    anchors = _pinned(context, context.bundle)
    return Target(context.url, _tls(context, anchors, of), context.server_name, _token(context))


def _pinned(context: Context, bundle: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(bundle))
    except ValueError as error:
        of = f"{contexts_file()}: context {context.name}"
        raise InputError("no certificates in PEM", file=str(bundle), hint=f"see {of}") from error


def _tls(context: Context, anchors: Sequence[x509.Certificate], of: str) -> ssl.SSLContext:
    if context.certificate is not None and context.key is not None:
        _content(context.certificate)
        _secret(context.key)
    try:
        return client_context(anchors, context.certificate, context.key)
    except ssl.SSLError as error:
        raise InputError(
            "not a certificate and its key, in PEM", file=str(context.certificate), hint=f"see {of}"
        ) from error


def _token(context: Context) -> str | None:
    if context.token_file is None:
        return None
    text = _secret(context.token_file).strip()
    if not text.isascii() or any(byte < 0x21 for byte in text):
        raise InputError("not a bearer token", file=str(context.token_file), allowed="one line, fedop1.…")
    return text.decode()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", file=str(path), hint=f"see {contexts_file()}"
        ) from error


def _secret(path: Path) -> bytes:
    """Refuses a file that others may read, as the processes do with theirs."""
    try:
        return read_private(path, LONGEST_SECRET)
    except FileNotFoundError as error:
        raise InputError(
            "cannot be read: No such file or directory", file=str(path), hint=f"see {contexts_file()}"
        ) from error
    except KeyFileError as error:
        raise InputError(error.reason, file=str(path), hint=f"see {contexts_file()}") from error


@asynccontextmanager
async def client(wanted: str | None) -> AsyncIterator[ApiClient]:
    """A client of the wanted process for the life of the context."""
    async with connect(resolve(wanted)) as found:
        yield found
