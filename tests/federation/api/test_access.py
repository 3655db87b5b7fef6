"""Who may call what: unix sockets, certificates, bearer tokens, and everybody else."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from federation.api.client import Target
from federation.api.tls import client_context
from pki.algorithms import spki_hash
from pki.spiffe import TrustDomain
from tests.federation.api.world import SERVER_NAME, Api, ask, serve
from tests.gateway.certificates import BASE, ca

LOOK, CHANGE, RENEW, JOIN = (
    ("GET", "/v1/things/x"),
    ("POST", "/v1/things"),
    ("POST", "/v1/renew"),
    ("POST", "/v1/join"),
)
BODY = {"cluster": "east"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path) as served:
        yield served


async def statuses(target: Target) -> dict[str, int]:
    found = {}
    for method, path in (LOOK, CHANGE, RENEW, JOIN):
        body = BODY if method == "POST" else None
        found[path], _ = await ask(target, method, path, body=body)
    return found


async def test_nobody_in_particular_may_do_nothing_but_redeem_a_token(api: Api) -> None:
    found = await statuses(api.remote())
    assert found == {LOOK[1]: 401, CHANGE[1]: 401, RENEW[1]: 401, JOIN[1]: 200}
    for path in ("/healthz", "/readyz", "/metrics", "/v1/openapi.json"):
        status, answer = await ask(api.remote(), "GET", path)
        assert (status, answer["code"]) == (401, "unauthorized")
        assert "federation operator create" in answer["hint"]
        assert "shown" not in answer["message"]


async def test_whoever_runs_the_process_may_do_everything_at_its_socket(api: Api) -> None:
    assert await statuses(api.local) == {LOOK[1]: 200, CHANGE[1]: 200, RENEW[1]: 403, JOIN[1]: 200}
    assert await ask(api.local, "GET", "/healthz") == (200, {"healthy": True})
    assert await ask(api.local, "GET", "/metrics") == (200, b"some_metric 1\n")
    api.ready = False
    assert await ask(api.local, "GET", "/readyz") == (503, {"ready": False})


async def test_a_role_says_what_a_certificate_may(api: Api) -> None:
    viewer, operator = await api.operator("vi", "viewer"), await api.operator("ada", "operator")
    assert await statuses(api.remote(viewer)) == {LOOK[1]: 200, CHANGE[1]: 403, RENEW[1]: 200, JOIN[1]: 200}
    assert await statuses(api.remote(operator)) == {LOOK[1]: 200, CHANGE[1]: 200, RENEW[1]: 200, JOIN[1]: 200}
    status, answer = await ask(api.remote(viewer), *CHANGE, body=BODY)
    assert (status, answer["code"]) == (403, "forbidden")
    assert answer["message"] == "vi may not do this: it needs the role operator"
    assert await ask(api.remote(viewer), "GET", "/healthz") == (200, {"healthy": True})
    await ask(api.remote(operator), *RENEW, body=BODY)
    principal = api.routes.calls[-1].principal
    assert str(principal.identity) == "spiffe://hub.mesh.example/operator/ada"
    assert principal.certificate is not None


async def test_a_role_says_what_a_bearer_token_may_and_losing_it_works_at_once(api: Api) -> None:
    viewer, operator = await api.bearer("vi", "viewer"), await api.bearer("ada", "operator")
    assert viewer.startswith("fedop1.")
    assert await statuses(api.remote(token=viewer)) == {
        LOOK[1]: 200, CHANGE[1]: 403, RENEW[1]: 403, JOIN[1]: 200,
    }  # fmt: skip
    assert (await ask(api.remote(token=operator), *CHANGE, body=BODY))[0] == 200
    assert (await ask(api.remote(token=operator[:-1]), *LOOK))[0] == 401
    assert (await ask(api.remote(), *LOOK, headers={"Authorization": f"Basic {operator}"}))[0] == 401
    assert await api.operators.remove("ada")
    status, answer = await ask(api.remote(token=operator), *CHANGE, body=BODY)
    assert status == 401
    assert "and the bearer token shown is not known here: removed, expired" in answer["message"]
    stored = repr([row.value for row in (await api.operators._store.load("")).rows.values()])
    assert viewer not in stored
    assert operator not in stored


async def test_a_certificate_counts_for_nobody_once_its_operator_is_removed_not_even_for_a_namesake(
    api: Api,
) -> None:
    first = await api.operator("ada", "operator")
    before = first.chain.read_bytes(), first.key.read_bytes()
    assert (await ask(api.remote(first), *CHANGE, body=BODY))[0] == 200
    await api.operators.remove("ada")
    status, answer = await ask(api.remote(first), *LOOK)
    assert status == 401
    assert "the certificate shown is not known here" in answer["message"]
    second = await api.operator("ada", "operator")
    assert (await ask(api.remote(second), *LOOK))[0] == 200
    first.chain.write_bytes(before[0])
    first.key.write_bytes(before[1])
    assert (await ask(api.remote(first), *LOOK))[0] == 401
    await api.bearer("eve", "operator")
    forged = api.forger.write(api.folder / "eve", f"spiffe://hub.{BASE}/operator/eve")
    assert (await ask(api.remote(forged), *LOOK))[0] == 401


@pytest.mark.parametrize(
    "uris",
    [
        ("operator/ada", "operator/vi"),
        ("operator/vi", "operator/ada"),
        ("operator/nobody",),
        ("federation",),
        ("agent",),
        ("gateway/eastwest",),
    ],
)
async def test_a_certificate_of_our_authority_that_is_no_operator_is_nobody(
    api: Api, uris: tuple[str, ...]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for name in ("ada", "vi"):
        await api.operators.create(name, "operator", key=spki_hash(key.public_key()))
    control = api.forger.write(api.folder / "control", f"spiffe://hub.{BASE}/operator/ada", key=key)
    assert (await ask(api.remote(control), *LOOK))[0] == 200
    shown = api.forger.write(api.folder / "odd", *(f"spiffe://hub.{BASE}/{path}" for path in uris), key=key)
    assert await statuses(api.remote(shown)) == {LOOK[1]: 401, CHANGE[1]: 401, RENEW[1]: 401, JOIN[1]: 200}


async def test_a_certificate_beside_a_token_does_not_borrow_its_role(api: Api) -> None:
    secret = await api.bearer("ada", "operator")
    shown = api.forger.write(api.folder / "odd", f"spiffe://hub.{BASE}/operator/nobody")
    assert (await ask(api.remote(shown, secret), *LOOK))[0] == 401


@pytest.mark.parametrize("uri", [f"spiffe://east.{BASE}/operator/ada", f"spiffe://hub.{BASE}/operator/ada"])
async def test_a_certificate_of_another_authority_does_not_get_through_the_handshake(
    api: Api, uri: str
) -> None:
    await api.operator("ada", "operator")
    shown = ca("east").write(api.folder / "east", uri)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await ask(api.remote(shown), *LOOK)


async def test_a_foreign_identity_by_our_own_authority_is_nobody(api: Api) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    await api.operators.create("ada", "operator", key=spki_hash(key.public_key()))
    east = TrustDomain.of_cluster("east", BASE)
    shown = api.forger.write(api.folder / "east", f"spiffe://{east}/operator/ada", key=key)
    assert (await ask(api.remote(shown), *LOOK))[0] == 401


async def test_tls_is_1_3_without_tickets_and_never_plain(api: Api) -> None:
    host, _, port = api.url.removeprefix("https://").rpartition(":")
    anchors = api.authority.bundle().anchors
    old = client_context(anchors)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(host, int(port), ssl=old, server_hostname=SERVER_NAME)
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=client_context(anchors), server_hostname=SERVER_NAME
    )
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 401")
    tls = writer.get_extra_info("ssl_object")
    assert (tls.version(), tls.session.has_ticket) == ("TLSv1.3", False)
    writer.close()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


SPEAK = """
import os, socket, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
opened = socket.socket(socket.AF_UNIX)
opened.connect(sys.argv[1])
opened.sendall(b"GET /v1/things/x HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
data = b""
while chunk := opened.recv(4096):
    data += chunk
print(data.decode())
"""


@pytest.mark.live
async def test_another_user_is_nobody_even_where_the_socket_lets_it_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with serve(Path(folder)) as api:
            if os.geteuid() != 0:
                monkeypatch.setattr("federation.api.callers.os.geteuid", lambda: os.getuid() + 1)
                assert (await ask(api.local, *LOOK))[0] == 401
                return
            os.chmod(folder, 0o711)
            assert "PermissionError" in await as_nobody(api.socket)
            api.socket.chmod(0o666)
            assert (await as_nobody(api.socket)).startswith("HTTP/1.1 401")


async def as_nobody(path: Path) -> str:
    """What a process of the user `nobody` is answered at a socket, or how it failed."""
    command = [sys.executable, "-c", SPEAK, str(path)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return said.decode()
