"""A credential for a person: made here, believed by the hub, and enough for the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from federation.access import HubAccess
from federation.api.messages import NewOperator, Renew
from federation.api.routes import Access, ApiProblem, Call, Principal, encode
from federation.cli.target import resolve
from federation.clock import SystemClock
from federation.errors import FederationError
from federation.operators import create_credential, renew_credential
from federation.store import Image
from pki.certificate import der, load_pem
from pki.errors import KeyFileError
from tests.federation.issuers import Issuer, issuer

CLOCK = SystemClock()
Role = Literal["viewer", "operator"]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with issuer(tmp_path / "hub") as opened:
        yield opened


class Hub:
    """The operators of a hub, asked as its API is asked."""

    def __init__(self, made: Issuer) -> None:
        self.store = made.operators
        self.access = HubAccess(self.store, made.authority.bundle, CLOCK.now)
        self.routes = made.routes

    def post(self, loop: asyncio.AbstractEventLoop) -> Callable[[NewOperator], dict[str, Any]]:
        """As the command line asks: from another thread, and over JSON."""

        def ask(body: NewOperator) -> dict[str, Any]:
            call = Call(Principal("root", Access.OPERATOR), body=body)
            made = asyncio.run_coroutine_threadsafe(self.routes.operators.create(call), loop).result()
            answer: dict[str, Any] = msgspec.json.decode(encode(made))
            return answer

        return ask

    def renewing(
        self, principal: Principal, loop: asyncio.AbstractEventLoop
    ) -> Callable[[Renew], dict[str, Any]]:
        """As somebody asks who shows the certificate of `principal`."""

        def ask(body: Renew) -> dict[str, Any]:
            call = Call(principal, body=body)
            made = asyncio.run_coroutine_threadsafe(self.routes.operators.renew(call), loop).result()
            answer: dict[str, Any] = msgspec.json.decode(encode(made))
            return answer

        return ask

    async def create(self, name: str, role: Role, certificate: bool, folder: Path) -> dict[str, Any]:
        post = self.post(asyncio.get_running_loop())
        return await asyncio.to_thread(create_credential, post, name, role, certificate, folder)


async def test_a_bearer_token_lets_its_holder_in(
    hub: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, folder = Hub(hub), tmp_path / "ada"
    made = await at.create("ada", "operator", False, folder)
    assert made == {"name": "ada", "role": "operator", "contexts": str(folder / "contexts.yaml")}
    monkeypatch.setenv("FEDERATION_CONTEXTS", made["contexts"])
    target = resolve(None)
    assert (target.url, target.server_name) == (f"https://{hub.address}", "federation.hub.mesh.example")
    assert target.tls is not None
    assert target.token is not None
    principal = await at.access.bearer(target.token)
    assert principal is not None
    assert (principal.name, principal.access) == ("ada", Access.OPERATOR)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "bundle.pem": 0o600, "token": 0o600, "contexts.yaml": 0o600,
    }  # fmt: skip


async def test_a_certificate_lets_its_holder_in_and_its_key_never_leaves(
    hub: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, folder = Hub(hub), tmp_path / "vi"
    made = await at.create("vi", "viewer", True, folder)
    monkeypatch.setenv("FEDERATION_CONTEXTS", made["contexts"])
    assert resolve("hub").token is None
    (shown, *_) = load_pem((folder / "certificate.pem").read_bytes())
    principal = await at.access.certificate(der(shown))
    assert principal is not None
    assert (principal.name, principal.access) == ("vi", Access.VIEWER)
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert await at.store.remove("vi")
    assert await at.access.certificate(der(shown)) is None


async def test_a_certificate_is_renewed_for_its_key_as_often_as_its_holder_likes(
    hub: Issuer, tmp_path: Path
) -> None:
    at, folder = Hub(hub), tmp_path / "ada"
    await at.create("ada", "operator", True, folder)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    first, private = certificate.read_bytes(), key.read_bytes()
    seen = {first}
    for shown in (first, first, None):  # an answer may be lost; the old one is shown again
        principal = await at.access.certificate(der(load_pem(shown or certificate.read_bytes())[0]))
        assert principal is not None
        made = await asyncio.to_thread(
            renew_credential, at.renewing(principal, asyncio.get_running_loop()), certificate, key
        )
        (leaf, *_) = load_pem(certificate.read_bytes())
        assert made == {"certificate": str(certificate), "expires_at": leaf.not_valid_after_utc.isoformat()}
        assert certificate.stat().st_mode & 0o777 == 0o600
        seen.add(certificate.read_bytes())
        again = await at.access.certificate(der(leaf))
        assert again is not None
        assert (again.name, again.access) == ("ada", Access.OPERATOR)
    assert len(seen) == 4
    assert key.read_bytes() == private
    assert await at.store.remove("ada")
    assert await at.access.certificate(der(leaf)) is None


async def test_a_certificate_is_not_renewed_for_another_key(hub: Issuer, tmp_path: Path) -> None:
    """Else whoever may use a key for a moment could carry the access away to one of his own."""
    at, folder = Hub(hub), tmp_path / "ada"
    await at.create("ada", "operator", True, folder)
    await at.create("vi", "viewer", True, tmp_path / "vi")
    certificate, key = folder / "certificate.pem", tmp_path / "vi" / "key.pem"
    before = certificate.read_bytes()
    principal = await at.access.certificate(der(load_pem(before)[0]))
    assert principal is not None
    with pytest.raises(ApiProblem, match="another key"):
        await asyncio.to_thread(
            renew_credential, at.renewing(principal, asyncio.get_running_loop()), certificate, key
        )
    key.write_text("not a key")
    with pytest.raises(FederationError, match="does not hold a private key"):
        renew_credential(lambda body: {}, certificate, key)
    assert certificate.read_bytes() == before


@pytest.mark.parametrize("wrong", ["nothing", "no certificate", "another key's"])
async def test_an_answer_that_is_no_certificate_for_the_key_replaces_nothing(
    hub: Issuer, tmp_path: Path, wrong: str
) -> None:
    at, folder = Hub(hub), tmp_path / "ada"
    await at.create("ada", "operator", True, folder)
    await at.create("vi", "viewer", True, tmp_path / "vi")
    other = (tmp_path / "vi" / "certificate.pem").read_text()
    answered = {"nothing": [], "no certificate": ["not PEM"], "another key's": [other]}[wrong]
    certificate = folder / "certificate.pem"
    before = certificate.read_bytes()
    with pytest.raises(FederationError, match="no certificate for our key") as refused:
        renew_credential(lambda body: {"certificates": answered}, certificate, folder / "key.pem")
    assert str(certificate) in refused.value.hint
    assert certificate.read_bytes() == before


async def test_a_credential_is_not_made_from_an_answer_without_its_certificate(tmp_path: Path) -> None:
    answer = {"name": "ada", "role": "viewer", "url": "https://127.0.0.1:1", "server_name": "x", "bundle": ""}
    with pytest.raises(FederationError, match="no certificate for our key"):
        create_credential(lambda body: answer, "ada", "viewer", True, tmp_path / "ada")
    assert list((tmp_path / "ada").iterdir()) == []


async def test_a_hub_that_dies_between_certificate_and_operator_leaves_the_name_free(
    hub: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Hub(hub)
    with monkeypatch.context() as dying:
        dying.setattr(at.store, "create", _die)
        with pytest.raises(ConnectionError):
            await at.create("ada", "operator", True, tmp_path / "first")
    assert await at.store.listed() == ()
    await at.create("ada", "operator", True, tmp_path / "second")
    assert [one.name for one in await at.store.listed()] == ["ada"]


async def _die(*_: object, **__: object) -> None:
    raise ConnectionError("the process ended")


async def test_what_cannot_be_a_bearer_token_is_refused_without_a_look_at_the_store(
    hub: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Hub(hub)
    secret = await at.store.create("ada", "viewer")
    assert secret is not None
    looks: list[str] = []
    load = at.store._store.load

    async def counted(prefix: str) -> Image:
        looks.append(prefix)
        return await load(prefix)

    monkeypatch.setattr(at.store._store, "load", counted)
    guesses = [
        "",
        "x",
        "fedop1.",
        secret[:-1],
        secret + "A",
        secret.upper(),
        secret + "\n",
        "fedop2" + secret[6:],
    ]
    assert [await at.store.by_secret(guess) for guess in guesses] == [None] * len(guesses)
    assert await at.store.by_secret("fedop1." + "é" * 43) is None
    assert looks == []
    found = await at.store.by_secret(secret)
    assert found is not None
    assert found.name == "ada"
    assert await at.store.by_secret("fedop1." + "A" * 43) is None
    assert len(looks) == 2


async def test_a_credential_is_not_overwritten(hub: Issuer, tmp_path: Path) -> None:
    at, folder = Hub(hub), tmp_path / "ada"
    await at.create("ada", "viewer", False, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FederationError, match="exists already"):
        await at.create("other", "viewer", False, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [one.name for one in await at.store.listed()] == ["ada"]


async def test_a_folder_that_others_may_enter_is_refused_before_the_hub_is_asked(
    hub: Issuer, tmp_path: Path
) -> None:
    at, folder = Hub(hub), tmp_path / "open"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(KeyFileError, match="chmod 0700"):
        await at.create("ada", "viewer", False, folder)
    assert await at.store.listed() == ()


@pytest.mark.parametrize("name", ["", "Ada", "ada/operator", "-ada", "a" * 64])
async def test_a_name_that_cannot_be_is_refused(hub: Issuer, tmp_path: Path, name: str) -> None:
    at = Hub(hub)
    with pytest.raises(FederationError, match="not a name for an operator"):
        await at.create(name, "viewer", True, tmp_path / "folder")
    assert await at.store.listed() == ()


async def test_a_name_is_given_once_and_a_bad_request_leaves_no_operator_behind(hub: Issuer) -> None:
    at = Hub(hub)
    await at.store.create("ada", "viewer")
    with pytest.raises(FederationError, match="there is an operator ada already"):
        await at.store.create("ada", "operator")
    bad = Call(Principal("root", Access.OPERATOR), body=NewOperator(name="vi", role="viewer", csr="nonsense"))
    with pytest.raises(ApiProblem) as refused:
        await at.routes.operators.create(bad)
    assert (refused.value.status, refused.value.code) == (400, "csr")
    assert [one.name for one in await at.store.listed()] == ["ada"]
    assert not await at.store.remove("nobody")


def test_a_hub_of_another_version_is_told(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="does not speak this version"):
        create_credential(lambda body: {"name": "ada"}, "ada", "viewer", False, tmp_path / "ada")
    assert not (tmp_path / "ada" / "contexts.yaml").exists()
