"""The certificate of a listener: the newest at each handshake, read once for each renewal."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from federation.api import tls
from federation.api.doors import TcpDoor, serving
from federation.clock import SystemClock
from federation.identity import Identity
from federation.listen import HostPort
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import SpiffeId, TrustDomain

BASE = "mesh.example"
CLOCK = SystemClock()


@pytest.fixture
async def identity(tmp_path: Path) -> AsyncIterator[Identity]:
    domain = TrustDomain.of_hub(BASE)
    authority = await Lineage.open(tmp_path / "ca", FileKeyStore(tmp_path / "keys"), domain, CLOCK)
    own = Identity(authority, SpiffeId.federation(domain), tmp_path / "leaf.pem", timedelta(hours=1), CLOCK)
    await own.start()
    yield own
    await authority.close()


async def serial(at: HostPort, anchors: tuple[x509.Certificate, ...]) -> int:
    """The serial number of the certificate that a listener shows now."""
    context = tls.client_context(anchors)
    _, writer = await asyncio.open_connection(
        at.host, at.port, ssl=context, server_hostname=f"federation.hub.{BASE}"
    )
    shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
    der = shown.getpeercert(True)
    assert der is not None
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_leaf_is_read_once_however_many_shake_hands_and_the_next_one_serves_at_once(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    load = tls.server_context

    def counted(certificate: Path, key: Path, anchors: tuple[x509.Certificate, ...]) -> ssl.SSLContext:
        read.append(certificate)
        return load(certificate, key, anchors)

    monkeypatch.setattr(tls, "server_context", counted)
    bundle = identity._authority.bundle
    door = TcpDoor(HostPort.of("127.0.0.1", 0), tls.served(identity, bundle))
    async with serving(web.Application(), door) as (at,):
        assert at is not None
        for renewals in range(3):
            expected = identity.current.certificate.serial_number
            assert {await serial(at, bundle().anchors) for _ in range(5)} == {expected}
            assert len(read) == renewals + 1
            await identity.renew()
