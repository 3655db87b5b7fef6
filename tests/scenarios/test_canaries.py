"""Secrets of a running federation, looked for wherever somebody else could come across them.

The secrets are the passphrase, the one-time tokens, and every private key, opened with the passphrase. They are looked
for in files, logs among them, in arguments and environments, in metrics, and in the answers of REST and Envoy's admin.
"""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from federation.demo.asking import answers
from federation.demo.files import PASSPHRASE
from federation.demo.processes import Process
from federation.demo.world import World
from federation.document import dump
from pki.keys import passphrase, pkcs8
from pki.keys.passphrase import Passphrase
from pki.token import JoinToken
from tests.scenarios.command import federation as command
from tests.scenarios.lone_hub import COMMAND, LoneHub, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

HANDED_OVER = frozenset({PASSPHRASE, "join.token", "token"})
"""The files by which an operator gives a secret to a process."""

HOSTILE = "forged"
"""Where the tour's attackers keep keys of their own."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret in every form in which it could be written; `what` is no secret."""

    what: str
    forms: tuple[bytes, ...]

    def __repr__(self) -> str:
        return self.what


def of_bytes(what: str, secret: bytes) -> Secret:
    # Base64 without its last characters, which depend on what comes after.
    encoded = (b64encode(secret).rstrip(b"=")[:-1], urlsafe_b64encode(secret).rstrip(b"=")[:-1])
    return Secret(what, (secret, secret.hex().encode(), secret.hex().upper().encode(), *encoded))


def of_key(what: str, key: ec.EllipticCurvePrivateKey) -> Secret:
    number = key.private_numbers().private_value
    longest = max(pkcs8.encode(key, None).splitlines()[1:-1], key=len)
    return Secret(
        what, (*of_bytes(what, number.to_bytes(32)).forms, str(number).encode(), longest, longest[:40])
    )


def secrets(world: World) -> Iterator[Secret]:
    opened = passphrase.from_file(world.folder / PASSPHRASE)
    yield of_bytes("passphrase", opened.secret)
    texts = {f"join token of {name}": text for name, text in world.tokens.items()}
    for cluster in world.clusters.values():
        for gateway in cluster.gateways:
            texts[f"token of {cluster.name}/{gateway.name}"] = (gateway.folder / "token").read_text()
    for what, text in texts.items():
        yield Secret(what, (text.strip().encode(), *of_bytes(what, JoinToken.decode(text).secret).forms))
    for path in (*world.folder.rglob("*.key"), *world.folder.rglob("leaf.pem")):
        if HOSTILE not in path.parts:
            yield of_key(str(path.relative_to(world.folder)), key_in(path, opened))


