"""What a gateway process says of itself, over its unix socket."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from federation.api.messages import Out, RejectedResource


class GatewayProcessStatus(Out, frozen=True, kw_only=True):
    """`resources` counts what Envoy accepted; `problems` are sentences for people, empty if all is well."""

    kind: Literal["gateway"] = "gateway"
    version: str
    pid: int
    name: str
    cluster: str
    gateway_class: str
    state: Literal["serving", "draining"]
    agent_connected: bool
    agent: str
    envoy_pid: int | None
    envoy_live: bool
    envoy_version: str
    envoy_crashes: int
    admin: str
    resources: int
    rejected: tuple[RejectedResource, ...]
    certificate_expires_at: datetime
    problems: tuple[str, ...]
