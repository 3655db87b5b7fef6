"""What of a demo still runs: what was written of it at its start, looked at again before anybody acts on it.

A process that has died has no pid any more: the number may by now be that of a stranger, whom nobody should kill.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.listen import HostPort

PATIENCE = 0.5
"""Seconds that a listener of this machine has to let a connection in."""


def current(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a demo wrote, with None in place of each pid that is gone and each import that nobody serves.

    A process is the one that was meant if it is still the child of the one that started it.
    """
    demo = facts["pid"]
    return {
        **facts,
        "hub": _process(facts["hub"], demo),
        "clusters": [
            {
                **cluster,
                "agent": _process(cluster["agent"], demo),
                "gateways": [_gateway(gateway, demo) for gateway in cluster["gateways"]],
                "backends": [_process(backend, demo) for backend in cluster["backends"]],
                "imports": {port: served(reach) for port, reach in cluster["imports"].items()},
            }
            for cluster in facts["clusters"]
        ],
    }


def served(reach: Sequence[str]) -> str | None:
    """The first of these addresses, `host:port`, at which somebody listens."""
    return next((address for address in reach if _listens(HostPort.parse(address))), None)


def parent(pid: int) -> int | None:
    """The pid of its parent; None if there is no such process (proc_pid_stat(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, of, *_ = text.rpartition(")")[2].split()
    return None if state == "Z" else int(of)


def _process(facts: Mapping[str, Any], started_by: int) -> dict[str, Any]:
    return {**facts, "pid": facts["pid"] if parent(facts["pid"]) == started_by else None}


def _gateway(facts: Mapping[str, Any], demo: int) -> dict[str, Any]:
    envoy = facts["envoy_pid"]
    return {**_process(facts, demo), "envoy_pid": envoy if parent(envoy) == facts["pid"] else None}


def _listens(address: HostPort) -> bool:
    try:
        with socket.create_connection((address.host, address.port), PATIENCE):
            return True
    except OSError:
        return False
