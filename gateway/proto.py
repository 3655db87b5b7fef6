"""Small pieces that many Envoy messages are made of, and the one way to encode them.

Encoding is deterministic, because a resource's version is the hash of its bytes.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt32Value

from gateway.pb.envoy.config.core.v3.address_pb2 import Address, EnvoyInternalAddress, SocketAddress
from gateway.pb.envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from gateway.pb.envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions, HttpProtocolOptions
from gateway.snapshot import Resource
from gateway.tuning import TunnelTuning


def encode(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def packed(message: Message) -> Any:
    wrapped = Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def resource(type_url: str, name: str, message: Message) -> Resource:
    return Resource.of(type_url, name, encode(message))


def seconds(value: float) -> Duration:
    """A duration, to the microsecond: what Envoy rounds to a millisecond anyway."""
    whole, micros = divmod(round(value * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=micros * 1000)


def over_ads() -> ConfigSource:
    """The stream that brought the resource brings what it refers to as well."""
    return ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)


def socket_address(address: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=address, port_value=port))


def internal_address(listener: str) -> Address:
    return Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=listener))


def idle_connection(tunnel: TunnelTuning) -> HttpProtocolOptions:
    """How long an HTTP/2 connection without any tunnel in it is kept."""
    return HttpProtocolOptions(idle_timeout=seconds(tunnel.idle_timeout))


PENDING_FRAMES = 1_000_000


def http2() -> Http2ProtocolOptions:
    """HTTP/2 between parties that proved who they are: large windows, and room for bursts of frames.

    When a thousand clients close while Envoy is off the processor, a thousand RST_STREAM frames leave in one
    turn. Its guard against floods (by default 1,000 control frames, 10,000 in all) would then end the shared
    connection, and every tunnel in it.
    """
    return Http2ProtocolOptions(
        max_outbound_frames=UInt32Value(value=PENDING_FRAMES),
        max_outbound_control_frames=UInt32Value(value=PENDING_FRAMES),
    )
