"""A workload's folder against the doors of a real agent: by token, by an operator, from one certificate to the next."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import pytest

from federation import workload
from federation.access import AgentAccess
from federation.api.client import Refusal, Target, connect
from federation.api.doors import TcpDoor, UnixDoor, serving
from federation.api.issue_routes import IssueRoutes
from federation.api.messages import IssuedCertificate, NewCertificate, Redeem, Redeemed
from federation.api.redeem import Redemption, redeem
from federation.api.routes import Access, ApiProblem, Call, Route
from federation.api.server import api_application
from federation.api.tls import served
from federation.attest import Attestor, Instances
from federation.clock import SystemClock
from federation.errors import FederationError, Unreachable
from federation.identity import Identity
from federation.issuer import Issuer
from federation.onlookers import behind
from federation.store import MemoryStore
from federation.svid.client import newest_bundle
from federation.svid.quota import Quota
from federation.svid.server import Callers, SvidServer
from federation.tokens import TokenStore
from gateway.xds.server import ServerCredentials, add_secure_port, new_server
from pki import durable
from pki.bundle import Bundle
from pki.certificate import load_pem
from pki.errors import KeyFileError, PkiError
from pki.keys.file import FileKeyStore
from pki.limits import Limits, NameTemplate
from pki.lineage import Lineage
from pki.rotation import advance
from pki.spiffe import SpiffeId, TrustDomain
from pki.token import JoinToken
from pki.validate import verify_peer
from tests.federation.svid.test_server import free_port
from tests.pki.world import BASE, make_root

CLOCK = SystemClock()
EAST = TrustDomain.of_cluster("east", BASE)
CART = SpiffeId.workload(EAST, "shop", "cart")
DAY, TEN_MINUTES = timedelta(days=1), timedelta(minutes=10)


class Doors:
    def __init__(self, folder: Path, authority: Lineage, attestor: Attestor, issuer: Issuer) -> None:
        self.folder, self.authority, self.attestor, self.issuer = folder, authority, attestor, issuer

    @property
    def unready(self) -> set[int]:
        """The certificates for which the next authority would wait."""
        now, newest = CLOCK.now(), self.authority.bundle().sequence
        found = behind(self.authority.ledger(now), newest, self.issuer.gone, lambda _: False, now)
        return {entry.serial for entry in found}

    async def publish(self) -> None:
        """Begin a rotation, and publish the anchor of the authority that follows."""
        await self.authority.begin("ada", "")
        assert self.authority.rotation is not None
        await self.authority.enter(advance(self.authority.rotation, frozenset(), {}))

    @property
    def local(self) -> Target:
        return Target(f"unix://{self.folder / 'api.sock'}")

    async def token(self, path: str = CART.path) -> JoinToken:
        text, _ = await self.attestor.create_for_workload(path, TEN_MINUTES)
        return JoinToken.decode(text)


@asynccontextmanager
async def agent(folder: Path) -> AsyncIterator[Doors]:
    """The doors of an agent through which workloads come."""
    authority = await Lineage.open(folder / "authority", FileKeyStore(folder / "keys"), EAST, CLOCK)
    identity = Identity(authority, SpiffeId.agent(EAST), folder / "leaf.pem", DAY, CLOCK)
    await identity.start()
    store = MemoryStore()
    tokens, api, xds = TokenStore(store, CLOCK.now), free_port(), free_port()
    limits = Limits(longest=timedelta(hours=2), names=(NameTemplate("/ns/shop/sa/*"),))
    issuer = Issuer(authority, tokens, limits, Quota(50, 1000), CLOCK)
    _, root = make_root()
    attestor = Attestor(
        authority, lambda: root, tokens, Instances(store), api, xds, BASE, DAY, CLOCK, issuer=issuer
    )

    async def attest(call: Call) -> Redeemed:
        return await attestor.attest(call.body)

    attesting = Route("POST", "/v1/attest", "Redeem", Access.OUTCOME, attest, Redeemed, Redeem)
    routes = (attesting, *IssueRoutes(issuer, authority).routes())
    app = api_application("agent", version("federation"), routes, AgentAccess(authority.bundle, CLOCK.now))
    server = new_server(SvidServer(Callers(authority.bundle, CLOCK.now), issuer.issue).handler())

    def credentials() -> ServerCredentials:
        return ServerCredentials(identity.current.chain, identity.current.key, authority.bundle().pem())

    add_secure_port(server, xds, credentials)
    await server.start()
    door = TcpDoor(api, served(identity, authority.bundle))
    try:
        async with serving(app, UnixDoor(folder / "api.sock"), door):
            yield Doors(folder, authority, attestor, issuer)
    finally:
        await server.stop(None)
        await authority.close()


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    async with agent(tmp_path) as found:
        yield found


def check(folder: Path, doors: Doors) -> int:
    """What is in a folder is whole, private, believed and for its workload; its serial number."""
    assert {path.name for path in folder.iterdir()} <= set(workload.FILES)
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path == folder else 0o600)
    kept = workload.read(folder)
    assert verify_peer(kept.chain, {EAST: doors.authority.bundle()}, CLOCK.now()) == CART
    assert load_pem((folder / workload.BUNDLE).read_bytes()) == doors.authority.bundle().anchors
    return kept.chain[0].serial_number


async def test_a_token_then_one_certificate_after_the_other(doors: Doors, tmp_path: Path) -> None:
    folder = tmp_path / "cart"
    await workload.from_token(await doors.token(), folder, CLOCK)
    serials = [check(folder, doors)]
    for _ in range(3):
        await workload.renewed(folder, CLOCK)
        serials.append(check(folder, doors))
    assert len(set(serials)) == 4
    lines = {entry.serial: entry.identity for entry in doors.authority.ledger(CLOCK.now())}
    assert {lines[serial] for serial in serials} == {str(CART)}


async def test_a_copy_of_an_older_certificate_is_not_renewed(doors: Doors, tmp_path: Path) -> None:
    folder, copy = tmp_path / "cart", tmp_path / "copy"
    await workload.from_token(await doors.token(), folder, CLOCK)
    copy.mkdir(mode=0o700)
    for path in folder.iterdir():
        durable.write(copy / path.name, path.read_bytes())
    await workload.renewed(folder, CLOCK)
    with pytest.raises(FederationError, match="replaced already"):
        await workload.renewed(copy, CLOCK)
    await workload.renewed(folder, CLOCK)


async def test_a_token_is_good_once(doors: Doors, tmp_path: Path) -> None:
    token = await doors.token()
    await workload.from_token(token, tmp_path / "cart", CLOCK)
    with pytest.raises(Refusal, match="the token is not valid"):
        await workload.from_token(token, tmp_path / "again", CLOCK)
    assert not (tmp_path / "again").exists()


async def test_no_token_is_made_for_a_name_that_gets_no_certificate(doors: Doors) -> None:
    for path, said in (
        ("/ns/bank/sa/vault", "issuing.names allows /ns/shop/sa/"),
        ("/ns/shop/sa/..", "a dot segment"),
        ("/ns/shop/sa/UPPER", "shop"),
        ("/ns/shop/sa/", "empty"),
    ):
        with pytest.raises(FederationError, match=said):
            await doors.token(path)


async def test_an_operator_issues_by_name_within_the_limits(doors: Doors, tmp_path: Path) -> None:
    async def ask(body: NewCertificate) -> IssuedCertificate:
        async with connect(doors.local) as client:
            return msgspec.convert(
                await client.call("POST", "/v1/certificates", body=body), IssuedCertificate
            )

    loop = asyncio.get_running_loop()

    def asked(body: NewCertificate) -> object:
        return msgspec.to_builtins(asyncio.run_coroutine_threadsafe(ask(body), loop).result(30))

    folder = tmp_path / "cart"
    made = await asyncio.to_thread(workload.from_operator, asked, str(CART), 86_400, folder)
    assert (made.requested, made.granted, made.limited_by) == (86_400, 7200, "issuing.longest")
    assert made.serial == f"{check(folder, doors):x}"
    with pytest.raises(FederationError, match="does not say where its certificate is renewed"):
        await workload.renewed(folder, CLOCK)
    for wrong, code in (
        (str(SpiffeId.agent(EAST)), "identity"),
        ("spiffe://west.mesh.example/ns/shop/sa/cart", "identity"),
        ("spiffe://u@east.mesh.example/ns/shop/sa/cart", "spiffe-id"),
        ("https://east.mesh.example", "spiffe-id"),
    ):
        with pytest.raises(Refusal) as refused:
            await asyncio.to_thread(workload.from_operator, asked, wrong, None, tmp_path / "none")
        assert refused.value.code == code
    assert not (tmp_path / "none").exists()


async def test_k3_k6_a_crash_at_any_write_of_a_renewal_costs_nothing_but_another_try(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "cart", durable.write
    await workload.from_token(await doors.token(), folder, CLOCK)
    died = set()
    for number in range(1, 7):
        left = [number]

        def dying(path: Path, data: bytes, mode: int = 0o600, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                died.add(path.name)
                raise OSError("killed")
            real(path, data, mode)

        before = check(folder, doors)
        monkeypatch.setattr(durable, "write", dying)
        with contextlib.suppress(OSError):
            await workload.renewed(folder, CLOCK)
        monkeypatch.undo()
        check(folder, doors)
        await workload.renewed(folder, CLOCK)
        assert check(folder, doors) != before
    assert died == {workload.NEXT_KEY, workload.AGENT, workload.BUNDLE, workload.CHAIN, workload.KEY}


async def test_a_renewal_brings_the_newest_bundle_and_tells_the_agent_that_it_has_come(
    doors: Doors, tmp_path: Path
) -> None:
    folder = tmp_path / "cart"
    await workload.from_token(await doors.token(), folder, CLOCK)
    first = check(folder, doors)
    await doors.publish()
    assert doors.unready == {first}
    await workload.renewed(folder, CLOCK)
    check(folder, doors)
    assert len(load_pem((folder / workload.BUNDLE).read_bytes())) == 2
    assert doors.unready == set()


async def test_a_renewal_whose_answer_was_lost_is_waited_for_and_brings_the_newest_bundle_when_repeated(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cart"
    await workload.from_token(await doors.token(), folder, CLOCK)
    first = check(folder, doors)

    def lost(*_: object) -> None:
        raise Unreachable("the agent", "the connection was lost")

    monkeypatch.setattr(workload, "believed", lost)
    for publishing in (False, True):
        if publishing:
            await doors.publish()
        with pytest.raises(Unreachable):
            await workload.renewed(folder, CLOCK)
        assert load_pem((folder / workload.CHAIN).read_bytes())[0].serial_number == first
    monkeypatch.undo()
    assert first in doors.unready, "it has nothing but the old anchor, and what would it renew with?"
    await workload.renewed(folder, CLOCK)
    assert check(folder, doors) != first
    assert doors.unready == set()


async def test_an_anchor_that_is_published_during_a_renewal_is_there_at_its_end(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asks = tmp_path / "cart", newest_bundle

    async def published_first(channel: grpc.aio.Channel) -> bytes:
        await doors.publish()
        return await asks(channel)

    await workload.from_token(await doors.token(), folder, CLOCK)
    monkeypatch.setattr(workload, "newest_bundle", published_first)
    made = await workload.renewed(folder, CLOCK)
    check(folder, doors)
    monkeypatch.undo()
    assert made.home == workload.read(folder).home
    await workload.renewed(folder, CLOCK)
    check(folder, doors)


async def test_an_anchor_that_is_published_while_a_token_is_redeemed_is_there_at_its_end(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle that the token pins came before it; what counts is the one that came with the certificate."""
    token, folder, real = await doors.token(), tmp_path / "cart", redeem

    async def published_first(*arguments: Any) -> Redemption:
        token, path, role, request, *rest = arguments

        async def asked(bundle: Bundle) -> bytes:
            await doors.publish()
            made: bytes = await request(bundle)
            return made

        return await real(token, path, role, asked, *rest)

    monkeypatch.setattr(workload, "redeem", published_first)
    await workload.from_token(token, folder, CLOCK)
    check(folder, doors)
    assert doors.unready == set()


