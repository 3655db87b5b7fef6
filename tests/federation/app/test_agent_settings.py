"""Every setting that decides something reaches who decides it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import yaml

from federation.app.agent_settings import limits_of, me_of, tuning_of
from federation.config import AgentSettings
from federation.model import ImportRule, LeaseSettings
from federation.settings_file import read_settings
from pki.algorithms import KeyKind
from pki.limits import UNLIMITED
from pki.profiles import SVID

WRITTEN = {
    "cluster": "east",
    "region": "eu",
    "zone": "eu-1",
    "regions": ["us", "ap"],
    "services": "/etc/federation/services",
    "advertise": {"api": "127.0.0.1:9443", "xds": "127.0.0.1:9444"},
    "imports": {"deny": [{"clusters": ["west"], "services": ["shop/*"]}]},
    "ports": {"first": 21000, "last": 21999},
    "leases": {"suspect": "20s", "expired": "90s"},
    "paths": {"probe": "700ms", "timeout": "800ms", "failures": 3, "ping": "600ms"},
    "tunnels": {"idle": "30m", "connect": "900ms"},
    "access_log": "/dev/null",
    "keys": {"plain": True},
    "issuing": {"shortest": "5m", "longest": "2h", "keys": ["ed25519"], "names": ["/ns/shop/sa/*"]},
}


def read(folder: Path) -> AgentSettings:
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(WRITTEN))
    return read_settings(file, AgentSettings)


def test_who_the_agent_is(tmp_path: Path) -> None:
    me = me_of(read(tmp_path), "mesh.example")
    assert (me.name, me.region, me.zone, me.regions) == ("east", "eu", "eu-1", ("us", "ap"))
    assert str(me.trust_domain) == "east.mesh.example"
    assert me.import_policy.deny == (ImportRule(("west",), ("shop/*",)),)
    assert me.port_range == (21000, 21999)
    assert me.leases == LeaseSettings(20, 90)


def test_how_its_gateways_behave(tmp_path: Path) -> None:
    tuning = tuning_of(read(tmp_path))
    path = tuning.path
    assert (path.probe_interval, path.probe_timeout, path.probe_failures) == (0.7, 0.8, 3)
    assert (path.ping_interval, path.ping_timeout, path.connect_timeout) == (0.6, 0.8, 0.9)
    assert (tuning.tunnel.idle_timeout, tuning.access_log) == (1800, "/dev/null")


def test_what_workloads_get(tmp_path: Path) -> None:
    limits = limits_of(read(tmp_path))
    assert (limits.shortest, limits.longest) == (timedelta(minutes=5), timedelta(hours=2))
    assert limits.keys == {KeyKind.ED25519}
    assert [template.covers("/ns/shop/sa/cart") for template in limits.names] == [True]


def test_what_is_not_said_takes_nothing_away(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in WRITTEN.items() if key != "issuing"}))
    limits = limits_of(read_settings(file, AgentSettings))
    assert replace(limits, longest=UNLIMITED.longest) == UNLIMITED
    assert limits.longest == SVID.longest
