"""One JSON line for each connection: who asked for what, which cluster answered, and why that one.

Two kinds of lines. The cluster of the client writes `outbound`: service, destination, reason. The cluster of
the backend writes `inbound`: the peer by its certificate, authority, the gateway itself, backend. The client's
side does not say which gateway took a tunnel: a header of the CONNECT's answer could tell it, for 6 % more CPU
a connection.

Names of clusters and services come from our own configuration, or from endpoint metadata that we set; what a
client or peer sent goes through Envoy's JSON formatter, which escapes it, so no line can be forged. Readiness
probes are not logged.
"""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from gateway import names
from gateway.pb.envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLog,
    AccessLogFilter,
    NotHealthCheckFilter,
)
from gateway.pb.envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from gateway.pb.envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from gateway.pb.envoy.extensions.access_loggers.stream.v3.stream_pb2 import StdoutAccessLog
from gateway.proto import packed
from gateway.tuning import STANDARD_OUTPUT

_ALWAYS = {
    "time": "%START_TIME%",
    "duration_ms": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "flags": "%RESPONSE_FLAGS%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
}


def outbound(path: str, me: str, service: str) -> list[AccessLog]:
    """What a listener of an imported service writes."""
    return _log(
        path,
        {
            "direction": "outbound",
            "source": me,
            "service": service,
            "destination": f"%UPSTREAM_METADATA({names.METADATA}:cluster)%",
            "tier": f"%UPSTREAM_METADATA({names.METADATA}:tier)%",
            "reason": f"%UPSTREAM_METADATA({names.METADATA}:reason)%",
            "plan": f"%UPSTREAM_METADATA({names.METADATA}:plan)%",
            "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        },
    )


def inbound(path: str, me: str, source: str) -> list[AccessLog]:
    """What the connection manager writes that ends the tunnels of `source`."""
    return _log(
        path,
        {
            "direction": "inbound",
            "source": source,
            "destination": me,
            "authority": "%REQ(:AUTHORITY)%",
            "code": "%RESPONSE_CODE%",
            "gateway": "%DOWNSTREAM_LOCAL_ADDRESS%",
            "backend": "%UPSTREAM_HOST%",
            "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        },
    )


def _log(path: str, fields: dict[str, str]) -> list[AccessLog]:
    if not path:
        return []
    line = Struct()
    line.update(_ALWAYS | fields)
    log_format = SubstitutionFormatString(json_format=line)
    to_file = FileAccessLog(path=path, log_format=log_format)
    sink = StdoutAccessLog(log_format=log_format) if path == STANDARD_OUTPUT else to_file
    return [
        AccessLog(
            name="json",
            filter=AccessLogFilter(not_health_check_filter=NotHealthCheckFilter()),
            typed_config=packed(sink),
        )
    ]
