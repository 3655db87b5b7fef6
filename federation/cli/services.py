"""`federation service` and `federation explain`: what is offered, where it is reached, and why requests go where."""

from __future__ import annotations

from typing import Any

import click

from federation.cli.arguments import CLUSTER
from federation.cli.call import SERVICE, ask
from federation.cli.output import Row, emit, output_option, print_table, printable, span, text

FROM = click.option(
    "--from", "cluster", type=CLUSTER, metavar="CLUSTER", help="As this cluster sees it; needed at the hub."
)


@click.group()
def service() -> None:
    """Show the services of the federation."""


@service.command("list")
@click.option("--from", "cluster", type=CLUSTER, metavar="CLUSTER", help="As this cluster sees it.")
@output_option
@click.pass_context
def list_(ctx: click.Context, cluster: str | None, output: str) -> None:
    """List the services, who exports them, and where clients reach them.

    \b
    Examples:
      federation service list
      federation service list --from east -o json
    """
    columns = [
        ("SERVICE", text("service")),
        ("PORTS", lambda row: ",".join(str(port["port"]) for port in row["ports"])),
        ("EXPORTED BY", _exporters),
        ("REACHED AT", lambda row: ",".join(at for port in row["ports"] for at in port["reach"]) or "-"),
        ("AGE", _age),
    ]
    rows = ask(ctx, "GET", "/v1/services", **{"from": cluster})
    emit(output, rows, lambda rows: print_table(rows, columns, empty="no services are exported"))


def _exporters(row: Row) -> str:
    return ",".join(f"{one['cluster']}({one['healthy']}/{one['total']})" for one in row["exporters"])


def _age(row: Row) -> str:
    ages = [one["age"] for one in row["exporters"] if one.get("age") is not None]
    return span(max(ages)) if ages else "-"


@service.command()
@click.argument("service", type=SERVICE)
@FROM
@output_option
@click.pass_context
def show(ctx: click.Context, service: str, cluster: str | None, output: str) -> None:
    """Show SERVICE (namespace/name), with the host:port where clients in a cluster reach it.

    \b
    Example:
      federation service show default/echo --from east
    """
    emit(output, ask(ctx, "GET", f"/v1/services/{service}", **{"from": cluster}), _show)


def _show(row: dict[str, Any]) -> None:
    click.secho(row["service"], bold=True, nl=False)
    click.echo(f"  ({row['host']})")
    for port in row["ports"]:
        reach = ", ".join(port["reach"]) or "ask with --from CLUSTER where it is reached"
        click.echo(f"  port {port['port']} {port['protocol']}: {reach}")
    for one in row["exporters"]:
        age = "" if one.get("age") is None else f", last heard {span(one['age'])} ago"
        click.echo(f"  {one['cluster']}: {one['healthy']} of {one['total']} healthy{age}")
    for conflict in row["conflicts"]:
        click.secho(f"  conflict: {printable(conflict)}", fg="yellow")


@click.command()
@click.argument("service", type=SERVICE)
@FROM
@output_option
@click.pass_context
def explain(ctx: click.Context, service: str, cluster: str | None, output: str) -> None:
    """Say where requests for SERVICE go from CLUSTER, and why, from that agent's own view.

    Tiers are Envoy's priorities, as in the access log: 0 is used first, each other one when none before it can serve.

    \b
    Example:
      federation explain default/echo --from east
    """
    emit(output, ask(ctx, "GET", f"/v1/explain/{service}", **{"from": cluster}), _explain)


def _explain(plan: dict[str, Any]) -> None:
    columns = [
        ("TIER", lambda row: "-" if row["tier"] is None else f"{row['tier']} {row['name']}".strip()),
        ("CLUSTER", text("cluster")),
        ("SHARE", lambda row: f"{row['share']:.0f}%"),
        ("WEIGHT", text("weight")),
        ("HEALTHY", lambda row: "yes" if row["healthy"] else "no"),
        ("REASON", text("code")),
        ("", text("reason", absent="")),
    ]
    for port in plan["ports"]:
        at = f", reached on port {port['listen_port']}" if port["listen_port"] else f": {port['note']}"
        click.secho(f"{plan['service']}:{port['number']} from {plan['cluster']}{at}", bold=True)
        print_table(port["lines"], columns, empty="  no cluster offers this port")
    if plan["left_out"]:
        click.secho("left out", bold=True)
        print_table(plan["left_out"], columns[1:2] + columns[5:], empty="")
    for one in plan["conflicts"]:
        said = f"{one['winner']} says {one['kept']}, {one['loser']} says {one['dropped']}"
        line = f"conflict in {one['field']}: {said}; the first counts ({one['rule']})"
        click.secho(printable(line), fg="yellow")
