"""A gateway that waits for its agent can be stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path

from federation.clock import SystemClock
from federation.listen import HostPort
from gateway.launcher import run
from gateway.settings import GatewaySettings
from pki.token import JoinToken


async def test_a_stop_ends_a_gateway_whose_agent_nobody_can_reach(tmp_path: Path) -> None:
    token = tmp_path / "token"
    nobody = "https://127.0.0.1:9"
    token.touch(0o600)
    token.write_text(JoinToken("attest", nobody, "eastwest", b"p" * 32, b"s" * 32).encode())
    address = HostPort.of("127.0.0.1", 15443)
    settings = GatewaySettings(
        name="gateway-1",
        directory=tmp_path / "state",
        advertise=address,
        bind=address.host,
        bind_port=address.port,
        telemetry=HostPort.of("127.0.0.1", 9466),
        token_file=token,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, stop, SystemClock()))
    done, _ = await asyncio.wait({running}, timeout=0.5)
    assert not done
    stop.set()
    async with asyncio.timeout(10):
        await running
