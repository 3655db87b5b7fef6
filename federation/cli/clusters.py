"""`federation cluster`: the registry of the hub."""

from __future__ import annotations

from typing import Any

import click

from federation.cli.arguments import CLUSTER
from federation.cli.call import ask, segment
from federation.cli.confirm import confirmed
from federation.cli.output import Row, emit, fail, output_option, print_table, printable, span, text, when


@click.group()
def cluster() -> None:
    """Show, change and remove the clusters of the federation."""


@cluster.command("list")
@output_option
@click.pass_context
def list_(ctx: click.Context, output: str) -> None:
    """List the clusters, and whether their agents are connected.

    \b
    Example:
      federation cluster list
    """
    columns = [
        ("NAME", text("name")),
        ("REGION", text("region")),
        ("STATE", state_of),
        ("AGENT", agent_state),
        ("GATEWAYS", lambda row: str(len(row["gateways"]))),
        ("EXPORTS", text("exports")),
        ("JOINED", when("joined_at")),
    ]
    empty = "no clusters yet; make a token with `federation token create`"
    emit(output, ask(ctx, "GET", "/v1/clusters"), lambda rows: print_table(rows, columns, empty=empty))


def state_of(row: Row) -> str:
    """What an operator made of a cluster: a ban counts for more than the state that it has besides."""
    return "banned" if row["banned"] else str(row["state"])


def agent_state(row: Row) -> str:
    if row["connected"]:
        return "connected"
    return "never seen" if row["silence"] is None else f"silent {span(row['silence'])}"


@cluster.command()
@click.argument("name", type=CLUSTER)
@output_option
@click.pass_context
def show(ctx: click.Context, name: str, output: str) -> None:
    """Show everything the hub knows of the cluster NAME.

    What it may not export its own agent holds back, and the hub hears no more of it: `federation check` says what that
    is, and why.

    \b
    Example:
      federation cluster show east
    """
    emit(output, ask(ctx, "GET", f"/v1/clusters/{segment(name)}"), show_cluster)


def show_cluster(row: dict[str, Any]) -> None:
    """Print what the hub knows of one cluster, a line each."""
    gateways = [f"{gateway['name']} {gateway['address']}" for gateway in row["gateways"]]
    for label, value in (
        ("name", row["name"]),
        ("trust domain", row["trust_domain"]),
        ("region", row["region"]),
        ("state", row["state"]),
        ("agent", agent_state(row)),
        ("joined", row["joined_at"]),
        ("may export", ", ".join(row["may_export"])),
        ("ranges", ", ".join(row["ranges"])),
        ("exports", row["exports"]),
    ):
        click.echo(f"{label + ':':14}{printable(str(value or '-'))}")
    if row["banned"]:
        click.echo(f"{'banned:':14}{printable(row['banned'])}")
    for label, values in (("gateways", gateways), ("refused", row["refused"])):
        for place, value in enumerate(values or ("-",)):
            click.echo(f"{label + ':' if place == 0 else '':14}{printable(value)}")


@cluster.command("set")
@click.argument("name", type=CLUSTER)
@click.option("--may-export", multiple=True, metavar="PATTERN", help="Replaces the patterns. Repeatable.")
@click.option(
    "--range", "ranges", multiple=True, metavar="CIDR", help="Replaces the address ranges. Repeatable."
)
@click.option(
    "--state", type=click.Choice(["active", "draining", "drained", "quarantined"]), help="The new state."
)
@output_option
@click.pass_context
def set_(
    ctx: click.Context,
    name: str,
    may_export: tuple[str, ...],
    ranges: tuple[str, ...],
    state: str | None,
    output: str,
) -> None:
    """Change what the cluster NAME may do. What is not named stays as it is.

    The answer lists what the hub stops relaying. From then on the cluster's own agent holds it back, and
    `federation check` says what that is, and why.

    \b
    Examples:
      federation cluster set east --may-export 'default/*' --may-export 'shop/*'
      federation cluster set east --state quarantined
    """
    from federation.api.messages import SetCluster

    if not (may_export or ranges or state):
        raise click.UsageError("nothing to change: give --may-export, --range or --state")
    change = SetCluster(may_export=may_export or None, ranges=ranges or None, state=state)  # type: ignore[arg-type]
    emit(output, ask(ctx, "PUT", f"/v1/clusters/{segment(name)}", body=change), show_cluster)


@cluster.command()
@click.argument("name", type=CLUSTER)
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool, output: str) -> None:
    """Remove the cluster NAME: nobody trusts it any more, and it needs a new token to come back.

    \b
    Examples:
      federation cluster remove east
      federation cluster remove east --yes
    """
    path = f"/v1/clusters/{segment(name)}"
    if not yes:
        ask(ctx, "GET", path)
        if not confirmed(f"Remove {name}? Its gateways are cut off and its services disappear elsewhere."):
            fail(f"{name} stays", "nothing was changed; --yes answers for whoever cannot be asked")
            ctx.exit(1)
    emit(output, ask(ctx, "DELETE", path), lambda done: click.echo(done["done"]))