async def test_an_agent_that_does_not_answer_the_last_word_is_none_the_worse(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> bytes:
        raise Unreachable("the agent", "the connection was lost")

    folder = tmp_path / "cart"
    await workload.from_token(await doors.token(), folder, CLOCK)
    first = check(folder, doors)
    monkeypatch.setattr(workload, "newest_bundle", away)
    await workload.renewed(folder, CLOCK)
    assert check(folder, doors) != first
    await doors.publish()
    assert first in doors.unready


async def test_a_token_whose_answer_was_lost_is_good_again_for_the_key_on_disk(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, folder, real = await doors.token(), tmp_path / "cart", durable.write

    def dying(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name != workload.NEXT_KEY:
            raise OSError("killed")
        real(path, data, mode)

    monkeypatch.setattr(durable, "write", dying)
    with pytest.raises(OSError, match="killed"):
        await workload.from_token(token, folder, CLOCK)
    monkeypatch.undo()
    await workload.from_token(token, folder, CLOCK)
    check(folder, doors)


async def test_what_is_missing_or_foreign_is_said(doors: Doors, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="get a certificate with a token"):
        workload.read(tmp_path)
    text, _ = await doors.attestor.create("eastwest", TEN_MINUTES)
    for name in (workload.KEY, workload.CHAIN):
        shutil.copy(doors.folder / "keys" / "ca-1.key", tmp_path / name)
    with pytest.raises(PkiError):
        workload.read(tmp_path)
    with pytest.raises(FederationError, match="not for a workload"):
        await workload.from_token(JoinToken.decode(text), tmp_path / "cart", CLOCK)


async def test_an_operator_is_given_no_identity_of_a_process(doors: Doors, tmp_path: Path) -> None:
    identity = SpiffeId.agent(EAST)
    code, _, err = await run("--hub", doors.local.url, "ca", "issue", identity, "--out", tmp_path / "agent")
    assert code == 1
    assert f"{identity}: it is of a process of the federation, and is not given by administrator" in err
    assert "name a workload: spiffe://" in err


async def test_a_chain_that_cannot_be_read_is_named(doors: Doors, tmp_path: Path) -> None:
    folder = tmp_path / "cart"
    await workload.from_token(await doors.token(), folder, CLOCK)
    (folder / workload.CHAIN).write_text("garbage\n")
    with pytest.raises(KeyFileError, match="get a new certificate with a token") as refused:
        await workload.renewed(folder, CLOCK)
    assert refused.value.path == folder / workload.CHAIN


@pytest.mark.parametrize("path", ["/ns/Shop!/sa/cart", "/ns//sa/cart"])
async def test_a_workload_whose_name_cannot_be_is_told_what_names_there_are(doors: Doors, path: str) -> None:
    """No setting of the agent stands against it."""
    with pytest.raises(ApiProblem) as refused:
        await doors.attestor.create_for_workload(path, TEN_MINUTES)
    assert refused.value.status == 400
    assert "namespace/service-account" in refused.value.hint
    assert "issuing" not in refused.value.hint


async def run(*arguments: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from federation.cli.main import main; main()",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.live
async def test_the_commands(doors: Doors, tmp_path: Path) -> None:
    asked, folder, file = tmp_path / "asked", tmp_path / "cart", tmp_path / "token"
    code, out, err = await run("--hub", doors.local.url, "ca", "issue", CART, "--out", asked, "--ttl", "1d")
    assert (code, err) == (0, "")
    assert "2h instead of 24h: limited by issuing.longest" in out
    check(asked, doors)
    file.touch(0o644)
    file.write_text((await doors.token()).encode())
    code, out, err = await run("ca", "issue", "--token", file, "--out", folder)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: the token in {file} cannot be read: has mode 0644")
    assert f"run: chmod 0600 {file}" in err
    assert not folder.exists()
    file.chmod(0o600)
    code, out, err = await run("ca", "issue", "--token", file, "--out", folder, "-o", "json")
    assert (code, err) == (0, "")
    assert msgspec.json.decode(out)["spiffe_id"] == str(CART)
    first = check(folder, doors)
    code, out, err = await run("ca", "renew", folder)
    assert (code, err) == (0, "")
    assert out.startswith(f"{CART}: {folder}, until ")
    assert check(folder, doors) != first
    code, _, err = await run("ca", "issue", "--token", file, "--out", folder)
    assert (code, "has a certificate already" in err) == (2, True)
    code, _, err = await run("ca", "issue", "--token", file, "--out", folder, "--force")
    assert (code, "the token is not valid" in err) == (1, True)
    code, _, err = await run("ca", "issue", "--out", folder)
    assert (code, "name a SPIFFE ID" in err) == (2, True)
    code, _, err = await run("ca", "renew", tmp_path / "nowhere")
    assert (code, "get a certificate with a token" in err) == (1, True)
