"""`federation token`: one-time tokens, at the hub for clusters, at an agent for its gateways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from federation.cli.arguments import CLUSTER
from federation.cli.call import ask, segment
from federation.cli.output import emit, output_option, print_table, text, when
from federation.cli.paths import GivenPath
from federation.errors import FederationError
from pki.errors import PkiError

SHORTEST_TTL, LONGEST_TTL = 1.0, 600.0
"""Seconds; a token that lies about for longer is found by somebody else."""


@click.group()
def token() -> None:
    """Make, list and revoke one-time tokens."""


@token.command()
@click.argument("cluster", type=CLUSTER, required=False)
@click.option(
    "--may-export",
    multiple=True,
    metavar="PATTERN",
    help="Services it may export, e.g. 'default/*'. Repeatable.",
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="CIDR",
    help="Where its gateways and endpoints lie. Repeatable.",
)
@click.option(
    "--replace-authority",
    is_flag=True,
    help="CLUSTER is a member that has lost its key, and comes back with another one.",
)
@click.option(
    "--gateway", is_flag=True, help="For a gateway of the asked agent's cluster, instead of a cluster."
)
@click.option(
    "--workload",
    metavar="NAMESPACE/ACCOUNT",
    help="For a workload of the asked agent's cluster, by its service account.",
)
@click.option(
    "--ttl",
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="How long it can be used, 1s to 10m.",
)
@click.option(
    "--out", type=GivenPath(dir_okay=False, path_type=Path), help="Write the token to this new file (0600)."
)
@output_option
@click.pass_context
def create(
    ctx: click.Context,
    cluster: str | None,
    may_export: tuple[str, ...],
    ranges: tuple[str, ...],
    replace_authority: bool,
    gateway: bool,
    workload: str | None,
    ttl: str,
    out: Path | None,
    output: str,
) -> None:
    """Make a one-time token for CLUSTER to join, or for a gateway or a workload to attest.

    Give it to the other side by file or standard input, never as an argument. With --replace-authority the cluster
    keeps the rights that are not given anew; whoever still holds its old key is cut off when the token is used.

    \b
    Examples:
      federation token create east --may-export 'default/*' --range 10.1.0.0/16 --out east.token
      federation token create east --replace-authority --out east.token
      federation --hub unix:///var/lib/federation/agent/api.sock token create --gateway --out gw.token
      federation --hub unix:///var/lib/federation/agent/api.sock token create --workload shop/cart --out cart.token
    """
    from federation.api.messages import NewToken
    from federation.duration import Duration

    if [bool(cluster), gateway, workload is not None].count(True) != 1:
        raise click.UsageError(
            "name a cluster (at the hub), or give --gateway or --workload NAMESPACE/ACCOUNT (at an agent)"
        )
    if replace_authority and not cluster:
        raise click.UsageError("--replace-authority is for a cluster; all others just get another token")
    try:
        lifetime = float(Duration.parse(ttl))
    except ValueError as error:
        raise click.BadParameter(f"{error}; allowed: {Duration.allowed}", param_hint="--ttl") from error
    if not SHORTEST_TTL <= lifetime <= LONGEST_TTL:
        raise click.BadParameter(f"{ttl} is not allowed; allowed: 1s to 10m", param_hint="--ttl")
    if out is not None and os.path.lexists(out):
        raise click.BadParameter(
            f"{out} exists already, and may hold a token that is still good; name a new file",
            param_hint="--out",
        )
    wanted = NewToken(
        cluster=cluster,
        may_export=may_export,
        ranges=ranges,
        replace_authority=replace_authority,
        gateway_class="eastwest" if gateway else None,
        workload=workload,
        lifetime=lifetime,
    )
    created = ask(ctx, "POST", "/v1/tokens", body=wanted)
    if out is not None:
        _keep(ctx, created, out)
    emit(output, created, _show)


def _keep(ctx: click.Context, created: dict[str, Any], out: Path) -> None:
    """Move the token from the answer to the file. One that nobody will ever have is revoked."""
    from pki.durable import create as create_file

    try:
        create_file(out, (created.pop("token") + "\n").encode())
    except PkiError as error:
        ask(ctx, "DELETE", f"/v1/tokens/{segment(created['id'])}")
        raise FederationError(f"{error}; the token is revoked", "choose another file for --out") from error
    created["file"] = str(out)


def _show(created: dict[str, Any]) -> None:
    if "token" in created:
        click.echo(created["token"])
    else:
        click.echo(f"token {created['id']} for {created['subject']} is in {created['file']}")


@token.command("list")
@output_option
@click.pass_context
def list_(ctx: click.Context, output: str) -> None:
    """List tokens: unused, used and expired ones.

    \b
    Examples:
      federation token list
      federation --hub unix:///var/lib/federation/agent/api.sock token list -o json
    """
    columns = [
        ("ID", text("id")),
        ("FOR", text("subject")),
        ("KIND", text("kind")),
        ("STATE", text("state")),
        ("EXPIRES", when("expires_at")),
        ("MAY EXPORT", text("may_export")),
        ("RANGES", text("ranges")),
    ]
    emit(output, ask(ctx, "GET", "/v1/tokens"), lambda rows: print_table(rows, columns, empty="no tokens"))


@token.command()
@click.argument("token_id", metavar="ID")
@output_option
@click.pass_context
def revoke(ctx: click.Context, token_id: str, output: str) -> None:
    """Make the token ID useless. IDs are in `federation token list`.

    \b
    Example:
      federation token revoke 3f9c2a51d07e
    """
    emit(output, ask(ctx, "DELETE", f"/v1/tokens/{segment(token_id)}"), lambda done: click.echo(done["done"]))
