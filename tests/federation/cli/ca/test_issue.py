"""`federation ca issue`, asked of a process that issues nothing to workloads."""

from __future__ import annotations

from pathlib import Path

from tests.federation.cli.answering import answering
from tests.federation.cli.command import Cli


def test_who_asks_a_hub_for_a_certificate_is_sent_to_an_agent(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "cart"
    with answering(tmp_path, {}) as process:
        refused = cli(
            "--hub", process.hub, "ca", "issue", "spiffe://east.mesh.example/ns/shop/sa/cart", "--out", out
        )
    assert refused.code == 2
    assert "agents issue certificates to workloads, and another process was asked" in refused.err
    assert "hint: ask the agent of that cluster: federation --hub unix:///" in refused.err
    assert not out.exists()
