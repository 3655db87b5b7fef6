"""The small stream on which a gateway tells its agent where it is reached and what its Envoy sees of others.

A report is complete each time, so that a lost one costs nothing: the next says it all. It is sent when it changes, and
at least every `REPEAT` seconds, so that silence means something. Each is answered with the agent's word for that
gateway, which is said again, without being asked, when it changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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


@dataclass(slots=True, eq=False)
class _Stream:
    """One gateway that reports: `received` reports so far; `due` when a word for it is."""

    client: Client
    cut: asyncio.Future[str]
    received: int = 0
    due: asyncio.Event = field(default_factory=asyncio.Event)


class ReportServer:
    """The agent's side: `receive` gets each report with the identity that its sender has proved, `word` makes what is
    answered.
    """

    def __init__(
        self,
        authorize: Authorize,
        receive: Callable[[Client, GatewayReport], None],
        on_end: Callable[[Client], None] = lambda client: None,
        word: Callable[[Client], ReportAck] = lambda client: ReportAck(),
    ) -> None:
        self._authorize = authorize
        self._receive = receive
        self._on_end = on_end
        self._word = word
        self._streams: set[_Stream] = set()

    def cut(self, refused: Callable[[Client], str | None]) -> None:
        """End the streams of those whom `refused` names a reason for."""
        for stream in self._streams:
            if not stream.cut.done() and (reason := refused(stream.client)) is not None:
                stream.cut.set_result(reason)

    def tell(self) -> None:
        """The word has changed: say it to everybody who has reported; the others get it with their first answer."""
        for stream in self._streams:
            if stream.received:
                stream.due.set()

    def handler(self) -> grpc.GenericRpcHandler:
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(REPORT_SERVICE, {REPORT_METHOD: method})

    async def _serve(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        client = self._authorize(presented_chain(context.auth_context()))
        if isinstance(client, Denied):
            log.warning("report refused", peer=context.peer(), reason=client.reason)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, client.reason)
        await context.send_initial_metadata(())
        stream = _Stream(client, asyncio.get_running_loop().create_future())
        self._streams.add(stream)
        hearing = asyncio.create_task(self._hear(stream, context), name="reports")
        speaking = asyncio.create_task(self._speak(stream, context), name="report-answers")
        try:
            done, _pending = await asyncio.wait(
                (hearing, speaking, stream.cut), return_when=asyncio.FIRST_COMPLETED
            )
            if stream.cut.done():
                log.warning("report stream cut", instance=client.instance, reason=stream.cut.result())
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, stream.cut.result())
            for ended in done:
                await ended
        finally:
            self._streams.discard(stream)
            stream.cut.cancel()
            await _end(hearing, speaking)
            self._on_end(client)

    async def _hear(self, stream: _Stream, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        while True:
            data: object = await context.read()
            if not isinstance(data, bytes):
                return
            try:
                report = GatewayReport.FromString(data)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a GatewayReport")
            self._receive(stream.client, report)
            stream.received += 1
            stream.due.set()

    async def _speak(self, stream: _Stream, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """One answer for all that came since the last one."""
        while True:
            await stream.due.wait()
            stream.due.clear()
            word = self._word(stream.client)
            word.received = stream.received
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
        answers = Latest(ReportAck())
        sending = asyncio.create_task(self._send(call, answers), name="reports")
        hearing = asyncio.create_task(self._hear(call, answers), name="report-answers")
        try:
            done, _ = await asyncio.wait((sending, hearing), return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                await ended
        finally:
            call.cancel()
            await _end(sending, hearing)

    async def _send(self, call: _Call, answers: Latest[ReportAck]) -> None:
        """Each report is answered before the next one is sent."""
        sent: GatewayReport | None = None
        count = 0
        while True:
            try:
                async with asyncio.timeout(REPEAT):
                    sent = await self._reports.after(sent)
            except TimeoutError:
                sent = self._reports.value
            count += 1
            async with asyncio.timeout(WRITE_TIMEOUT):
                await call.write(sent.SerializeToString())
                while (answer := answers.value).received < count:
                    await answers.after(answer)

    async def _hear(self, call: _Call, answers: Latest[ReportAck]) -> None:
        while True:
            data = await call.read()
            if not isinstance(data, bytes):
                return
            answer = ReportAck.FromString(data)
            answers.publish(answer)
            await self._told(answer)


_Call = grpc.aio.StreamStreamCall[bytes, bytes]


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
