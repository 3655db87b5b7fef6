"""A renewed certificate reaches Envoy, and a connection that is there does not notice."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from pathlib import Path

import h2.connection
import h2.events
import pytest
from cryptography import x509

from federation.clock import SystemClock
from federation.listen import HostPort
from gateway import names
from gateway.compile import compile_step, start
from gateway.identity import GatewayIdentity
from gateway.launcher import holding, opened, ready
from gateway.settings import GatewaySettings
from gateway.store import ResourceStore
from gateway.tuning import Tuning
from pki.certificate import pem
from tests.gateway.agent_api import AgentApi, agent_api
from tests.gateway.certificates import Identity, ca
from tests.gateway.envoys import free_port
from tests.gateway.plans import fabric, peer

pytestmark = pytest.mark.live

HERE = "127.0.0.1"
WEST = ca("west")
CLOCK = SystemClock()
DEADLINE = 30.0


class Tunnel:
    """An HTTP/2 connection of west's gateway to east's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._speaker = h2.connection.H2Connection()
        self._speaker.initiate_connection()
        shown = writer.get_extra_info("ssl_object").getpeercert(True)
        self.serial = x509.load_der_x509_certificate(shown).serial_number

    @classmethod
    async def open(cls, port: int, api: AgentApi, west: Identity) -> Tunnel:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=pem(api.authority.bundle().anchors).decode())
        context.load_cert_chain(west.chain, west.key)
        context.set_alpn_protocols(["h2"])
        sni = names.sni("west", api.authority.trust_domain)
        return cls(*await asyncio.open_connection(HERE, port, ssl=context, server_hostname=sni))

    async def ping(self) -> None:
        """Returns when the other side has answered."""
        self._speaker.ping(b"12345678")
        while True:
            self._writer.write(self._speaker.data_to_send())
            async with asyncio.timeout(DEADLINE):
                data = await self._reader.read(65536)
            assert data, "the connection was closed"
            if any(isinstance(e, h2.events.PingAckReceived) for e in self._speaker.receive_data(data)):
                return

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def store_configuration(path: Path, port: int) -> None:
    """What an agent would have sent: east has one peer, west."""
    here = (names.GATEWAY_CLASS, HERE, port)
    around = fabric(peer("west", ("127.0.0.9", 1)), binds=(here,))
    snapshot = compile_step(start(around, Tuning()), {}, around).snapshots[here]
    store = ResourceStore(path)
    await store.open(CLOCK.now())
    await store.write([r for kind in snapshot.types.values() for r in kind.values()], [])
    await store.close()


async def test_renewal_leaves_connections_alone(tmp_path: Path) -> None:
    port = free_port(HERE)
    settings = GatewaySettings(
        "gateway-1", tmp_path / "g", HostPort.of(HERE, port), HERE, port, HostPort("127.0.0.1:0"), drain=0.0
    )
    async with agent_api(tmp_path / "agent", "127.0.0.1:1", CLOCK) as api:
        identity = GatewayIdentity(settings.name, settings.directory, CLOCK)
        await identity.start(await api.token(tmp_path))
        await store_configuration(settings.resources, port)
        west = WEST.write(tmp_path / "west")
        stop = asyncio.Event()
        async with (
            holding(settings, CLOCK) as kept,
            opened(settings, identity, kept, ready(settings), CLOCK) as gateway,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(gateway.run(stop), name="gateway")
            first = await _open_when_there(port, api, west)
            await first.ping()
            assert first.serial == identity.current.certificate.serial_number
            await identity.renew()
            assert first.serial != identity.current.certificate.serial_number
            await _wait_for_serial(port, api, west, identity.current.certificate.serial_number)
            await first.ping()
            await first.close()
            stop.set()


async def _open_when_there(port: int, api: AgentApi, west: Identity) -> Tunnel:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return await Tunnel.open(port, api, west)
        except OSError:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def _wait_for_serial(port: int, api: AgentApi, west: Identity, serial: int) -> None:
    """Until new connections are shown the new certificate."""
    end = time.monotonic() + DEADLINE
    while True:
        tunnel = await Tunnel.open(port, api, west)
        await tunnel.close()
        if tunnel.serial == serial:
            return
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
