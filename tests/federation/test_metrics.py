"""Every metric that is exposed is documented, and every one that is documented is exposed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from federation.figures import Figures, JournalFigures
from federation.telemetry import AgentMetrics, AuthorityCollector, GatewayMetrics, HubMetrics
from pki.tally import Tally

DOCS = Path(__file__).parents[2] / "docs"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def figures() -> Figures:
    return Figures(
        tallies=(Tally(),),
        renewals_failed=0,
        ends={"own": NOW},
        versions={"east.mesh.example": (1, 1)},
        journals=(JournalFigures(0, False, NOW),),
        doubted=0,
        bans={"cluster": 0},
    )


def exposed(registry: CollectorRegistry) -> set[str]:
    """Names as they are scraped: a counter's ends in `_total`."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}


def test_the_page_names_each_metric_and_no_other() -> None:
    hub, agent = HubMetrics().registry, AgentMetrics().registry
    hub.register(AuthorityCollector("hub", figures))
    agent.register(AuthorityCollector("agent", figures))
    found = exposed(hub) | exposed(agent) | exposed(GatewayMetrics().registry)
    documented = set(
        re.findall(r"`(federation_(?:hub|agent|gateway)_[a-z_]+)`", (DOCS / "metrics.md").read_text())
    )
    assert documented == found


def test_the_page_has_one_row_for_each_metric() -> None:
    rows = re.findall(r"^\| `(federation_[a-z_]+)`", (DOCS / "metrics.md").read_text(), flags=re.MULTILINE)
    assert rows
    assert sorted(rows) == sorted(set(rows))


def test_what_other_pages_say_of_metrics_is_true() -> None:
    known = set(
        re.findall(r"`(federation_(?:hub|agent|gateway)_[a-z_]+)`", (DOCS / "metrics.md").read_text())
    )
    for page in DOCS.glob("*.md"):
        named = set(re.findall(r"federation_(?:hub|agent|gateway)_[a-z_]*[a-z]", page.read_text()))
        assert named - {"federation_hub", "federation_agent"} <= known, page.name
