"""Streams that somebody has decided to end: at once, with the reason, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from gateway.report_pb2 import GatewayReport, ReportAck
from gateway.snapshot import CLUSTER, Resource
from gateway.xds.channel import CLIENT, REPORT_METHOD, REPORT_SERVICE
from gateway.xds.reports import ReportServer
from gateway.xds.server import Client, Denied, new_server
from tests.gateway.xds.test_server import Call, answer, first_request, world

REASON = "key abcd is banned: stolen"


def refuse_first(client: Client) -> str | None:
    return REASON if client.instance == "gateway-1" else None


async def test_a_cut_xds_stream_ends_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        call = found.call()
        found.publish(Resource(CLUSTER, "a", "1", b""))
        await call.write(first_request("gateway-1"))
        await answer(call)
        found.ads.cut(lambda client: None)
        assert len(found.ads.streams) == 1
        found.ads.cut(refuse_first)
        assert await call.code() is grpc.StatusCode.ABORTED
        assert await call.details() == REASON
        assert not found.ads.streams


async def test_who_is_denied_between_connecting_and_speaking_gets_nothing(tmp_path: Path) -> None:
    who: list[Client | Denied] = [Client("x", "eastwest", "gateway-1")]
    async with world(tmp_path, who) as found:
        found.publish(Resource(CLUSTER, "a", "1", b""))
        call = found.call()
        await call.initial_metadata()
        who[0] = Denied(REASON)
        await call.write(first_request("gateway-1"))
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        assert await call.details() == REASON


class Reports:
    """A report server whose clients are whoever they say they are, in the order in which they come."""

    def __init__(self, channel: grpc.aio.Channel, server: ReportServer) -> None:
        self.channel = channel
        self.server = server
        self.heard: list[str] = []
        self.ended: list[str] = []

    async def say(self) -> Call:
        made: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        made = self.channel.stream_stream(f"/{REPORT_SERVICE}/{REPORT_METHOD}")
        call = made()
        await call.write(GatewayReport().SerializeToString())
        data = await call.read()
        assert isinstance(data, bytes)
        assert ReportAck.FromString(data).received == 1
        return call


@asynccontextmanager
async def reports(folder: Path) -> AsyncIterator[Reports]:
    names = iter(("gateway-1", "gateway-2", "gateway-1"))

    def heard(client: Client, _: GatewayReport) -> None:
        made.heard.append(client.instance)

    served = ReportServer(
        lambda chain: Client("x", "eastwest", next(names)),
        heard,
        lambda client: made.ended.append(client.instance),
    )
    server = new_server(served.handler())
    server.add_insecure_port(f"unix:{folder / 'reports'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{folder / 'reports'}", options=CLIENT) as channel:
        made = Reports(channel, served)
        yield made
    await server.stop(None)


async def test_a_cut_report_stream_ends_with_the_reason_and_the_other_goes_on(tmp_path: Path) -> None:
    async with reports(tmp_path) as found:
        first, second = await found.say(), await found.say()
        found.server.cut(refuse_first)
        assert await first.code() is grpc.StatusCode.PERMISSION_DENIED
        assert await first.details() == REASON
        async with asyncio.timeout(20):
            while not found.ended:
                await asyncio.sleep(0.005)
        assert found.ended == ["gateway-1"]
        await second.write(GatewayReport().SerializeToString())
        data = await second.read()
        assert isinstance(data, bytes)
        assert ReportAck.FromString(data).received == 2
        second.cancel()
        again = await found.say()
        again.cancel()
        assert found.heard == ["gateway-1", "gateway-2", "gateway-2", "gateway-1"]
