"""A gateway's stream to its agent: asks for everything, hands over what comes, and says what became of it.

It decides nothing. A connection that is lost is made again, at one agent address after the other, with the certificate
that is current then; the agent is told what is held already, so that it sends the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog

from federation.retry import Backoff
from gateway.pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from gateway.snapshot import TYPES
from gateway.xds.channel import ADS_METHOD, ADS_SERVICE, CLIENT, WRITE_TIMEOUT
from gateway.xds.messages import EVERYTHING, Request, Response
from gateway.xds.wire import Malformed, decode_response, encode_request

log = structlog.get_logger()

Call = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Dial:
    """Where the agent is and how it is verified: `server_name` is the DNS SAN of its identity."""

    addresses: tuple[str, ...]
    server_name: str
    roots: bytes
    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Dial({', '.join(self.addresses)})"

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel of its own, with the certificate as it is now."""
        credentials = grpc.ssl_channel_credentials(self.roots, self.key, self.chain)
        options = (*CLIENT, ("grpc.ssl_target_name_override", self.server_name))
        return grpc.aio.secure_channel(address, credentials, options=options)


Open = Callable[[], tuple[str, grpc.aio.Channel]]
"""The next channel to try, and the address that it leads to."""


def in_turn(dial: Callable[[], Dial]) -> Open:
    """One address after the other, as `dial` gives them at that moment."""
    turn = -1

    def opened() -> tuple[str, grpc.aio.Channel]:
        nonlocal turn
        turn += 1
        current = dial()
        address = current.addresses[turn % len(current.addresses)]
        return address, current.channel(address)

    return opened


class Upstream:
    """`held` gives name to version by type; `receive` takes each response, which `answer` settles later."""

    def __init__(
        self,
        opened: Open,
        node: DeltaDiscoveryRequest,
        held: Callable[[str], Mapping[str, str]],
        receive: Callable[[Response], Awaitable[None]],
    ) -> None:
        self._opened = opened
        self._node = node
        self._held = held
        self._receive = receive
        self._call: Call | None = None
        self._writing = asyncio.Lock()
        self.connected = False
        self.problem = "not connected yet"

    async def run(self, backoff: Backoff) -> None:
        """Keep a stream, for ever."""
        while True:
            address, channel = self._opened()
            try:
                await self._converse(channel)
                self._lost(address, "the agent ended the stream")
            except grpc.aio.AioRpcError as error:
                self._lost(address, f"{error.code().name}: {error.details()}")
            except TimeoutError:
                self._lost(address, "requests are not being read")
            except (Malformed, asyncio.InvalidStateError) as error:
                self._lost(address, str(error))
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                # Nobody cancelled us: an answer took too long, so gRPC gave the call up, and its reader with it.
                self._lost(address, "answers are not being read")
            finally:
                self._call, self.connected = None, False
                await channel.close()
            await backoff.wait()

    async def answer(self, response: Response, error: str | None) -> None:
        """Accept `response`, or refuse it. Of no effect if the stream that it came by is gone."""
        if (call := self._call) is None:
            return
        try:
            await self._write(call, Request(response.type_url, response.nonce, error))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as problem:
            log.debug("answer not sent", reason=str(problem))

    async def _converse(self, channel: grpc.aio.Channel) -> None:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(f"/{ADS_SERVICE}/{ADS_METHOD}")
        call = method()
        with _cancelling(call):
            for number, type_url in enumerate(TYPES):
                request = Request(type_url, subscribe=(EVERYTHING,), initial=self._held(type_url))
                await self._write(call, request, self._node if number == 0 else None)
            self._call = call
            await call.initial_metadata()
            self.connected, self.problem = True, ""
            log.info("connected to the agent")
            while isinstance(data := await call.read(), bytes):
                response = decode_response(data)
                if response.type_url not in TYPES:
                    raise Malformed(f"the agent sends {response.type_url}, which nobody asked for")
                await self._receive(response)
            if (code := await call.code()) is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(
                    code, grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details()
                )

    async def _write(self, call: Call, request: Request, node: DeltaDiscoveryRequest | None = None) -> None:
        async with self._writing, asyncio.timeout(WRITE_TIMEOUT):
            await call.write(encode_request(request, node))

    def _lost(self, address: str, reason: str) -> None:
        if reason != self.problem:
            log.warning("no stream to the agent", agent=address, reason=reason)
        self.problem = reason


@contextmanager
def _cancelling(call: Call) -> Iterator[None]:
    try:
        yield
    finally:
        call.cancel()
