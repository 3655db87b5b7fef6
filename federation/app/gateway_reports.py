"""What a gateway reports, from the message on the wire to the values that the agent keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from federation.gateways import Report
from federation.model import OwnGateway, Path, Service
from gateway.report_pb2 import GatewayReport
from gateway.xds.server import Client


@dataclass(frozen=True, slots=True)
class Seen:
    """A gateway, what it says of itself, and what it sees of the ways to others and of local backends."""

    gateway: OwnGateway
    report: Report
    paths: Mapping[str, Path]
    failed: Mapping[tuple[Service, int], frozenset[str]]


def read_report(client: Client, message: GatewayReport, now: datetime) -> Seen:
    """`message` as `client` sent it. Who it is comes from its certificate, where it is from the message."""
    return Seen(
        OwnGateway(
            name=client.instance,
            cls=client.gateway_class,
            address=message.address,
            port=message.port,
            bind=message.bind,
            bind_port=message.bind_port,
            serving=message.state == GatewayReport.STATE_SERVING,
        ),
        Report(
            at=now,
            envoy=message.envoy_version,
            certificate_expires_at=_instant(message.certificate_not_after_ms),
            draining=message.state == GatewayReport.STATE_DRAINING,
            issuer=message.issuer,
            bundle=(message.bundle.generation, message.bundle.sequence),
        ),
        {path.cluster: Path(path.healthy, path.total) for path in message.paths},
        {(Service(one.namespace, one.name), one.port): frozenset(one.failed) for one in message.backends},
    )


def _instant(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
