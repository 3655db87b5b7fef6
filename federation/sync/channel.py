"""How both ends set up gRPC: limits, pings that notice a dead peer, and for how long silence is patience."""

from __future__ import annotations

from collections.abc import Sequence

from federation.sync.wire import LONGEST_MESSAGE

BEAT = 5.0
"""Seconds between two beats."""
SILENCE = 20.0
"""Seconds without a message after which the other side counts as hung, although its machine answers pings."""
GREETING = 10.0
"""Seconds for the first message of a stream."""
WRITE_TIMEOUT = 30.0
"""Seconds after which a peer that does not read is given up."""

Options = Sequence[tuple[str, int | str]]

_COMMON: Options = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", LONGEST_MESSAGE),
    ("grpc.max_send_message_length", LONGEST_MESSAGE),
)

SERVER: Options = (*_COMMON, ("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 4))


def client(server_name: str) -> Options:
    """Options of a channel whose server must have the DNS SAN `server_name`."""
    return (
        *_COMMON,
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.ssl_target_name_override", server_name),
    )
