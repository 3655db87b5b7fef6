"""The names of what can be watched: metrics and log fields, in one place, and how logs are written.

A metric with a label has a bounded set of values for it: clusters of the registry, types of resource, reasons. Names
that strangers choose (services, hosts) are never labels.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections import Counter as Tallies
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from federation.api.messages import RotationStatus
from federation.figures import Figures
from pki.rotation import Phase


def configure_logging(level: str, form: Literal["text", "json"], process: str) -> None:
    """Write one line an event to standard error, of libraries too.

    Values are data: control characters are escaped, never printed. A line that standard error does not take is lost.
    To be called before grpc is imported: its core writes lines of its own, one for each stranger who fails a handshake,
    and is quiet unless the environment says otherwise (GRPC_VERBOSITY; grpc/doc/environment_variables.md).
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    out = cast("TextIO", _Lossy(sys.stderr))
    final: structlog.typing.Processor
    if form == "json":
        final = structlog.processors.JSONRenderer()
    else:
        final = structlog.processors.KeyValueRenderer(
            key_order=["timestamp", "level", "event"], drop_missing=True
        )
    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*steps, final],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(process=process)
    libraries = logging.StreamHandler(out)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, final],
        )
    )
    libraries.addFilter(_is_no_cancellation)
    logging.basicConfig(level=logging.WARNING, handlers=[libraries], force=True)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """A task that was told to end and did is no error, although grpc.aio reports its own as one when a process ends
    while a stream does: its server says that it has stopped before the methods have.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class _Lossy(io.TextIOBase):
    """A stream whose reader may be gone, or its disk full: no process ends because it cannot say something."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._to.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._to.flush()


class RotationMetrics:
    """How the rotations stand that a process drives, by the kind of authority. Where none runs all are 0 but `failing`:
    the last one may be unable to end, or the next one to begin.
    """

    def __init__(self, process: str, registry: CollectorRegistry) -> None:
        def gauge(name: str, says: str, *labels: str) -> Gauge:
            name = f"federation_{process}_rotation_{name}"
            return Gauge(name, says, ["authority", *labels], registry=registry)

        self._phase = gauge("phase", "1 for the phase in which an authority is being replaced", "phase")
        self._entered = gauge("phase_start_seconds", "Unix time at which that phase began")
        self._held_up = gauge("held_up_by", "Members that it waits for")
        self._ready = gauge("ready", "1 while it waits for nobody but an operator")
        self._deadline = gauge("deadline_seconds", "Unix time until which it may wait")
        self._failing = gauge("failing", "1 while it cannot go on, end or begin because something fails here")

    def show(self, found: RotationStatus) -> None:
        """What is to be seen of a rotation."""
        runs, kind = found.running, found.kind
        for phase in Phase:
            self._phase.labels(kind, phase.value).set(runs and found.phase == phase.value)
        self._entered.labels(kind).set(found.entered_at.timestamp() if runs and found.entered_at else 0)
        self._held_up.labels(kind).set(len(found.blocking) if runs else 0)
        self._ready.labels(kind).set(runs and found.ready)
        self._deadline.labels(kind).set(found.deadline.timestamp() if runs else 0)
        self._failing.labels(kind).set(found.problem is not None)


class HubMetrics:
    """What a hub counts. `lag` of a cluster is how many of its changes are not yet relayed to somebody."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.members = Gauge("federation_hub_members", "Clusters in the registry", registry=self.registry)
        self.streams = Gauge("federation_hub_streams", "Agents connected", registry=self.registry)
        self.entries = Gauge(
            "federation_hub_entries", "Relayed keys held", ["cluster"], registry=self.registry
        )
        self.refusals = Counter(
            "federation_hub_refusals", "Entries refused, by rule", ["cluster", "rule"], registry=self.registry
        )
        self.vault_token = Gauge(
            "federation_hub_vault_token_seconds", "Life left to our token in Vault", ["use"],
            registry=self.registry,
        )  # fmt: skip
        self.joins = Counter(
            "federation_hub_joins", "Join attempts by outcome", ["outcome"], registry=self.registry
        )
        self.rotation = RotationMetrics("hub", self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)


class AgentMetrics:
    """What an agent counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        gauge, counter = Gauge, Counter
        self.events = counter("federation_agent_events", "Events taken in", ["kind"], registry=self.registry)
        self.decided = counter(
            "federation_agent_services_decided", "Services decided anew", registry=self.registry
        )
        self.decision = Histogram(
            "federation_agent_decision_seconds",
            "From taking a batch of events to its published snapshot",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
            registry=self.registry,
        )
        self.hub_up = gauge(
            "federation_agent_hub_connected", "1 while the hub's stream is up", registry=self.registry
        )
        self.services = gauge(
            "federation_agent_services", "Services offered to this cluster", registry=self.registry
        )
        self.gateways = gauge(
            "federation_agent_gateways_connected", "Own gateways connected", registry=self.registry
        )
        self.silence = gauge(
            "federation_agent_peer_silence_seconds", "Age of what is served of a peer", ["cluster"],
            registry=self.registry,
        )  # fmt: skip
        self.rejected = gauge(
            "federation_agent_resources_rejected", "Resources that an Envoy refused", registry=self.registry
        )
        self.vault_token = gauge(
            "federation_agent_vault_token_seconds", "Life left to our token in Vault", ["use"],
            registry=self.registry,
        )  # fmt: skip
        self.problems = gauge(
            "federation_agent_file_problems",
            "Files of the services folder that are refused",
            registry=self.registry,
        )
        self.rotation = RotationMetrics("agent", self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)


