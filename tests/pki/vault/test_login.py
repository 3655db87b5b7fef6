"""Logging in to a real OpenBao by every method, and staying so; what a login needs is in files, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federation.clock import ManualClock, SystemClock
from federation.demo.openbao import Server
from pki.certificate import pem
from pki.errors import KeyFileError, VaultError, VaultFault
from pki.vault.login import AppRole, Certificate, Jwt, Kubernetes, Method, Token
from pki.vault.session import REHEARSAL, Session
from pki.vault.wire import ClientCertificate, Place, Vault
from tests.pki.vault.prepared import Prepared, prepare
from tests.pki.vault.server import Bao, unused
from tests.pki.world import new_key, serial

pytestmark = pytest.mark.live

POLICY = 'path "auth/token/*" { capabilities = ["read", "update"] }'


def private(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text)
    return path


def opened(bao: Bao, method: Method, clock: Any = None, place: Place | None = None) -> Session:
    return Session(place or Place(bao.url, bao.ca, timeout=5.0), method, clock or SystemClock())


async def policies_of(session: Session) -> set[str]:
    """What the token of a session may do, by its own word."""
    try:
        found = await session.ask(lambda vault: vault.get("auth/token/lookup-self"))
    finally:
        await session.close()
    return set(found["data"]["policies"])


@pytest.fixture(scope="session")
def policy(bao: Bao) -> str:
    bao.write("sys/policies/acl/hub", policy=POLICY)
    return "hub"


@pytest.fixture(scope="session")
def approle(bao: Bao, policy: str) -> str:
    """An AppRole; its role id."""
    bao.write("sys/auth/approle", type="approle") if "approle/" not in bao.call("GET", "sys/auth")[
        "data"
    ] else None
    bao.write("auth/approle/role/hub", token_policies=policy, token_no_default_policy=True, token_ttl="1h")
    role_id: str = bao.call("GET", "auth/approle/role/hub/role-id")["data"]["role_id"]
    return role_id


def secret_id(bao: Bao) -> str:
    made: str = bao.write("auth/approle/role/hub/secret-id")["secret_id"]
    return made


# ---- methods -----------------------------------------------------------------------------------------------------


async def test_v1_approle(bao: Bao, approle: str, tmp_path: Path) -> None:
    file = private(tmp_path / "secret-id", secret_id(bao) + "\n")
    assert await policies_of(opened(bao, AppRole(approle, file))) == {"hub"}


async def test_v1_jwt(bao: Bao, policy: str, tmp_path: Path) -> None:
    key = new_key()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    bao.write("sys/auth/jwt", type="jwt")
    bao.write("auth/jwt/config", jwt_validation_pubkeys=[public.decode()])
    bao.write(
        "auth/jwt/role/hub", role_type="jwt", bound_audiences="vault", user_claim="sub", token_policies=policy,
        token_no_default_policy=True,
    )  # fmt: skip
    file = tmp_path / "jwt"
    file.write_text(jwt(key, aud="vault", sub="hub"))
    assert await policies_of(opened(bao, Jwt("hub", file))) == {"hub"}
    canary = jwt(key, aud="somebody-else", sub="hub")
    file.write_text(canary)
    with pytest.raises(VaultError, match="aud") as caught:
        await policies_of(opened(bao, Jwt("hub", file)))
    assert canary not in str(caught.value)


def jwt(key: ec.EllipticCurvePrivateKey, **claims: Any) -> str:
    """A token that lives for five minutes (RFC 7519, ES256)."""
    now = int(time.time())
    parts = [{"alg": "ES256", "typ": "JWT"}, {"iat": now, "exp": now + 300, **claims}]
    body = b".".join(_url(json.dumps(part).encode()) for part in parts)
    numbers = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))
    return (body + b"." + _url(b"".join(number.to_bytes(32, "big") for number in numbers))).decode()


def _url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@contextmanager
def kubernetes_api(folder: Path, accounts: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """The TokenReview API of a Kubernetes, for tokens of service accounts `namespace:name`; its URL and CA."""

    class Reviews(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            account = accounts.get(asked["spec"]["token"])
            status: dict[str, Any] = {"authenticated": account is not None}
            if account is not None:
                user = {"username": f"system:serviceaccount:{account}", "uid": "1", "groups": []}
                status |= {"user": user, "audiences": asked["spec"].get("audiences") or []}
            body = json.dumps({**asked, "status": status}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing on the screen."""

    server = Server(folder, unused())
    server.write()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.folder / "server.pem", server.folder / "server.key")
    listening = ThreadingHTTPServer((server.address.host, server.address.port), Reviews)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield server.url, server.ca
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


