"""What Envoy is started with: accepted by the real one, and closed where it must be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson

from gateway.envoy.binary import find_envoy
from gateway.envoy.bootstrap import Sockets, bootstrap

MADE = bootstrap("gateway-1", "east", Sockets("/run/g/xds.sock", "/run/g/admin.sock"))


def test_admin_is_a_private_unix_socket_and_nothing_listens_otherwise() -> None:
    assert MADE.admin.address.pipe.path == "/run/g/admin.sock"
    assert MADE.admin.address.pipe.mode == 0o600
    assert not MADE.static_resources.listeners
    (cluster,) = MADE.static_resources.clusters
    (endpoint,) = cluster.load_assignment.endpoints[0].lb_endpoints
    assert endpoint.endpoint.address.pipe.path == "/run/g/xds.sock"


def test_envoy_waits_for_its_first_clusters_and_listeners() -> None:
    for source in (MADE.dynamic_resources.cds_config, MADE.dynamic_resources.lds_config):
        assert source.HasField("initial_fetch_timeout")
        assert source.initial_fetch_timeout.ToTimedelta().total_seconds() == 0


@pytest.mark.live
def test_envoy_accepts_it(tmp_path: Path) -> None:
    config = tmp_path / "bootstrap.json"
    config.write_text(MessageToJson(MADE))
    command = [
        str(find_envoy()),
        "--mode",
        "validate",
        "--config-path",
        str(config),
        "--log-level",
        "warning",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
