"""The shell around the protocol, over a real unix socket: who is served, by what, and when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import ParseDict

from federation.clock import SystemClock
from gateway.pb.envoy.config.core.v3.base_pb2 import Node
from gateway.pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from gateway.snapshot import CLUSTER, Resource, Snapshot
from gateway.xds.channel import ADS_METHOD, ADS_SERVICE, CLIENT
from gateway.xds.latest import Latest
from gateway.xds.messages import Request, Response
from gateway.xds.server import RETRY_EVERY, AdsServer, Client, Denied, Where, new_server
from gateway.xds.wire import decode_response, encode_request

ENVOY = Client("envoy", "eastwest", "gateway-1")
METHOD = f"/{ADS_SERVICE}/{ADS_METHOD}"
Call = grpc.aio.StreamStreamCall[bytes, bytes]


class World:
    def __init__(
        self, ads: AdsServer, server: grpc.aio.Server, snapshots: Latest[Snapshot], channel: grpc.aio.Channel
    ) -> None:
        self.ads = ads
        self.server = server
        self.snapshots = snapshots
        self.channel = channel

    def call(self, method: str = METHOD) -> Call:
        made: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self.channel.stream_stream(method)
        return made()

    def publish(self, *put: Resource) -> None:
        self.snapshots.publish(self.snapshots.value.replace(put, ()))


@asynccontextmanager
async def world(
    folder: Path,
    who: Client | Denied | list[Client | Denied] = ENVOY,
    *,
    has_snapshots: bool = True,
    retry_every: float = RETRY_EVERY,
) -> AsyncIterator[World]:
    snapshots = Latest(Snapshot())
    chosen = snapshots if has_snapshots else None
    ads = AdsServer(
        lambda chain: who[0] if isinstance(who, list) else who,
        lambda client, where: chosen,
        SystemClock(),
        retry_every=retry_every,
    )
    server = new_server(ads.handler())
    server.add_insecure_port(f"unix:{folder / 'xds'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{folder / 'xds'}", options=CLIENT) as channel:
        yield World(ads, server, snapshots, channel)
    await server.stop(None)


def first_request(node: str, **labels: object) -> bytes:
    said = DeltaDiscoveryRequest(node=ParseDict({"id": node, "metadata": labels}, Node()))
    return encode_request(Request(CLUSTER), said)


async def answer(call: Call) -> Response:
    data = await call.read()
    assert isinstance(data, bytes)
    return decode_response(data)


async def test_publishes_to_a_stream_what_is_new(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        call = found.call()
        await call.write(first_request("gateway-1", bind="10.0.0.1", bind_port=15443))
        found.publish(Resource(CLUSTER, "a", "1", b""))
        first = await answer(call)
        assert [r.name for r in first.put] == ["a"]
        (stream,) = found.ads.streams
        assert stream.where == Where("gateway-1", "10.0.0.1", 15443)
        found.publish(Resource(CLUSTER, "b", "1", b""))
        await call.write(encode_request(Request(CLUSTER, first.nonce)))
        assert [r.name for r in (await answer(call)).put] == ["b"]
        call.cancel()


async def test_who_is_denied_gets_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, Denied("not a gateway")) as found:
        found.publish(Resource(CLUSTER, "a", "1", b""))
        call = found.call()
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        assert await call.details() == "not a gateway"
        assert found.ads.streams == ()


async def test_who_has_no_snapshot_yet_keeps_what_it_has(tmp_path: Path) -> None:
    """An empty one would remove every resource that the client says it holds."""
    async with world(tmp_path, has_snapshots=False) as found:
        call = found.call()
        await call.write(first_request("gateway-1"))
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert found.ads.streams == ()


@pytest.mark.parametrize(
    "method",
    [
        f"/{ADS_SERVICE}/StreamAggregatedResources",
        "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        f"/{ADS_SERVICE.lower()}/{ADS_METHOD}",
        f"//{ADS_SERVICE}/{ADS_METHOD}",
    ],
)
async def test_there_is_no_other_method(tmp_path: Path, method: str) -> None:
    async with world(tmp_path) as found:
        assert await found.call(method).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_newest_stream_of_an_instance_takes_over(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        found.publish(Resource(CLUSTER, "a", "1", b""))
        older = found.call()
        await older.write(first_request("one"))
        await answer(older)
        newer = found.call()
        await newer.write(first_request("two"))
        await answer(newer)
        assert await older.code() is grpc.StatusCode.ABORTED
        (stream,) = found.ads.streams
        assert stream.where.node == "two"
        newer.cancel()


async def test_a_server_that_stops_ends_its_streams_without_a_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """grpc.aio warns of a method that returns when it is cancelled, as if it had refused to stop."""
    async with world(tmp_path) as found:
        found.publish(Resource(CLUSTER, "a", "1", b""))
        call = found.call()
        await call.write(first_request("gateway-1"))
        await answer(call)
        await found.server.stop(0.1)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(20):
            while found.ads.streams:
                await asyncio.sleep(0.01)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("later", [b"\xff\xff", first_request("another")])
async def test_nonsense_ends_the_stream(tmp_path: Path, later: bytes) -> None:
    async with world(tmp_path) as found:
        found.publish(Resource(CLUSTER, "a", "1", b""))
        call = found.call()
        await call.write(first_request("gateway-1"))
        await answer(call)
        await call.write(later)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_refused_is_offered_again_until_it_is_accepted(tmp_path: Path) -> None:
    async with world(tmp_path, retry_every=0.05) as found:
        found.publish(Resource(CLUSTER, "a", "1", b""))
        call = found.call()
        await call.write(first_request("gateway-1"))
        for _ in range(3):
            response = await answer(call)
            assert [r.name for r in response.put] == ["a"]
            await call.write(encode_request(Request(CLUSTER, response.nonce, "not now")))
        response = await answer(call)
        (stream,) = found.ads.streams
        assert set(stream.subscription.rejected()) == {(CLUSTER, "a")}
        await call.write(encode_request(Request(CLUSTER, response.nonce)))
        found.publish(Resource(CLUSTER, "b", "1", b""))
        assert [r.name for r in (await answer(call)).put] == ["b"]
        assert stream.subscription.rejected() == {}
        call.cancel()


async def test_a_client_that_never_answers_holds_up_nobody(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        call = found.call()
        await call.write(first_request("gateway-1"))
        for number in range(1000):
            found.publish(Resource(CLUSTER, "a", str(number + 1), b"x" * 10_000))
            await asyncio.sleep(0)
        first = await answer(call)
        await call.write(encode_request(Request(CLUSTER, first.nonce)))
        if first.put[0].version != "1000":
            assert (await answer(call)).put[0].version == "1000"
        call.cancel()
