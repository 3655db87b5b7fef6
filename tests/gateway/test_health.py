"""Envoy's answers, as it gives them, become health of paths and backends."""

from __future__ import annotations

import msgspec

from federation.model import Service
from gateway.envoy.answers import Clusters, ServerInfo
from gateway.health import FailedBackends, Health, PathHealth, health

SAID = b"""{"cluster_statuses": [
 {"name": "gateway/west", "added_via_api": true, "host_statuses": [
  {"address": {"socket_address": {"address": "10.2.0.1", "port_value": 15443}},
   "health_status": {"eds_health_status": "HEALTHY"}},
  {"address": {"socket_address": {"address": "10.2.0.2", "port_value": 15443}},
   "health_status": {"failed_active_health_check": true, "eds_health_status": "HEALTHY"}},
  {"address": {"socket_address": {"address": "10.2.0.3", "port_value": 15443}},
   "health_status": {"failed_outlier_check": true, "eds_health_status": "HEALTHY"}}]},
 {"name": "gateway/central"},
 {"name": "local/default/echo:80", "host_statuses": [
  {"address": {"socket_address": {"address": "10.1.0.9", "port_value": 8080}},
   "health_status": {"failed_active_health_check": true}},
  {"address": {"socket_address": {"address": "fd00::1", "port_value": 8080}},
   "health_status": {"failed_active_health_check": true}},
  {"address": {"socket_address": {"address": "10.1.0.8", "port_value": 8080}}, "health_status": {}}]},
 {"name": "local/default/well:80", "host_statuses": [
  {"address": {"socket_address": {"address": "10.1.0.7", "port_value": 8080}}}]},
 {"name": "default/echo:80", "host_statuses": [
  {"address": {"envoy_internal_address": {"server_listener_name": "local"}},
   "health_status": {"failed_outlier_check": true}}]}]}"""


def test_paths_and_failed_backends() -> None:
    assert health(msgspec.json.decode(SAID, type=Clusters).cluster_statuses) == Health(
        (PathHealth("central", 0, 0), PathHealth("west", 1, 3)),
        (FailedBackends(Service("default", "echo"), 80, ("10.1.0.9:8080", "[fd00::1]:8080")),),
    )


def test_the_release_is_read_from_the_version() -> None:
    assert ServerInfo("9e558/1.40.0/Clean/RELEASE/BoringSSL", "LIVE").release == "1.40.0"
    assert ServerInfo("odd").release == "odd"
