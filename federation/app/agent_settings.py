"""What an agent's settings mean to those who decide and compile: the only place where the one becomes the other."""

from __future__ import annotations

from datetime import timedelta

from federation.config import AgentSettings, Rule
from federation.model import ImportPolicy, ImportRule, LeaseSettings, Me
from federation.orders import Allowed
from federation.svid.quota import Quota
from gateway.tuning import PathTuning, Tuning, TunnelTuning
from pki.limits import Limits

BURST = 20
"""Seconds worth of certificates that one name may have at once: a deployment restarts all its replicas."""


def me_of(settings: AgentSettings, base: str) -> Me:
    """Who the agent is and what it accepts; `base` is the one below which all trust domains lie."""
    return Me(
        name=settings.cluster,
        base=base,
        region=settings.region,
        zone=settings.zone or "",
        regions=settings.regions,
        import_policy=ImportPolicy(_rules(settings.imports.allow), _rules(settings.imports.deny)),
        port_range=(settings.ports.first, settings.ports.last),
        leases=LeaseSettings(settings.leases.suspect, settings.leases.expired),
    )


def tuning_of(settings: AgentSettings) -> Tuning:
    """How its gateways' Envoys probe, time out and log."""
    paths, tunnels = settings.paths, settings.tunnels
    return Tuning(
        path=PathTuning(
            connect_timeout=tunnels.connect,
            probe_interval=paths.probe,
            probe_timeout=paths.timeout,
            probe_failures=paths.failures,
            ping_interval=paths.ping,
            ping_timeout=paths.timeout,
        ),
        tunnel=TunnelTuning(idle_timeout=tunnels.idle),
        access_log=settings.access_log,
    )


def limits_of(settings: AgentSettings) -> Limits:
    """What its authority gives to workloads at most."""
    issuing = settings.issuing
    return Limits(
        shortest=timedelta(seconds=issuing.shortest),
        longest=timedelta(seconds=issuing.longest),
        keys=frozenset(issuing.keys),
        names=issuing.names,
    )


def quota_of(settings: AgentSettings) -> Quota:
    """How many certificates one workload identity, all its replicas together, is given in a time."""
    rate = settings.issuing.rate
    return Quota(rate, BURST * rate)


def orders_of(settings: AgentSettings) -> Allowed:
    """What is done here because an operator of the hub wants it."""
    return Allowed(settings.rotation.from_hub, settings.rotation.from_hub_a_day)


def _rules(rules: tuple[Rule, ...]) -> tuple[ImportRule, ...]:
    return tuple(ImportRule(rule.clusters, rule.services) for rule in rules)
