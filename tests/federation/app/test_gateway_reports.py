from __future__ import annotations

from datetime import UTC, datetime

from federation.app.gateway_reports import read_report
from federation.model import Path
from gateway.report_pb2 import GatewayReport
from gateway.xds.server import Client
from tests.federation.world import ECHO, NOW

CLIENT = Client("spiffe://east.mesh.example/gateway/eastwest", "eastwest", "gw-0")


def test_who_it_is_comes_from_the_certificate_and_the_rest_from_the_message() -> None:
    message = GatewayReport(
        address="10.1.0.1",
        port=15443,
        bind="127.0.0.1",
        bind_port=15444,
        envoy_version="1.40",
        state=GatewayReport.STATE_SERVING,
        certificate_not_after_ms=1_767_312_000_000,
    )
    message.paths.add(cluster="west", healthy=1, total=2)
    message.backends.add(namespace="default", name="echo", port=80, failed=["10.1.9.1:8080"])
    seen = read_report(CLIENT, message, NOW)
    assert (seen.gateway.name, seen.gateway.cls) == ("gw-0", "eastwest")
    assert (seen.gateway.address, seen.gateway.port) == ("10.1.0.1", 15443)
    assert (seen.gateway.bind, seen.gateway.bind_port) == ("127.0.0.1", 15444)
    assert seen.gateway.serving
    assert (seen.report.at, seen.report.envoy, seen.report.draining) == (NOW, "1.40", False)
    assert seen.report.certificate_expires_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert seen.paths == {"west": Path(1, 2)}
    assert seen.failed == {(ECHO, 80): frozenset({"10.1.9.1:8080"})}


def test_what_a_gateway_does_not_say_is_not_made_up() -> None:
    seen = read_report(CLIENT, GatewayReport(state=GatewayReport.STATE_DRAINING), NOW)
    assert not seen.gateway.serving
    assert seen.report.draining
    assert seen.report.certificate_expires_at is None
    assert (seen.paths, seen.failed) == ({}, {})