async def test_v1_kubernetes(bao: Bao, policy: str, tmp_path: Path) -> None:
    """The kubelet's token is a link, and readable by others: it is its file that is replaced."""
    key = new_key()
    claims = {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:mesh:hub"}
    bound = {"namespace": "mesh", "serviceaccount": {"name": "hub", "uid": "1"}}
    first, second = (jwt(key, **claims, **{"kubernetes.io": bound}, jti=number) for number in ("1", "2"))
    with kubernetes_api(tmp_path / "api", {first: "mesh:hub", second: "mesh:hub"}) as (url, ca):
        bao.write("sys/auth/kubernetes", type="kubernetes")
        bao.write(
            "auth/kubernetes/config", kubernetes_host=url, kubernetes_ca_cert=ca.read_text(),
            disable_local_ca_jwt=True, disable_iss_validation=True,
        )  # fmt: skip
        bao.write(
            "auth/kubernetes/role/hub", bound_service_account_names="hub", bound_service_account_namespaces="mesh",
            token_policies=policy, token_no_default_policy=True,
        )  # fmt: skip
        (tmp_path / "data").write_text(first)
        link = tmp_path / "token"
        link.symlink_to(tmp_path / "data")
        for token in (first, second):
            (tmp_path / "data").write_text(token)
            assert await policies_of(opened(bao, Kubernetes("hub", link))) == {"hub"}
        (tmp_path / "data").write_text(jwt(key, **claims, **{"kubernetes.io": bound}, jti="3"))
        with pytest.raises(VaultError) as caught:
            await policies_of(opened(bao, Kubernetes("hub", link)))
        assert caught.value.fault in (VaultFault.DENIED, VaultFault.REFUSED, VaultFault.FAILING)


async def test_v1_certificate(bao: Bao, policy: str, tmp_path: Path) -> None:
    """Read anew at each login, so that it may be one that is renewed every day."""
    shown = ClientCertificate(tmp_path / "leaf.pem", tmp_path / "leaf.key")
    leaf = show_leaf(shown)
    bao.write("sys/auth/cert", type="cert")
    bao.write("auth/cert/certs/hub", certificate=leaf, token_policies=policy, token_no_default_policy=True)
    session = opened(bao, Certificate("hub", shown))
    await session.ask(lambda vault: vault.get("auth/token/lookup-self"))
    show_leaf(shown)
    session._rehearse_at = 0.0
    session.tend()
    assert "to rehearse a login failed" in session.problem
    await session.close()


def show_leaf(shown: ClientCertificate) -> str:
    """A new certificate in the files of `shown`; its PEM. Vault names whoever logs in by the common name."""
    key, now = new_key(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = pem([made]).decode()
    shown.chain.write_text(text)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    private(shown.key, encoded.decode())
    return text


async def test_v1_a_token_of_somebody_else_is_taken_as_it_is(bao: Bao, policy: str, tmp_path: Path) -> None:
    made = bao.call(
        "POST", "auth/token/create", {"policies": [policy], "no_default_policy": True, "ttl": "1h"}
    )
    file = private(tmp_path / "token", made["auth"]["client_token"])
    session = opened(bao, Token(file))
    await session.ask(lambda vault: vault.get("auth/token/lookup-self"))
    assert 3500 < session.standing.token_left <= 3600
    session._rehearse_at = 0.0
    assert session.tend() > 0
    assert session.problem == ""
    assert await policies_of(session) == {"hub"}, "a rehearsal does not end a token that cannot be had again"
    own = opened(bao, Token(private(tmp_path / "root", bao.root_token)))
    await own.ask(lambda vault: vault.get("auth/token/lookup-self"))
    assert own.standing.token_left == float("inf")
    await own.close()


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [("", 0o600, "one line"), ("a\nb", 0o600, "one line"), ("x" * 20_000, 0o600, "longer"),
     ("é", 0o600, "one line"), ("hunter2", 0o644, "lets others in"), (None, 0o600, "does not exist")],
)  # fmt: skip
async def test_k1_a_file_that_is_no_secret_is_told_by_name(
    text: str | None, mode: int, reason: str, bao: Bao, approle: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret-id"
    if text is not None:
        private(file, text).chmod(mode)
    with pytest.raises(KeyFileError, match=reason) as caught:
        await policies_of(opened(bao, AppRole(approle, file)))
    assert caught.value.path == file
    assert not text or text not in str(caught.value)


# ---- wrapped secret ids --------------------------------------------------------------------------------------------


def wrapped(bao: Bao, path: str = "auth/approle/role/hub/secret-id", **body: Any) -> str:
    """A wrapping token of what writing to `path` answers."""
    answer = requests.post(
        f"{bao.url}/v1/{path}", json=body, verify=str(bao.ca), timeout=30,
        headers={"X-Vault-Token": bao.root_token, "X-Vault-Wrap-TTL": "5m"},
    )  # fmt: skip
    token: str = answer.json()["wrap_info"]["token"]
    return token


async def test_v1_a_wrapped_secret_id_is_opened_once_and_outlives_a_restart(
    bao: Bao, approle: str, tmp_path: Path
) -> None:
    file, keep = private(tmp_path / "wrapped", wrapped(bao)), tmp_path / "kept"
    method = AppRole(approle, file, keep)
    for _ in range(2):
        assert await policies_of(opened(bao, method)) == {"hub"}
    assert keep.stat().st_mode & 0o777 == 0o600
    file.unlink()
    assert await policies_of(opened(bao, method)) == {"hub"}
    first = keep.read_bytes()
    private(file, wrapped(bao))
    assert await policies_of(opened(bao, method)) == {"hub"}
    assert keep.read_bytes() != first
    keep.write_bytes(b"{")
    with pytest.raises(KeyFileError, match="damaged"):
        await policies_of(opened(bao, method))


async def test_v1_a_wrapping_token_that_somebody_else_has_opened_is_an_alarm(
    bao: Bao, approle: str, tmp_path: Path
) -> None:
    token = wrapped(bao)
    bao.call("POST", "sys/wrapping/unwrap", {}, token=token)
    file = private(tmp_path / "wrapped", token)
    with pytest.raises(KeyFileError, match="somebody else has opened it; revoke"):
        await policies_of(opened(bao, AppRole(approle, file, tmp_path / "kept")))
    assert not (tmp_path / "kept").exists()


async def test_v1_a_wrapping_token_of_something_else_is_not_opened(
    bao: Bao, approle: str, tmp_path: Path
) -> None:
    """Somebody put his own in its place, to have us log in with what he knows."""
    token = wrapped(bao, "sys/wrapping/wrap", secret_id="known-to-him")
    file = private(tmp_path / "wrapped", token)
    with pytest.raises(KeyFileError, match="not made for a secret id"):
        await policies_of(opened(bao, AppRole(approle, file, tmp_path / "kept")))
    assert bao.call("POST", "sys/wrapping/unwrap", {}, token=token)["data"] == {"secret_id": "known-to-him"}


# ---- staying logged in ---------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(bao: Bao, tmp_path: Path) -> Prepared:
    return prepare(bao, "root", tmp_path)


async def test_a_lease_is_renewed_at_half_and_had_anew_before_its_longest_life(prepared: Prepared) -> None:
    """With time that is moved: Vault says how long its token lives, and we act on our clock."""
    clock = ManualClock()
    session = prepared.session(clock=clock)
    await session.ask(lambda vault: vault.get("auth/token/lookup-self"))
    first = session.vault.token
    assert session.standing.token_left == 3600
    session._rehearse_at = float("inf")
    clock.advance(1801)
    assert session.tend() > 0
    assert (session.vault.token, session.standing.token_left) == (first, 3600)
    prepared.bao.write(f"auth/approle/role/{prepared.role}", token_max_ttl="1h", token_explicit_max_ttl=0)
    clock.advance(1801)
    session.tend()
    clock.advance(1801)
    session.tend()
    assert session.standing.token_left > 0
    clock.advance(4000)
    assert session.standing.token_left == 0
    session.tend()
    assert session.vault.token != first
    await session.close()


async def test_a_rehearsal_leaves_the_token_as_it_is_and_no_other_behind(prepared: Prepared) -> None:
    clock = ManualClock()
    session = prepared.session(clock=clock)
    await session.ask(lambda vault: vault.get("auth/token/lookup-self"))
    token, before = session.vault.token, living(prepared)
    clock.advance(REHEARSAL + 1)
    assert session.tend() > 0
    assert (session.vault.token, session.problem) == (token, "")
    assert living(prepared) == before
    await session.close()


def living(prepared: Prepared) -> int:
    """Tokens of the role that have not been revoked."""
    count = 0
    for accessor in prepared.bao.call("LIST", "auth/token/accessors")["data"]["keys"]:
        found = prepared.bao.write("auth/token/lookup-accessor", accessor=accessor)
        count += prepared.role in found["policies"]
    return count


async def test_a_session_keeps_itself_until_it_is_cancelled(prepared: Prepared) -> None:
    clock = ManualClock()
    session = prepared.session(clock=clock)
    running = asyncio.create_task(session.run(), name="vault")
    while not clock.sleepers:
        await asyncio.sleep(0.01)
    assert session.standing.token_left == 3600
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await session.close()


async def test_many_who_ask_at_once_log_in_once(prepared: Prepared) -> None:
    before = living(prepared)
    session = prepared.session()
    await asyncio.gather(*(session.ask(lambda vault: vault.get("auth/token/lookup-self")) for _ in range(20)))
    assert living(prepared) == before + 1
    await session.close()


async def test_v4_what_is_handed_in_is_not_changed(prepared: Prepared) -> None:
    session = prepared.session()
    body: dict[str, Any] = {"paths": ["sys/mounts"]}
    for _ in range(2):
        await session.ask(lambda vault: vault.post("sys/capabilities-self", body))
        assert body == {"paths": ["sys/mounts"]}
    await session.close()


async def test_v1_a_namespace_is_said_with_every_call(bao: Bao, tmp_path: Path) -> None:
    """A namespace of OpenBao has mounts and logins of its own."""
    bao.call("POST", "sys/namespaces/mesh")
    inside = {"namespace": "mesh"}
    bao.call("POST", "sys/auth/inside", {"type": "approle"}, **inside)
    bao.call("POST", "auth/inside/role/hub", {"token_policies": "default"}, **inside)
    role_id = bao.call("GET", "auth/inside/role/hub/role-id", **inside)["data"]["role_id"]
    made = bao.call("POST", "auth/inside/role/hub/secret-id", **inside)["data"]["secret_id"]
    method = AppRole(role_id, private(tmp_path / "secret-id", made), mount="inside")
    assert await policies_of(opened(bao, method, place=Place(bao.url, bao.ca, namespace="mesh"))) == {
        "default"
    }
    with pytest.raises(VaultError):
        await policies_of(opened(bao, method))


async def test_v6_secrets_are_in_no_text_of_ours_and_in_no_log_of_the_server(prepared: Prepared) -> None:
    session = prepared.session()
    await session.ask(lambda vault: vault.get("auth/token/lookup-self"))
    secrets = (prepared.secret_id.read_text().strip(), session.vault.token)
    texts = f"{session!r} {session.vault!r} {session.standing!r} {prepared.method()!r} {prepared.bao.said}"
    with pytest.raises(VaultError) as caught:
        Vault(session.vault.place).login(
            "approle", {"role_id": prepared.role_id, "secret_id": "x" + secrets[0]}
        )
    texts += f"{caught.value} {caught.value!r}"
    assert not [secret for secret in secrets if secret in texts]
    await session.close()
