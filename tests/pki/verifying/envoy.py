"""One real Envoy with a listener a case, whose SPIFFE validator decides about what a TLS client presents."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.envoy.binary import find_envoy
from pki.algorithms import spki
from pki.certificate import pem, public_key
from tests.pki.verifying.cases import KEYS, Maker
from tests.pki.verifying.real import Case

TYPE = "type.googleapis.com/envoy.extensions"
REQUEST = b"GET / HTTP/1.1\r\nHost: envoy\r\n\r\n"
BELIEVED = b"HTTP/1.1 200"
PATIENCE = 60.0


def envoy(cases: Sequence[Case], folder: Path, *, spiffe: bool = True) -> list[str]:
    """Starts Envoy, asks it about each case, and ends it. Without `spiffe` it has the anchors as its trusted CA."""
    maker = Maker(cases[0].now)
    server = maker.leaf(maker.root("server"))
    (folder / "server.pem").write_bytes(pem([server]))
    (folder / "server.key").write_bytes(_key(server))
    listeners = [_listener(place, case, folder, spiffe) for place, case in enumerate(cases)]
    (folder / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": listeners}}))
    with _running(folder, len(cases)):
        return [_present(case, folder, place) for place, case in enumerate(cases)]


@contextlib.contextmanager
def _running(folder: Path, listeners: int) -> Iterator[None]:
    command = [str(find_envoy()), "-c", str(folder / "envoy.json"), "--concurrency", "1"]
    command += ["--use-dynamic-base-id", "-l", "error", "--log-path", str(folder / "envoy.log")]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(folder / f"{listeners - 1}.sock"):
                assert process.poll() is None, (folder / "envoy.log").read_text()
                assert time.monotonic() < deadline, "Envoy does not listen"
                time.sleep(0.05)
            yield
        finally:
            process.kill()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _listener(place: int, case: Case, folder: Path, spiffe: bool) -> dict[str, Any]:
    tls = f"{TYPE}.transport_sockets.tls.v3"
    anchors = {"inline_string": pem(case.anchors).decode()}
    validation: dict[str, Any] = {"trusted_ca": anchors}
    if spiffe:
        bundle = {"name": case.trust_domain.name, "trust_bundle": anchors}
        config = {"@type": f"{tls}.SPIFFECertValidatorConfig", "trust_domains": [bundle]}
        validator = {"name": "envoy.tls.cert_validator.spiffe", "typed_config": config}
        validation = {"custom_validator_config": validator}
    own = {
        "certificate_chain": {"filename": str(folder / "server.pem")},
        "private_key": {"filename": str(folder / "server.key")},
    }
    context = {"tls_certificates": [own], "validation_context": validation}
    socket_ = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{tls}.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": context,
        },
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    router = {"@type": f"{TYPE}.filters.http.router.v3.Router"}
    answer = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "case",
            "route_config": {"virtual_hosts": hosts},
            "http_filters": [{"name": "router", "typed_config": router}],
        },
    }
    return {
        "name": f"case {place}",
        "address": {"pipe": {"path": str(folder / f"{place}.sock")}},
        "filter_chains": [{"transport_socket": socket_, "filters": [answer]}],
    }


def _present(case: Case, folder: Path, place: int) -> str:
    """The reason why Envoy ended the connection, empty if it answered."""
    (folder / "chain.pem").write_bytes(pem(case.presented))
    (folder / "leaf.key").write_bytes(_key(case.presented[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(folder / "chain.pem", folder / "leaf.key")
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(PATIENCE)
        plain.connect(str(folder / f"{place}.sock"))
        try:
            with context.wrap_socket(plain) as connection:
                connection.sendall(REQUEST)
                return "" if connection.recv(4096).startswith(BELIEVED) else "closed without an answer"
        except (ssl.SSLError, ConnectionError) as error:
            return str(error)


def _key(leaf: x509.Certificate) -> bytes:
    return KEYS[spki(public_key(leaf))].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
