"""TLS 1.3 for the REST API, with exactly one trust domain in each context.

The served certificate and the anchors change while the process runs, so a listener holds an outer context that hands
each handshake to the newest inner one. OpenSSL takes certificate and anchors from the inner context, and whether to ask
for a client certificate and to send tickets from the outer one (SSL_set_SSL_CTX(3)), so both are set up alike.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from federation.identity import Identity, Leaf
from pki.bundle import Bundle
from pki.certificate import pem


def server_context(certificate: Path, key: Path, anchors: Sequence[x509.Certificate]) -> ssl.SSLContext:
    """Serve `certificate`; a client certificate is welcome, not required, and must come from `anchors`."""
    context = _server()
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=pem(anchors).decode())
    return context


def renewable(current: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context for a listener whose every handshake uses `current()` (ssl.SSLContext.sni_callback)."""
    outer = _server()

    def choose(connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = current()

    outer.sni_callback = choose
    return outer


def served(identity: Identity, bundle: Callable[[], Bundle]) -> ssl.SSLContext:
    """A context for a listener that serves the newest leaf of `identity` to clients whom `bundle` believes; read and
    parsed once for each leaf and version: anybody may begin as many handshakes as he likes.
    """
    made_of = identity.current, bundle().anchors
    context = _of(*made_of)

    def newest() -> ssl.SSLContext:
        nonlocal made_of, context
        wanted = identity.current, bundle().anchors
        if wanted != made_of:
            context = _of(*wanted)
            made_of = wanted
        return context

    return renewable(newest)


def _of(leaf: Leaf, anchors: Sequence[x509.Certificate]) -> ssl.SSLContext:
    with in_memory(leaf.chain) as certificate, in_memory(leaf.key) as key:
        return server_context(certificate, key, anchors)


@contextmanager
def in_memory(data: bytes) -> Iterator[Path]:
    """A file that can be read once and is on no disk, a pipe: a context takes certificate and key from files only.

    No limit on the size of files concerns it. Raises OSError for more than a pipe holds (pipe(7): 64 KiB).
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            if os.write(writing, data) < len(data):
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        finally:
            os.close(writing)
        yield Path(f"/proc/self/fd/{reading}")
    finally:
        os.close(reading)


def _server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    anchors: Sequence[x509.Certificate], certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Trust `anchors` and nothing else; the host name is checked as the DNS SAN of the server's identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=pem(anchors).decode())
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def unverified_context() -> ssl.SSLContext:
    """For the one call that fetches what a token's pin then verifies; nothing secret may be sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
