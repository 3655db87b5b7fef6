"""What verifiers of others say about a chain: OpenSSL, the library below, Python's ssl, Go and Java, each as it is.

Each function takes one anchor, a chain with the leaf first, and the time, and returns "OK" or what it complains about.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pki.certificate import pem
from tests.pki.world import openssl_verify

HERE = Path(__file__).parent

openssl = openssl_verify


def library(folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> str:
    """The verifier of pyca/cryptography, as a server that verifies its client."""
    verifier = PolicyBuilder().store(Store([anchor])).time(now.replace(tzinfo=None)).build_client_verifier()
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except VerificationError as error:
        return str(error)
    return "OK"


def go(folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> str:
    """crypto/x509 of Go; its program is built once for all tests of a run."""
    program = folder.parent / "verify-go"
    if not program.exists():
        build = ["go", "build", "-o", str(program), str(HERE / "verify.go")]
        subprocess.run(build, check=True, capture_output=True)
    return _run([str(program)], folder, anchor, chain, now)


def java(folder: Path, anchor: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> str:
    """CertPathBuilder "PKIX" of Java, without revocation; its class is built once for all tests of a run."""
    classes = folder.parent / "verify-java"
    if not classes.exists():
        subprocess.run(
            ["javac", "-d", str(classes), str(HERE / "Verify.java")], check=True, capture_output=True
        )
    return _run(["java", "-Xshare:auto", "-cp", str(classes), "Verify"], folder, anchor, chain, now)


def _run(
    command: list[str],
    folder: Path,
    anchor: x509.Certificate,
    chain: Sequence[x509.Certificate],
    now: datetime,
) -> str:
    (folder / "anchor.pem").write_bytes(pem([anchor]))
    (folder / "chain.pem").write_bytes(pem(chain))
    arguments = [str(folder / "anchor.pem"), str(folder / "chain.pem"), str(int(now.timestamp()))]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


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
