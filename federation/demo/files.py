"""The files that a demo writes for its processes: their settings, one-time tokens and sample services.

The same forms that a user writes by hand; nothing here is for the demo alone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.demo.clusters import BASE, REGIONS, Cluster, Gateway
from federation.document import dump
from federation.listen import HostPort

PASSPHRASE = "passphrase"
"""The file with the passphrase of all keys of a demo; each real process has one of its own."""


def keys(folder: Path) -> dict[str, Any]:
    """The setting `keys` of every process of the demo in `folder`."""
    return {"passphrase": {"file": str(folder / PASSPHRASE)}}


def write_passphrase(folder: Path) -> None:
    """A new one, in the folder of the demo."""
    _write_private(folder / PASSPHRASE, secrets.token_urlsafe(32) + "\n")


def write_hub(folder: Path, api: HostPort, sync: HostPort, more: Mapping[str, Any]) -> None:
    """`hub.yaml` in the folder of the demo, with the settings of `more`."""
    addresses = {"api": str(api), "sync": str(sync)}
    settings = {
        "base": BASE,
        "directory": str(folder / "hub"),
        "advertise": addresses,
        "listen": {**addresses, "telemetry": f"{api.host}:9464"},
        "keys": keys(folder),
    }
    _write(folder / "hub.yaml", dump(settings | dict(more)))


def write_agent(cluster: Cluster, token: str, more: Mapping[str, Any]) -> None:
    """`agent.yaml` in the folder of the cluster, with the settings of `more`, and its token to join."""
    host = cluster.address(0)
    addresses = {"api": f"{host}:8445", "xds": f"{host}:8446"}
    settings = {
        "cluster": cluster.name,
        "region": cluster.plan.region,
        "regions": list(REGIONS),
        "directory": str(cluster.folder / "agent"),
        "services": str(cluster.folder / "services"),
        "join_token": str(cluster.folder / "join.token"),
        "advertise": addresses,
        "listen": {**addresses, "telemetry": f"{host}:9465"},
        "access_log": str(cluster.folder / "access.log"),
        "keys": keys(cluster.folder.parent),
    }
    _write_private(cluster.folder / "join.token", token)
    _write(cluster.folder / "agent.yaml", dump(settings | dict(more)))


def write_gateway(gateway: Gateway, token: str, more: Mapping[str, Any]) -> None:
    """`gateway.yaml` in the folder of the gateway, with the settings of `more`, and its token to attest."""
    host, port = gateway.address.host, gateway.address.port
    settings = {
        "name": gateway.name,
        "advertise": str(gateway.address),
        "token": str(gateway.folder / "token"),
        "directory": str(gateway.folder / "state"),
        "listen": {"address": host, "eastwest": port, "telemetry": f"{host}:9466"},
        "envoy": {"drain": "1s"},
        "keys": keys(gateway.folder.parent.parent),
    }
    _write_private(gateway.folder / "token", token)
    _write(gateway.folder / "gateway.yaml", dump(settings | dict(more)))


def write_service(cluster: Cluster, service: str, *, exported: bool) -> None:
    """The Kubernetes objects of one sample service, with the backends that the cluster has of it."""
    addresses = [backend.address.host for backend in cluster.of(service)]
    _write(cluster.folder / "services" / f"{service}.yaml", objects(service, addresses, exported=exported))


def objects(name: str, addresses: Sequence[str], *, port: int = 8080, exported: bool = True) -> str:
    """The service `default/<name>:80` as Kubernetes objects, in YAML; its backends listen on `port`."""
    meta = {"name": name, "namespace": "default"}
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        },
    ]
    if exported:
        api = "multicluster.x-k8s.io/v1beta1"
        found.append({"apiVersion": api, "kind": "ServiceExport", "metadata": meta})
    return "---\n".join(dump(each) for each in found)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as file:
        file.write(text)