def key_in(path: Path, opened: Passphrase) -> ec.EllipticCurvePrivateKey:
    data = path.read_bytes()
    return pkcs8.decode(data[data.index(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") :], opened, path)


def found(place: str, data: bytes, canaries: list[Secret]) -> list[tuple[str, Secret]]:
    return [(place, one) for one in canaries if any(form in data for form in one.forms)]


@pytest.fixture(scope="module")
def canaries(running_federation: World) -> list[Secret]:
    return list(secrets(running_federation))


async def test_every_kind_of_secret_is_looked_for(canaries: list[Secret]) -> None:
    names = [one.what for one in canaries]
    for part in (
        "passphrase",
        "join token of east",
        "token of west/gateway-2",
        "hub/root-keys/ca-1.key",
        "hub/keys/ca-1.key",
        "hub/leaf.pem",
        "east/agent/keys/ca-1.key",
        "east/agent/leaf.pem",
        "east/gateway-1/state/keys/gateway.key",
    ):
        assert part in names


async def test_a_key_is_found_in_every_form_but_the_encrypted_one() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    canary = [of_key("a key", key)]
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    for form in (pkcs8.encode(key, None), der, repr(key.private_numbers().private_value).encode()):
        assert found("somewhere", form, canary)
    assert found("somewhere", pkcs8.encode(key, Passphrase(b"secret")), canary) == []


async def test_k5_the_log_of_a_join_has_no_secret_at_any_level(tmp_path: Path) -> None:
    hub = LoneHub(tmp_path)
    loud = {"log": {"level": "debug", "format": "json"}}
    hub.config.write_text(dump(hub.settings(hub.directory) | loud))
    await hub.start()
    try:
        token = await hub.token("east")
        joins, late = hub.agent("east", token), hub.agent("east", token)
        for config in (joins, late):
            config.write_text(config.read_text() + dump(loud))
        process = Process("east", (*COMMAND, "agent", "--config", str(joins)), tmp_path / "east.log")
        async with started(process, lambda: answers(joins.parent / "state" / "api.sock")):
            refused = await command("agent", "--config", late)
    finally:
        await hub.process.stop()
    assert refused.code == 1, refused.said
    assert "the token is not valid" in refused.said
    opened = passphrase.from_file(tmp_path / PASSPHRASE)
    canaries = [
        of_bytes("passphrase", opened.secret),
        Secret("token", (token.encode(), *of_bytes("token", JoinToken.decode(token).secret).forms)),
        *(of_key(str(path), key_in(path, opened)) for path in tmp_path.rglob("*.key")),
    ]
    assert len(canaries) == 6
    logs = {path.name: path.read_bytes() for path in tmp_path.glob("*.log")}
    assert b'"level": "debug"' in b"".join(logs.values()).replace(b'":"', b'": "')
    for name, said in {**logs, "refused": refused.said.encode()}.items():
        assert found(name, said, canaries) == []


async def test_k5_no_file_has_a_secret_but_those_that_hand_it_over(
    federation: World, canaries: list[Secret]
) -> None:
    places, files = list[tuple[str, Secret]](), 0
    for path in federation.folder.rglob("*"):
        if not path.is_file() or HOSTILE in path.parts:
            continue
        files += 1
        data = path.read_bytes()
        here = found(str(path.relative_to(federation.folder)), data, canaries)
        if path.name in HANDED_OVER:
            assert here, f"the search has not found what is in {path}"
        else:
            places += here
            assert b"BEGIN PRIVATE KEY" not in data, path
            assert b"BEGIN EC PRIVATE KEY" not in data, path
    assert places == []
    assert files > 50


def processes(world: World) -> Iterator[psutil.Process]:
    """The hub, the agents, the gateways and their Envoys."""
    ours = (
        world.hub,
        *(one.agent for one in world.clusters.values()),
        *(gateway.process for one in world.clusters.values() for gateway in one.gateways),
    )
    for process in ours:
        top = psutil.Process(process.pid)
        yield from (top, *top.children(recursive=True))


async def test_k5_no_argument_and_no_environment_has_a_secret(
    federation: World, canaries: list[Secret]
) -> None:
    seen = list(processes(federation))
    assert sum("envoy" in one.name() for one in seen) == 4
    for one in seen:
        for name in ("cmdline", "environ"):
            data = Path(f"/proc/{one.pid}/{name}").read_bytes()
            assert data
            assert found(f"{name} of {one.name()}", data, canaries) == []


async def test_k5_no_process_would_write_a_core(federation: World) -> None:
    seen = tuple(processes(federation))
    assert len(seen) > len(federation.clusters), "hub, agents, gateways and their Envoys"
    for one in seen:
        assert one.rlimit(psutil.RLIMIT_CORE) == (0, 0), one
        assert int(Path(f"/proc/{one.pid}/coredump_filter").read_text(), 16) == 0, one


async def test_k5_no_metric_has_a_secret(federation: World, canaries: list[Secret]) -> None:
    hub = f"{federation.hub_api.host}:9464"
    agents = [f"{one.address(0)}:9465" for one in federation.clusters.values()]
    gateways = [f"{g.address.host}:9466" for one in federation.clusters.values() for g in one.gateways]
    async with aiohttp.ClientSession() as session:
        for address in (hub, *agents, *gateways):
            async with session.get(f"http://{address}/metrics") as answer:
                text = await answer.read()
            assert b"# HELP" in text
            assert found(address, text, canaries) == []


async def test_k5_no_answer_has_a_secret(federation: World, canaries: list[Secret]) -> None:
    sockets: dict[Path, tuple[str, ...]] = {
        federation.hub_socket: (
            "/v1/status",
            "/v1/clusters",
            "/v1/tokens",
            "/v1/operators",
            "/v1/openapi.json",
        )
    }
    for cluster in federation.clusters.values():
        sockets[cluster.socket] = ("/v1/status", "/v1/services", "/v1/tokens")
        for gateway in cluster.gateways:
            sockets[gateway.socket] = ("/v1/status",)
            admin = Path((await gateway.status())["admin"])
            sockets[admin] = ("/config_dump?include_eds", "/certs", "/stats", "/server_info")
    for socket, paths in sockets.items():
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            for path in paths:
                async with session.get(f"http://local{path}") as answer:
                    text = await answer.read()
                    assert answer.status == 200, path
                if path.startswith("/config_dump"):
                    assert b"private_key" in text, "Envoy has the key, and shows that it has one"
                assert found(f"{socket}{path}", text, canaries) == []
