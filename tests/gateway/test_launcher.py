"""What a gateway says when it cannot start at all, in a folder in which it has its certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from federation.api.server import CannotListenUnix
from federation.clock import SystemClock
from federation.errors import StoreHeld
from federation.listen import CannotListen, HostPort, listen
from gateway.errors import EnvoyMissing
from gateway.identity import GatewayIdentity
from gateway.launcher import run
from gateway.settings import GatewaySettings
from pki.token import JoinToken
from tests.gateway.agent_api import agent_api
from tests.gateway.envoys import free_port

HERE = "127.0.0.1"
CLOCK = SystemClock()


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[GatewaySettings]:
    port = free_port(HERE)
    made = GatewaySettings(
        "gateway-1", tmp_path / "g", HostPort.of(HERE, port), HERE, port, HostPort("127.0.0.1:0"), drain=0.0
    )
    async with agent_api(tmp_path / "agent", "127.0.0.1:1", CLOCK) as api:
        await GatewayIdentity(made.name, made.directory, CLOCK).start(await api.token(tmp_path))
        yield made


async def test_no_envoy_at_the_first_start(settings: GatewaySettings, tmp_path: Path) -> None:
    with pytest.raises(EnvoyMissing, match="is not a program"):
        await run(replace(settings, envoy=tmp_path / "none"), asyncio.Event(), CLOCK)


@pytest.mark.parametrize("wrong", ["no Envoy", "a taken port", "a taken telemetry port", "a long folder"])
async def test_what_cannot_work_is_said_before_the_token_is_used(tmp_path: Path, wrong: str) -> None:
    with listen(HostPort.of(HERE, 0)) as taken:
        here, held = HostPort.of(HERE, free_port(HERE)), HostPort.of(HERE, taken.getsockname()[1])
        token = tmp_path / "token"
        made = GatewaySettings(
            "gateway-1", tmp_path / "g", here, HERE, here.port, HostPort("127.0.0.1:0"), token_file=token
        )
        refused = {
            "no Envoy": (replace(made, envoy=tmp_path / "none"), EnvoyMissing),
            "a taken port": (replace(made, bind_port=held.port), CannotListen),
            "a taken telemetry port": (replace(made, telemetry=held), CannotListen),
            "a long folder": (replace(made, directory=tmp_path / ("g" * 100)), CannotListenUnix),
        }
        settings, error = refused[wrong]
        async with agent_api(tmp_path / "agent", "127.0.0.1:1", CLOCK) as api:
            await api.token(tmp_path)
            with pytest.raises(error):
                async with asyncio.timeout(60):
                    await run(settings, asyncio.Event(), CLOCK)
            assert not list(settings.directory.glob("keys/*.key"))
            await GatewayIdentity("another", tmp_path / "h", CLOCK).start(token)


async def test_a_path_for_a_socket_that_is_something_else(settings: GatewaySettings) -> None:
    (settings.xds_socket / "full").mkdir(parents=True)
    with pytest.raises(CannotListenUnix, match=r"xds\.sock"):
        await run(settings, asyncio.Event(), CLOCK)


async def test_what_a_crash_left_is_swept_away(settings: GatewaySettings) -> None:
    left = settings.directory / ".chain.pem.0123456789abcdef.partial"
    left.touch()
    (settings.xds_socket / "full").mkdir(parents=True)
    with pytest.raises(CannotListenUnix):
        await run(settings, asyncio.Event(), CLOCK)
    assert not left.exists()


async def test_what_a_crash_left_and_nobody_can_remove_does_not_stop_a_gateway(
    settings: GatewaySettings,
) -> None:
    left = settings.directory / ".chain.pem.0123456789abcdef.partial"
    left.mkdir()
    (settings.xds_socket / "full").mkdir(parents=True)
    with capture_logs() as said, pytest.raises(CannotListenUnix, match=r"xds\.sock"):
        await run(settings, asyncio.Event(), CLOCK)
    [warning] = [entry for entry in said if entry["log_level"] == "warning"]
    assert left.name in warning["reason"]


async def test_a_gateway_started_twice_before_its_first_certificate_leaves_the_first_one_alone(
    tmp_path: Path,
) -> None:
    """What looks like the remains of a crash may be the key that the first is just writing."""
    folder, token = tmp_path / "state", tmp_path / "token"
    nobody = f"https://{HERE}:9"
    token.touch(0o600)
    token.write_text(JoinToken("attest", nobody, "eastwest", b"p" * 32, b"s" * 32).encode())
    here = HostPort.of(HERE, free_port(HERE))
    waiting = GatewaySettings(
        "gateway-1", folder, here, here.host, here.port, HostPort("127.0.0.1:0"), token_file=token
    )
    stop = asyncio.Event()
    first = asyncio.create_task(run(waiting, stop, CLOCK), name="first")
    key = folder / "keys" / "gateway.key"
    async with asyncio.timeout(60):
        while not key.exists():
            assert not first.done()
            await asyncio.sleep(0.01)
        key.rename(tmp_path / "key")
        being_written = folder / "keys" / ".gateway.key.0123456789abcdef.partial"
        being_written.touch()
        with pytest.raises(StoreHeld):
            await run(waiting, asyncio.Event(), CLOCK)
        assert being_written.exists()
        assert not key.exists()
        assert not first.done()
        stop.set()
        await first
