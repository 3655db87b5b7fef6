"""`federation config check`: what a file is, and what is wrong with it, before a process reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from federation.config import AgentSettings, GatewaySettings, HubSettings, read_settings
from federation.discovery.files import check_objects
from federation.document import read
from federation.errors import FederationError, InputError
from federation.model import Network


@dataclass(frozen=True, slots=True)
class Found:
    """`kind` is `hub`, `agent`, `gateway` or `services`; each problem is a whole line for people."""

    kind: str
    problems: tuple[str, ...]


_TELLING: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "base": ("hub", lambda path: read_settings(path, HubSettings)),
    "cluster": ("agent", lambda path: read_settings(path, AgentSettings)),
    "name": ("gateway", lambda path: read_settings(path, GatewaySettings)),
}
"""The field that only one kind of settings has at its top, and who reads that kind."""


def check_path(path: Path, ranges: Sequence[str]) -> Found:
    """Look at a settings file, or at a file or folder of Kubernetes objects. Raises InputError for a bad range."""
    try:
        networks = tuple(ip_network(text) for text in ranges)
    except ValueError as error:
        raise InputError(str(error), file="--range", allowed="a network such as 10.1.0.0/16") from error
    if path.is_dir():
        return Found("services", _objects(path, networks))
    try:
        documents = read(path)
    except FederationError as error:
        return Found("unknown", (str(error),))
    fields = documents[0].value if documents else None
    if isinstance(fields, dict) and "kind" not in fields:
        for field, (kind, settings) in _TELLING.items():
            if field in fields:
                return Found(kind, _settings(path, settings))
        hint = "a settings file has one of: base (hub), cluster (agent), name (gateway)"
        return Found("unknown", (f"{path}: cannot tell what this file is for; {hint}",))
    return Found("services", _objects(path, networks))


def _settings(path: Path, settings: Callable[[Path], object]) -> tuple[str, ...]:
    try:
        settings(path)
    except FederationError as error:
        return (str(error),)
    return ()


def _objects(path: Path, networks: Sequence[Network]) -> tuple[str, ...]:
    return tuple(str(problem) for problem in check_objects(path, networks))
