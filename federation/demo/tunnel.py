"""Calling a gateway, a hub or an agent as an attacker would: mutual TLS with a chosen certificate, then HTTP/2."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import h2.config
import h2.connection
import h2.events
from cryptography import x509

from federation.listen import HostPort
from pki.keys.passphrase import Passphrase

DEADLINE = 5.0
"""Seconds for handshake and answer; a server that keeps silent has not refused."""


class End(Enum):
    """How a call ended. Only `REFUSED`, or an answer that says so, is a refusal: a dead server refuses nothing."""

    ANSWERED = "answered"
    REFUSED = "connection ended by the server"
    SILENT = "no answer"
    UNREACHABLE = "nobody listens"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a server answered: HTTP status and gRPC status if it got that far; `peer` is its own SPIFFE ID."""

    end: End
    status: int | None = None
    peer: str | None = None
    grpc: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.grpc is not None:
            return f"gRPC status {self.grpc}"
        if self.status is not None:
            return f"status {self.status}"
        return f"{self.end.value} ({self.detail})" if self.detail else self.end.value


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a certificate chain and its key, and the anchors by which it verifies the server (files).

    `passphrase` opens a key that is encrypted.
    """

    chain: Path
    key: Path
    anchors: Path
    passphrase: Passphrase | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP/2 to any server that the anchors vouch for. An encrypted key takes a while: call it in a thread."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(self.anchors)
        opened_with = None if self.passphrase is None else self.passphrase.secret
        context.load_cert_chain(self.chain, self.key, opened_with)
        context.set_alpn_protocols(["h2"])
        return context


async def connect_through(gateway: HostPort, server_name: str, caller: Caller, authority: str) -> Outcome:
    """CONNECT `authority` through `gateway` on the chain that `server_name` selects. A refusal is an outcome."""
    return await _call(gateway, server_name, caller, [(":method", "CONNECT"), (":authority", authority)])


async def call_grpc(server: HostPort, server_name: str, caller: Caller, path: str) -> Outcome:
    """Open the stream `path` of a gRPC server and say nothing. A refusal is an outcome."""
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", server_name),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    return await _call(server, server_name, caller, headers)


async def _call(
    server: HostPort, server_name: str, caller: Caller, headers: list[tuple[str, str]]
) -> Outcome:
    context = await asyncio.to_thread(caller.context)
    try:
        async with asyncio.timeout(DEADLINE):
            await _reach(server)
            reader, writer = await asyncio.open_connection(
                server.host, server.port, ssl=context, server_hostname=server_name
            )
            try:
                answer = await _exchange(reader, writer, headers)
                return Outcome(End.ANSWERED, int(answer[b":status"]), _peer(writer), _grpc(answer))
            finally:
                writer.close()
    except _Unreachable:
        return Outcome(End.UNREACHABLE)
    except TimeoutError:
        return Outcome(End.SILENT)
    except (OSError, EOFError) as error:
        return Outcome(End.REFUSED, detail=_alert(error))


class _Unreachable(Exception):
    """No TCP connection."""


async def _reach(server: HostPort) -> None:
    try:
        _, writer = await asyncio.open_connection(server.host, server.port)
    except OSError as error:
        raise _Unreachable from error
    writer.close()


def _alert(error: Exception) -> str:
    """The TLS alert, without where in the library it was noticed."""
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error).partition("] ")[2] or str(error)


def _grpc(answer: Mapping[bytes, bytes]) -> int | None:
    return int(answer[b"grpc-status"]) if b"grpc-status" in answer else None


def _peer(writer: asyncio.StreamWriter) -> str | None:
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: list[tuple[str, str]]
) -> dict[bytes, bytes]:
    """The headers of the answer. In TLS 1.3 a refused client certificate shows at the first read: EOFError, OSError."""
    config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    connection.send_headers(1, headers)
    writer.write(connection.data_to_send())
    await writer.drain()
    while True:
        data = await reader.read(65536)
        if not data:
            raise EOFError("the connection was closed")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers or ())
            if isinstance(event, h2.events.ConnectionTerminated | h2.events.StreamReset):
                raise EOFError(f"the stream was ended with code {event.error_code}")
        writer.write(connection.data_to_send())
