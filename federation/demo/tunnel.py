"""Asking a gateway for a tunnel as another gateway would: mutual TLS with a chosen certificate, then HTTP/2 CONNECT."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import h2.config
import h2.connection
import h2.events
from cryptography import x509

from federation.listen import HostPort

DEADLINE = 5.0
"""Seconds for handshake and answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gateway answered: the status of the CONNECT, or why there was none; `peer` is its own SPIFFE ID."""

    status: int | None
    peer: str | None
    error: str = ""

    def __str__(self) -> str:
        return f"status {self.status}" if self.status is not None else f"refused: {self.error}"


async def connect_to(
    gateway: HostPort, server_name: str, chain: Path, key: Path, anchors: Path, authority: str
) -> Outcome:
    """CONNECT `authority` through `gateway` on the chain that `server_name` selects. Never raises for a refusal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(anchors)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(
                gateway.host, gateway.port, ssl=context, server_hostname=server_name
            )
            try:
                status = await _connect(reader, writer, authority)
                return Outcome(status, _peer(writer))
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError) as error:
        return Outcome(None, None, str(error) or type(error).__name__)


def _peer(writer: asyncio.StreamWriter) -> str | None:
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> int:
    """The status of the answer. In TLS 1.3 a refused client certificate shows at the first read: EOFError, OSError."""
    config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    connection.send_headers(1, [(":method", "CONNECT"), (":authority", authority)])
    writer.write(connection.data_to_send())
    await writer.drain()
    while True:
        data = await reader.read(65536)
        if not data:
            raise EOFError("the gateway closed the connection")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                return next(int(value) for name, value in event.headers or () if name == b":status")
            if isinstance(event, h2.events.ConnectionTerminated | h2.events.StreamReset):
                raise EOFError(f"the gateway ended the stream with code {event.error_code}")
        writer.write(connection.data_to_send())
