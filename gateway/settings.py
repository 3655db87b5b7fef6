"""What a gateway process needs to know, already parsed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from federation.listen import HostPort
from pki.keys.passphrase import Passphrase


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`advertise` is where peers dial; `bind` and `bind_port` are where Envoy listens. `drain` is in seconds.

    `token_file` is read when there is no certificate yet, or it has ended. `envoy` is a path, or None for the
    installed one. Without a `passphrase` the key lies in the clear.
    """

    name: str
    directory: Path
    advertise: HostPort
    bind: str
    bind_port: int
    telemetry: HostPort
    token_file: Path | None = None
    envoy: Path | None = None
    concurrency: int = 1
    drain: float = 5.0
    passphrase: Passphrase | None = None

    @property
    def api_socket(self) -> Path:
        return self.directory / "api.sock"

    @property
    def admin_socket(self) -> Path:
        return self.directory / "admin.sock"

    @property
    def xds_socket(self) -> Path:
        return self.directory / "xds.sock"

    @property
    def resources(self) -> Path:
        return self.directory / "resources.sqlite"
