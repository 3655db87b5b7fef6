"""`federation ca verify`: whether one cluster's workloads are believed by another, for every verifier that we know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from federation.cli.arguments import CLUSTER
from federation.cli.call import ask, segment
from federation.cli.output import emit, output_option, print_table, text

BUNDLE, ROOT = "bundle", "root"
VERIFIERS = ("federation", "envoy", "envoy-ca", "openssl", "go", "java", "pyca")
NOT_WITH_ROOT = ("federation", "envoy")
"""Ours never take the root for an anchor of peers."""


@click.command()
@click.option(
    "--from", "source", type=CLUSTER, required=True, metavar="A", help="Whose workloads: a cluster, or hub."
)
@click.option(
    "--to",
    "target",
    type=CLUSTER,
    required=True,
    metavar="B",
    help="Who is to believe them: a cluster, or hub.",
)
@click.option(
    "--as", "verifiers", multiple=True, type=click.Choice(VERIFIERS), help="Only this verifier. Repeatable."
)
@click.option(
    "--trust",
    type=click.Choice((BUNDLE, ROOT)),
    default=BUNDLE,
    show_default=True,
    help="What B trusts: the bundle of A that it holds, or the root, as other meshes do.",
)
@output_option
@click.pass_context
def verify(
    ctx: click.Context, source: str, target: str, verifiers: tuple[str, ...], trust: str, output: str
) -> None:
    """Say whether what the workloads of A present is believed by B, and why; exit code 1 if one verifier says no.

    What A presents is the chain that its agent presents now: its gateways' are issued by the same authority in the same
    form. Each verifier builds paths in its own way; the ways are modelled, and nothing is sent anywhere.

    \b
    Examples:
      federation ca verify --from east --to west
      federation ca verify --from east --to west --as openssl --trust root
    """
    from_, to = (ask(ctx, "GET", f"/v1/authorities/{segment(name)}") for name in (source, target))
    rows = judged(from_, to, verifiers, trust, datetime.now(UTC))
    emit(output, rows, _table)
    if not all(row["believed"] for row in rows):
        ctx.exit(1)


def judged(
    source: dict[str, Any], target: dict[str, Any], verifiers: Sequence[str], trust: str, now: datetime
) -> list[dict[str, Any]]:
    """One row a verifier: in both roles, as gateways are both; the first no counts."""
    from pki.certificate import load_pem
    from pki.spiffe import TrustDomain
    from pki.verifiers import Role, Verifier, judge

    presented = load_pem(source["presented"].encode())
    domain = TrustDomain.parse(source["bundle"]["trust_domain"])
    anchors = _anchors(source, target, trust)
    usual = [name for name in VERIFIERS if trust == BUNDLE or name not in NOT_WITH_ROOT]
    rows = []
    for name in verifiers or usual:
        verdicts = [judge(Verifier(name), presented, anchors, domain, now, role) for role in Role]
        verdict = next((one for one in verdicts if not one.believed), verdicts[0])
        reason = verdict.reason if anchors else f"{target['name']} holds no bundle of {source['name']}"
        rows.append(
            {"verifier": name, "believed": verdict.believed, "reason": reason, "path": list(verdict.path)}
        )
    return rows


def _anchors(source: dict[str, Any], target: dict[str, Any], trust: str) -> tuple[Any, ...]:
    from pki.certificate import load_pem

    if trust == ROOT:
        pems = [form["pem"] for root in target["roots"] for form in root["forms"]]
    elif source["name"] == target["name"]:
        pems = [source["bundle"]["pem"]]
    else:
        pems = [held["pem"] for held in target["trusts"] if held["name"] == source["name"]]
    return tuple(one for pem in pems for one in load_pem(pem.encode()))


def _table(rows: Sequence[dict[str, Any]]) -> None:
    columns = [
        ("VERIFIER", text("verifier")),
        ("BELIEVES", lambda row: "yes" if row["believed"] else "NO"),
        ("WHY", text("reason")),
    ]
    print_table(rows, columns, empty="no verifier was asked")
