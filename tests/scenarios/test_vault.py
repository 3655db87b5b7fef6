"""A hub whose root is in a real OpenBao, an agent whose keys are, and what either says and does while that is away."""

from __future__ import annotations

import asyncio
import random
import signal
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from federation.demo.asking import ask, until
from federation.demo.processes import Process
from federation.document import dump, parse
from tests.pki.vault.prepared import Prepared, prepare
from tests.pki.vault.server import Bao, bao_server
from tests.scenarios.command import federation
from tests.scenarios.lone_hub import COMMAND, LoneHub, started
from tests.scenarios.test_demo import demo

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


class HubWithVault(LoneHub):
    """A hub whose root is where `prepared` made it."""

    def __init__(self, folder: Path, address: str, prepared: Prepared) -> None:
        self._prepared = prepared
        super().__init__(folder, address)

    def settings(self, directory: Path) -> dict[str, Any]:
        return super().settings(directory) | {"root": printed(self._prepared)["root"]}


def printed(prepared: Prepared) -> dict[str, Any]:
    """The settings that the script printed, with where the server is."""
    (document,) = parse(prepared.said, "prepare")
    found: dict[str, Any] = document.value  # type: ignore[assignment]
    for use in found.values():
        use["vault"] |= {"address": prepared.bao.url, "ca": str(prepared.bao.ca), "timeout": "2s"}
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bao]:
    with bao_server(tmp_path_factory.mktemp("bao")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def hub(bao: Bao, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HubWithVault]:
    folder = tmp_path_factory.mktemp("hub")
    address = f"127.{random.randint(192, 250)}.{random.randint(0, 255)}.1"
    made = HubWithVault(folder, address, prepare(bao, "root", folder))
    await made.start()
    try:
        yield made
    finally:
        await made.process.stop()


async def problems(hub: HubWithVault) -> list[str]:
    found: list[str] = (await ask(hub.socket, "/v1/status"))["problems"]
    return found


async def token_left(hub: HubWithVault) -> float:
    """What Prometheus would read."""
    lines = (await asyncio.to_thread(_exposition, f"http://{hub.address}:9464/metrics")).splitlines()
    (line,) = (one for one in lines if one.startswith('federation_hub_vault_token_seconds{use="root"}'))
    return float(line.split()[-1])


def _exposition(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        found: str = answer.read().decode()
    return found


async def joins(hub: HubWithVault, config: Path) -> None:
    process = Process("agent", (*COMMAND, "agent", "--config", str(config)), config.parent / "log")

    async def ready() -> bool:
        return bool((await ask(config.parent / "state" / "api.sock", "/v1/status"))["hub_connected"])

    async with started(process, ready):
        assert (await ask(hub.socket, "/v1/clusters"))[0]["connected"]


async def test_v5_a_join_while_vault_is_sealed_is_refused_and_uses_no_token_up(
    hub: HubWithVault, bao: Bao
) -> None:
    assert (await ask(hub.socket, "/v1/status"))["root"] == "vault"
    assert (
        not list((hub.directory / "root-keys").glob("*")) if (hub.directory / "root-keys").exists() else True
    )
    assert 0 < await token_left(hub) <= 3600
    config = hub.agent("east", await hub.token("east"))
    bao.seal()
    refused = await federation("agent", "--config", config)
    assert refused.code == 1, refused.said
    assert "the root cannot sign now: its Vault is sealed" in refused.err
    assert bao.url not in refused.said, "where it is concerns the hub alone"
    assert "the token is as good as before" in refused.err
    assert "Traceback" not in refused.said
    (listed,) = (await hub.ask("token", "list", "-o", "json")).json
    assert listed["state"] == "unused"
    assert any("is sealed" in problem for problem in await problems(hub))
    check = await hub.ask("check")
    assert (check.code, "is sealed" in check.out) == (1, True), check.said
    bao.unseal()
    await joins(hub, config)

    async def over() -> bool:
        return await problems(hub) == []

    await until("the end of the alarm", over, watch=(hub.process,))


async def test_a_root_in_the_pki_engine_is_not_replaced_and_what_can_be_done_is_said(
    hub: HubWithVault,
) -> None:
    for action in ("start", "status"):
        refused = await hub.ask("ca", "rotate", "root", action)
        assert refused.code == 1, refused.said
        assert "cannot replace the root" in refused.err
        assert "keys.vault" in refused.err


async def test_v5_a_hub_starts_and_serves_while_vault_is_away(hub: HubWithVault, bao: Bao) -> None:
    config = hub.agent("east", await hub.token("east"))
    await joins(hub, config)
    bao.freeze()
    await hub.process.kill()
    await hub.start()
    await joins(hub, config)

    async def told() -> bool:
        return any("does not answer in time" in problem for problem in await problems(hub))

    await until("the alarm", told, watch=(hub.process,))
    assert await token_left(hub) == 0
    bao.thaw()

    async def over() -> bool:
        return await problems(hub) == [] and await token_left(hub) > 0

    await until("the end of the alarm", over, watch=(hub.process,))
    said = hub.process.log.read_text()
    assert said.count("Vault is of no use now") == 1, said
    assert said.count("Vault is of use again") == 1, said


async def test_k1_an_agent_with_its_keys_in_vault_has_none_of_them_on_disk(
    hub: HubWithVault, bao: Bao
) -> None:
    config = hub.agent("east", await hub.token("east"))
    prepared = prepare(bao, "keys", config.parent)
    (document,) = parse(config.read_text(), str(config))
    settings: dict[str, Any] = document.value  # type: ignore[assignment]
    settings["keys"] |= printed(prepared)["keys"]
    config.write_text(dump(settings))
    await joins(hub, config)
    state = config.parent / "state"
    assert [path.name for path in sorted((state / "keys").iterdir())] == ["ca-1.public.pem"]
    assert bao.call("LIST", f"{prepared.mount}/keys")["data"]["keys"] == ["ca-1"]
    bao.seal()
    await joins(hub, config)
    bao.unseal()
    await joins(hub, config)


async def test_v6_what_opens_vault_is_in_no_log_error_or_environment(hub: HubWithVault, bao: Bao) -> None:
    secret = hub._prepared.secret_id.read_text().strip()
    bao.write(f"auth/approle/role/{hub._prepared.role}/secret-id/destroy", secret_id=secret)
    hub.process.signal(signal.SIGTERM)
    await hub.process.stop()
    await hub.start()

    async def told() -> bool:
        return any("to log in failed" in problem for problem in await problems(hub))

    await until("the alarm", told, watch=(hub.process,))
    environment = Path(f"/proc/{hub.process.pid}/environ")
    texts = [
        hub.process.log.read_text(),
        msgspec.json.encode(await ask(hub.socket, "/v1/status")).decode(),
        Path(f"/proc/{hub.process.pid}/cmdline").read_text(),
        environment.read_bytes().decode(errors="replace"),
        bao.said,
    ]
    assert not [text for text in texts if secret in text]


async def test_the_tour_holds_with_the_root_in_openbao(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with demo(tmp_path_factory.mktemp("d"), "--vault") as made:
        assert await made.end(within=300) == 0, made.said
        assert "✓ the root is in OpenBao, and its key is not on the disk of the hub" in made.said
        assert "✗" not in made.said
        assert await made.left() == ([], [])
