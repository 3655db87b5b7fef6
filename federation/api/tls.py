"""TLS 1.3 for the REST API, with exactly one trust domain in each context.

The served certificate and the anchors change while the process runs, so a listener holds an outer context that hands
each handshake to the newest inner one.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


def pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def server_context(certificate: Path, key: Path, anchors: Sequence[x509.Certificate]) -> ssl.SSLContext:
    """Serve `certificate`; a client certificate is welcome, not required, and must come from `anchors`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=pem(anchors))
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def renewable(current: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context for a listener whose every handshake uses `current()` (ssl.SSLContext.sni_callback)."""
    outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outer.minimum_version = ssl.TLSVersion.TLSv1_3

    def choose(connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = current()

    outer.sni_callback = choose
    return outer


def client_context(
    anchors: Sequence[x509.Certificate], certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Trust `anchors` and nothing else; the host name is checked as the DNS SAN of the server's identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=pem(anchors))
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
