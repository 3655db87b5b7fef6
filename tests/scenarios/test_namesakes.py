"""A gateway whose name another one has, which is connected, is refused and leaves that one alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.demo.asking import ask
from federation.demo.files import keys
from federation.demo.world import World
from federation.document import dump
from tests.scenarios.command import federation as command

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def test_a_second_gateway_of_a_name_is_refused_and_its_token_is_still_good(
    federation: World, tmp_path: Path
) -> None:
    east = federation.clusters["east"]
    before = (await ask(east.socket, "/v1/status"))["gateways"]
    (name,) = (one["name"] for one in before if one["connected"])
    token = tmp_path / "token"
    agent = ("--hub", f"unix://{east.socket}")
    made = await command(*agent, "token", "create", "--gateway", "-o", "json")
    assert made.code == 0, made.said
    token.write_text(made.json["token"])
    token.chmod(0o600)
    host = east.address(200)
    settings = {
        "name": name,
        "advertise": f"{host}:15443",
        "token": str(token),
        "directory": str(tmp_path / "state"),
        "listen": {"address": host, "eastwest": 15443, "telemetry": f"{host}:9466"},
        "keys": keys(federation.folder),
    }
    config = tmp_path / "gateway.yaml"
    config.write_text(dump(settings))
    found = await command("gateway", "--config", config)
    assert found.code == 1, found.said
    assert f"a gateway named {name} is connected" in found.said
    assert "Traceback" not in found.said
    after = (await ask(east.socket, "/v1/status"))["gateways"]
    assert [(one["name"], one["state"]) for one in after] == [(one["name"], one["state"]) for one in before]
    listed = (await command(*agent, "token", "list", "-o", "json")).json
    assert [one["state"] for one in listed if one["id"] == made.json["id"]] == ["unused"]