class AuthorityCollector(Collector):
    """What can be watched of the authorities of a hub or an agent (`process`); `look` is asked at each scrape."""

    def __init__(self, process: Literal["hub", "agent"], look: Callable[[], Figures]) -> None:
        self._prefix = f"federation_{process}_"
        self._look = look

    def collect(self) -> Iterator[Metric]:
        now = self._look()
        issued = self._counter("certificates_issued", "Certificates given out", ["profile"])
        refused = self._counter("certificates_refused", "Certificates refused", ["profile", "reason"])
        for profile, count in sum((tally.issued for tally in now.tallies), Tallies[str]()).items():
            issued.add_metric([profile], count)
        kinds = sum((tally.refused for tally in now.tallies), Tallies[tuple[str, str]]())
        for (profile, reason), count in kinds.items():
            refused.add_metric([profile, reason], count)
        yield from (issued, refused)
        failed = self._counter("renewals_failed", "Attempts to renew the own certificate that failed", [])
        failed.add_metric([], now.renewals_failed)
        yield failed
        yield self._gauge(
            "certificate_expiry_seconds",
            "Unix time at which a certificate ends",
            "which",
            {which: moment.timestamp() for which, moment in now.ends.items()},
        )
        generations = {name: version[0] for name, version in now.versions.items()}
        sequences = {name: version[1] for name, version in now.versions.items()}
        domain = "trust_domain"
        yield self._gauge("bundle_generation", "Generation of the bundle held", domain, generations)
        yield self._gauge("bundle_sequence", "Sequence of the bundle held", domain, sequences)
        yield from self._of_journals(now)
        yield self._gauge("bans", "Bans in force", "kind", now.bans)

    def _of_journals(self, now: Figures) -> Iterator[Metric]:
        failures = self._counter("journal_write_failures", "Attempts to write a journal that failed", [])
        failures.add_metric([], sum(each.failures for each in now.journals))
        yield failures
        failing = sum(each.failing for each in now.journals)
        yield self._single("journals_failing", "Journals of ours that cannot be written", failing)
        yield self._single(
            "journals_doubted", "Journals of others that contradict what was kept", now.doubted
        )
        written = [each.written.timestamp() for each in now.journals if each.written is not None]
        if written:
            what = "Unix time of the newest record that is on disk"
            yield self._single("journal_written_timestamp_seconds", what, max(written))

    def _counter(self, name: str, what: str, labels: Sequence[str]) -> CounterMetricFamily:
        return CounterMetricFamily(self._prefix + name, what, labels=labels)

    def _single(self, name: str, what: str, value: float) -> Metric:
        return GaugeMetricFamily(self._prefix + name, what, value=value)

    def _gauge(self, name: str, what: str, label: str, values: Mapping[str, float]) -> Metric:
        found = GaugeMetricFamily(self._prefix + name, what, labels=[label])
        for each, value in values.items():
            found.add_metric([each], value)
        return found


class GatewayMetrics:
    """What a gateway process counts, besides what its Envoy does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        gauge = Gauge
        self.envoy_up = gauge("federation_gateway_envoy_live", "1 while Envoy serves", registry=self.registry)
        self.crashes = gauge(
            "federation_gateway_envoy_crashes",
            "Times that Envoy died since the start",
            registry=self.registry,
        )
        self.envoy_failing = gauge(
            "federation_gateway_envoy_failing",
            "1 while Envoy ends or cannot be started",
            registry=self.registry,
        )
        self.renewal_failing = gauge(
            "federation_gateway_renewal_failing",
            "1 while the certificate cannot be renewed",
            registry=self.registry,
        )
        self.agent_up = gauge(
            "federation_gateway_agent_connected", "1 while the agent's stream is up", registry=self.registry
        )
        self.resources = gauge(
            "federation_gateway_resources", "Resources that Envoy accepted", registry=self.registry
        )
        self.rejected = gauge(
            "federation_gateway_resources_rejected", "Resources that Envoy refused", registry=self.registry
        )
        self.store_damaged = gauge(
            "federation_gateway_store_set_aside",
            "1 if the stored configuration was damaged",
            registry=self.registry,
        )
        self.store_failing = gauge(
            "federation_gateway_store_failing", "1 while nothing can be stored", registry=self.registry
        )
        self.certificate = gauge(
            "federation_gateway_certificate_expiry_seconds", "Unix time at which the certificate ends",
            registry=self.registry,
        )  # fmt: skip

    def render(self) -> bytes:
        return generate_latest(self.registry)
