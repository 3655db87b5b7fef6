"""What is not believed of whoever answers in place of a Vault: nothing without TLS, nothing long, nothing slow."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from federation.demo.openbao import Server
from federation.listen import HostPort
from pki.errors import KeyFileError, VaultError, VaultFault
from pki.vault.wire import LONGEST_ANSWER, ClientCertificate, Place, Vault
from tests.pki.vault.server import unused

pytestmark = pytest.mark.live

PATIENCE = 1.0
SECRET = "hvs.canary-that-nobody-may-see"


def _read_request(tls: ssl.SSLSocket) -> bytes:
    """All of it: what is closed with something unread is reset."""
    got = b""
    while not (head := re.match(rb"(?s).*?\r\n\r\n", got)) or len(got) < head.end() + _length(head[0]):
        piece = tls.recv(65536)
        if not piece:
            raise ConnectionError("closed in the middle of a request")
        got += piece
    return got


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\nContent-Length: (\d+)", head)
    return int(found[1]) if found else 0


@contextmanager
def answering(server: Server, answer: Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """A TLS server that hands each connection to `answer` when a whole request has come; the requests."""
    requests: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.folder / "server.pem", server.folder / "server.key")
    listening = socket.create_server((server.address.host, server.address.port))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                requests.append(_read_request(tls))
                answer(tls)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield requests
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for thread in threads:
            thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    made = Server(tmp_path / "tls", unused())
    made.write()
    return made


@contextmanager
def vault(server: Server, **changes: object) -> Iterator[Vault]:
    place = {"address": server.url, "ca": server.ca, "timeout": PATIENCE} | changes
    made = Vault(Place(**place))  # type: ignore[arg-type]
    made.token = SECRET
    try:
        yield made
    finally:
        made.close()


def said(status: str, body: bytes = b"", *headers: str) -> Callable[[socket.socket], None]:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", "")
    return lambda tls: tls.sendall("\r\n".join(lines).encode() + body)


def fault_of(vault: Vault) -> VaultError:
    with pytest.raises(VaultError) as caught:
        vault.post("pki/issuer/one/sign", {"csr": "x" * 20, "secret_id": SECRET})
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.detail} {vault!r}"
    return caught.value


ANSWERS: dict[str, tuple[Callable[[socket.socket], None], VaultFault, str]] = {
    "denied": (said("403 No", b'{"errors": ["permission denied"]}'), VaultFault.DENIED, "permission denied"),
    "missing": (said("404 Not Found", b'{"errors": []}'), VaultFault.MISSING, "404"),
    "refused": (
        said("400 Bad", b'{"errors": ["no %s"]}' % SECRET.encode()),
        VaultFault.REFUSED,
        "no \\u2026",
    ),
    "busy": (said("429 Too Many", b'{"errors": ["quota"]}', "Retry-After: 7"), VaultFault.BUSY, "quota"),
    "failing": (said("500 Oops", b"<html>"), VaultFault.FAILING, "500"),
    "gateway": (said("502 Bad Gateway"), VaultFault.FAILING, "502"),
    "sealed": (said("503 Down", b'{"errors": ["Vault is sealed"]}'), VaultFault.SEALED, "sealed"),
    "leaderless": (said("503 Down", b'{"errors": ["no leader"]}'), VaultFault.FAILING, "no leader"),
    "redirect": (
        said("307 There", b"", "Location: https://127.0.0.1:1/v1/x"),
        VaultFault.STRANGE,
        "elsewhere",
    ),
    "list": (said("200 OK", b"[]"), VaultFault.STRANGE, "no JSON object"),
    "half": (said("200 OK", b"{"), VaultFault.STRANGE, "no JSON object"),
    "deep": (said("200 OK", b"[" * 100_000), VaultFault.STRANGE, "no JSON object"),
    "long": (said("200 OK", b'{"a": "' + b"x" * LONGEST_ANSWER + b'"}'), VaultFault.STRANGE, "more than"),
    "nonsense": (lambda tls: tls.sendall(b"nonsense\r\n\r\n"), VaultFault.UNREACHABLE, ""),
    "nothing": (lambda tls: None, VaultFault.UNREACHABLE, ""),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_v5_v6_every_answer_that_brings_nothing_has_a_name(name: str, server: Server) -> None:
    answer, fault, detail = ANSWERS[name]
    with answering(server, answer), vault(server) as asked:
        error = fault_of(asked)
    assert error.fault is fault
    assert detail in error.detail
    assert error.retry_after == (7.0 if fault is VaultFault.BUSY else None)
    assert error.hint


def drip(head: bytes, each: bytes) -> Callable[[socket.socket], None]:
    """One piece of an answer every now and then, for longer than anybody should wait."""

    def send(tls: socket.socket) -> None:
        tls.sendall(head)
        end = time.monotonic() + 20 * PATIENCE
        while time.monotonic() < end:
            tls.sendall(each)
            time.sleep(PATIENCE / 20)

    return send


SLOW = {
    "body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{", b" "),
    "chunks": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "head": drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
}


@pytest.mark.parametrize("what", SLOW)
def test_v6_a_call_ends_in_time_however_slowly_its_answer_drips(what: str, server: Server) -> None:
    with answering(server, SLOW[what]), vault(server) as asked:
        began = time.monotonic()
        error = fault_of(asked)
        assert time.monotonic() - began < 10 * PATIENCE
    assert error.fault is VaultFault.SILENT


def test_v5_a_connection_that_is_accepted_and_never_answered_ends_in_time(server: Server) -> None:
    with socket.create_server((server.address.host, server.address.port)), vault(server) as asked:
        assert fault_of(asked).fault is VaultFault.SILENT


def test_v5_nobody_there_is_told_as_such(server: Server) -> None:
    with vault(server) as asked:
        assert fault_of(asked).fault is VaultFault.UNREACHABLE


def test_v1_a_server_of_another_ca_is_not_spoken_to(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path / "other", HostPort.of("127.0.0.1", 1))
    other.write()
    with answering(server, said("200 OK", b"{}")) as requests, vault(server, ca=other.ca) as asked:
        assert fault_of(asked).fault is VaultFault.UNTRUSTED
    assert requests == []


def test_v1_a_certificate_for_another_address_is_not_believed(server: Server) -> None:
    elsewhere = Server(server.folder, HostPort.of("127.0.0.1", server.address.port))
    with answering(elsewhere, said("200 OK", b"{}")), vault(elsewhere) as asked:
        assert fault_of(asked).fault is VaultFault.UNTRUSTED


def test_v1_the_environment_has_no_say(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no address, no token, no CA and no leave to skip the look at a certificate."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("VAULT_ADDR", "VAULT_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("VAULT_TOKEN", "of-somebody-else")
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "true")
    with answering(server, said("200 OK", b'{"data": {}}')) as requests, vault(server) as asked:
        asked.token = ""
        assert asked.get("sys/health") == {"data": {}}
    (request,) = requests
    assert b"of-somebody-else" not in request
    assert b"x-vault-token" not in request.lower()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "ftp://127.0.0.1:1", "127.0.0.1:1"])
def test_v1_nothing_is_sent_without_tls(address: str, server: Server) -> None:
    with vault(server, address=address) as asked:
        assert fault_of(asked).fault in (VaultFault.UNTRUSTED, VaultFault.UNREACHABLE)


def test_v1_a_ca_that_cannot_be_read_is_told_by_name(server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no PEM")
    for path, reason in ((tmp_path / "missing.pem", "No such file"), (broken, "no PEM")):
        with vault(server, ca=path) as asked, pytest.raises(KeyFileError, match=reason) as caught:
            asked.get("sys/health")
        assert caught.value.path == path
    with ExitStack() as stack:
        mine = ClientCertificate(broken, broken)
        asked = Vault(Place(server.url, server.ca), mine)
        stack.callback(asked.close)
        with pytest.raises(KeyFileError, match=r"broken\.pem"):
            asked.get("sys/health")
