"""The gateway's end of its stream to the agent, over a real unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from federation.clock import SystemClock
from federation.retry import Backoff
from gateway.pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from gateway.snapshot import CLUSTER
from gateway.xds import client
from gateway.xds.channel import ADS_METHOD, ADS_SERVICE, CLIENT, SERVER
from gateway.xds.client import Upstream
from gateway.xds.messages import Response
from gateway.xds.wire import encode_response


async def test_an_agent_that_does_not_read_answers_is_dialled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC gives up the call of an answer that took too long, and cancels whoever reads from it."""
    monkeypatch.setattr(client, "WRITE_TIMEOUT", 0.5)
    target = f"unix:{tmp_path / 'agent'}"
    dialled: asyncio.Queue[None] = asyncio.Queue()
    answering: set[asyncio.Task[None]] = set()

    async def deaf(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.send_initial_metadata(())
        await context.write(encode_response(Response(CLUSTER, "1")))
        await asyncio.Event().wait()

    def opened() -> tuple[str, grpc.aio.Channel]:
        dialled.put_nowait(None)
        return "the agent", grpc.aio.insecure_channel(target, options=CLIENT)

    async def receive(response: Response) -> None:
        answering.add(asyncio.create_task(answer_without_end(response)))

    async def answer_without_end(response: Response) -> None:
        while upstream.connected:
            await upstream.answer(response, "x" * 65536)
            await asyncio.sleep(0)

    server = grpc.aio.server(options=SERVER)
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(deaf)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(ADS_SERVICE, {ADS_METHOD: method}),)
    )
    server.add_insecure_port(target)
    await server.start()
    upstream = Upstream(opened, DeltaDiscoveryRequest(), lambda kind: {}, receive)
    running = asyncio.create_task(upstream.run(Backoff(SystemClock(), 0.1, 0.2)))
    try:
        async with asyncio.timeout(60):
            for _ in range(2):
                await dialled.get()
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, *answering, return_exceptions=True)
        await server.stop(None)
    assert running.cancelled()
