"""How quickly a gateway notices that something is gone, and how long it keeps what is idle.

Constants of a deployment, not facts: one value for all gateways of a cluster. All times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PathTuning:
    """How the way to another cluster's gateways is watched.

    A gateway that falls silent costs at most `ping_interval + ping_timeout` and one retry: the PINGs end the
    connection, so every tunnel in it fails over at once. Probes notice it where there is no connection.
    """

    connect_timeout: float = 1.0
    probe_interval: float = 0.5
    probe_timeout: float = 0.5
    probe_failures: int = 2
    ping_interval: float = 0.35
    ping_timeout: float = 0.5
    handshake_timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class BackendTuning:
    """How our own backends of an exported service are watched: a TCP connect every `check_interval`."""

    connect_timeout: float = 1.0
    check_interval: float = 0.5
    check_timeout: float = 0.25
    check_failures: int = 1


@dataclass(frozen=True, slots=True)
class TunnelTuning:
    """One client connection, from the listener to the backend.

    `idle_timeout` holds on every hop. The first failure of a connect ejects its target; the back-off before
    the next attempt gives Envoy's main thread the time to tell the workers.
    """

    idle_timeout: float = 3600.0
    connect_attempts: int = 6
    backoff: float = 0.04
    longest_backoff: float = 0.08
    ejection: float = 1.0
    longest_ejection: float = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Circuit breakers of each cluster (Envoy's defaults: 1024 of all, 3 retries)."""

    connections: int = 65535
    pending: int = 65535
    requests: int = 65535
    retries: int = 1024


STANDARD_OUTPUT = "/dev/stdout"


@dataclass(frozen=True, slots=True)
class Tuning:
    """`access_log` is a path as Envoy sees it, `STANDARD_OUTPUT`, or empty for no access log at all."""

    path: PathTuning = field(default_factory=PathTuning)
    backend: BackendTuning = field(default_factory=BackendTuning)
    tunnel: TunnelTuning = field(default_factory=TunnelTuning)
    limits: Limits = field(default_factory=Limits)
    access_log: str = STANDARD_OUTPUT
