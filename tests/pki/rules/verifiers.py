"""What verifiers of others say about a chain: OpenSSL, the library below, Python's ssl, Go and Java, each as it is.

Each function takes one anchor, a chain with the leaf first, and the time, and returns "OK" or what it complains about.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pki.certificate import pem
from pki.spiffe import TrustDomain
from tests.pki.verifying import real
from tests.pki.world import openssl_verify

openssl = openssl_verify


def library(folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> str:
    """The verifier of pyca/cryptography, as a server that verifies its client."""
    return _said(real.pyca([_case(anchor, chain, now)], folder))


def go(folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> str:
    """crypto/x509 of Go."""
    return _said(real.go([_case(anchor, chain, now)], folder))


def java(folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> str:
    """The trust manager of Java's TLS, without revocation."""
    return _said(real.java([_case(anchor, chain, now)], folder))


def _case(anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> real.Case:
    return real.Case("", tuple(chain), (anchor,), TrustDomain("mesh.example"), now)


def _said(reasons: Sequence[str]) -> str:
    [reason] = reasons
    return reason or "OK"


def handshake(
    folder: Path,
    anchor: x509.Certificate,
    chain: Sequence[x509.Certificate],
    key: ec.EllipticCurvePrivateKey,
) -> str:
    """Python's ssl, TLS 1.3, both sides with this certificate and this anchor, at the time that it is now."""
    (folder / "anchor.pem").write_bytes(pem([anchor]))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "chain.pem").write_bytes(pem(chain) + private)
    here, there = socket.socketpair()
    outcome: list[str] = []

    def serve() -> None:
        context = _context(ssl.PROTOCOL_TLS_SERVER, folder)
        try:
            with context.wrap_socket(there, server_side=True) as secured:
                secured.sendall(b"x")
        except OSError as error:
            outcome.append(f"server: {error}")

    server = threading.Thread(target=serve)
    server.start()
    try:
        with _context(ssl.PROTOCOL_TLS_CLIENT, folder).wrap_socket(here) as secured:
            secured.recv(1)
    except OSError as error:
        outcome.append(f"client: {error}")
    finally:
        server.join()
        here.close()
        there.close()
    return "; ".join(outcome) or "OK"


def _context(protocol: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.load_verify_locations(folder / "anchor.pem")
    context.load_cert_chain(folder / "chain.pem")
    return context
