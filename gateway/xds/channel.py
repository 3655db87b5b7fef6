"""How both ends set up gRPC: limits, and pings that notice a peer that has fallen silent."""

from __future__ import annotations

from collections.abc import Sequence

ADS_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
ADS_METHOD = "DeltaAggregatedResources"
REPORT_SERVICE = "gateway.v1.Gateways"
REPORT_METHOD = "Report"

LONGEST_REQUEST = 32 << 20
"""Bytes of a request: the versions of all that a client holds, at about 80 bytes each."""

LONGEST_RESPONSE = 64 << 20
"""Bytes of a response: at most a few MiB of resources, or one large route table."""

PING_INTERVAL = 10.0
PING_TIMEOUT = 5.0

WRITE_TIMEOUT = 30.0
"""Seconds after which a peer that does not read is given up."""

Options = Sequence[tuple[str, int | str]]

_PINGS: Options = (
    ("grpc.keepalive_time_ms", int(PING_INTERVAL * 1000)),
    ("grpc.keepalive_timeout_ms", int(PING_TIMEOUT * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
)

SERVER: Options = (
    *_PINGS,
    ("grpc.max_receive_message_length", LONGEST_REQUEST),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)

CLIENT: Options = (
    *_PINGS,
    ("grpc.max_receive_message_length", LONGEST_RESPONSE),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
