"""The small stream on which a gateway tells its agent where it is reached and what its Envoy sees of others.

A report is complete each time, so that a lost one costs nothing: the next says it all. It is sent when it changes, and
at least every `REPEAT` seconds, so that silence means something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from federation.retry import Backoff
from gateway.report_pb2 import GatewayReport, ReportAck
from gateway.xds.channel import REPORT_METHOD, REPORT_SERVICE, WRITE_TIMEOUT
from gateway.xds.client import Open
from gateway.xds.latest import Latest
from gateway.xds.server import Authorize, Client, Denied
from pki.certificate import presented_chain

REPEAT = 5.0

log = structlog.get_logger()


class ReportServer:
    """The agent's side: `receive` gets each report with the identity that its sender has proved, and may have a word
    for it in return.
    """

    def __init__(
        self,
        authorize: Authorize,
        receive: Callable[[Client, GatewayReport], ReportAck | None],
        on_end: Callable[[Client], None] = lambda client: None,
    ) -> None:
        self._authorize = authorize
        self._receive = receive
        self._on_end = on_end
        self._cuts: dict[asyncio.Future[str], Client] = {}

    def cut(self, refused: Callable[[Client], str | None]) -> None:
        """End the streams of those whom `refused` names a reason for."""
        for cut, client in self._cuts.items():
            if not cut.done() and (reason := refused(client)) is not None:
                cut.set_result(reason)

    def handler(self) -> grpc.GenericRpcHandler:
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(REPORT_SERVICE, {REPORT_METHOD: method})

    async def _serve(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        client = self._authorize(presented_chain(context.auth_context()))
        if isinstance(client, Denied):
            log.warning("report refused", peer=context.peer(), reason=client.reason)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, client.reason)
        await context.send_initial_metadata(())
        cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._cuts[cut] = client
        hearing = asyncio.create_task(self._hear(client, context), name="reports")
        try:
            await asyncio.wait((hearing, cut), return_when=asyncio.FIRST_COMPLETED)
            if cut.done():
                log.warning("report stream cut", instance=client.instance, reason=cut.result())
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, cut.result())
            await hearing
        finally:
            del self._cuts[cut]
            cut.cancel()
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            self._on_end(client)

    async def _hear(self, client: Client, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        received = 0
        while True:
            data: object = await context.read()
            if not isinstance(data, bytes):
                return
            try:
                report = GatewayReport.FromString(data)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a GatewayReport")
            word = self._receive(client, report) or ReportAck()
            received += 1
            word.received = received
            async with asyncio.timeout(WRITE_TIMEOUT):
                await context.write(word.SerializeToString())


class Reporting:
    """The gateway's side: sends the newest report while there is somebody to take it; `told` gets the answers."""

    def __init__(
        self, opened: Open, reports: Latest[GatewayReport], told: Callable[[ReportAck], Awaitable[None]]
    ) -> None:
        self._opened = opened
        self._reports = reports
        self._told = told

    async def run(self, backoff: Backoff) -> None:
        """Keep a stream, for ever."""
        while True:
            _, channel = self._opened()
            try:
                await self._report(channel)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, DecodeError) as error:
                log.debug("no report stream", reason=str(error))
            finally:
                await channel.close()
            await backoff.wait()

    async def _report(self, channel: grpc.aio.Channel) -> None:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(f"/{REPORT_SERVICE}/{REPORT_METHOD}")
        call = method()
        sent: GatewayReport | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(REPEAT):
                        sent = await self._reports.after(sent)
                except TimeoutError:
                    sent = self._reports.value
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await call.write(sent.SerializeToString())
                    answer = await call.read()
                if not isinstance(answer, bytes):
                    return
                await self._told(ReportAck.FromString(answer))
        finally:
            call.cancel()
