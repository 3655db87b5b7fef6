"""`federation status` and `federation check`: how things are, and what is wrong."""

from __future__ import annotations

from typing import Any

import click

from federation.cli.call import ask
from federation.cli.clusters import agent_state, state_of
from federation.cli.output import emit, output_option, print_table, printable, text, when

MARKS = {"ok": ("✓", "green"), "warning": ("‼", "yellow"), "failure": ("✗", "red")}


@click.command()
@output_option
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show the state of the asked process; at the hub, of all clusters.

    \b
    Examples:
      federation status
      federation --hub unix:///var/lib/federation/agent/api.sock status -o json
    """
    answer = ask(ctx, "GET", "/v1/status")
    shows = {"hub": _hub, "agent": _agent, "gateway": _gateway}
    emit(output, answer, shows[answer["kind"]])
    if answer["problems"] or not answer.get("hub_connected", True):
        ctx.exit(1)


def _problems(answer: dict[str, Any]) -> None:
    for problem in answer["problems"]:
        click.secho(f"‼ {printable(problem)}", fg="yellow")


def _rotations(answer: dict[str, Any]) -> None:
    from federation.cli.ca.rotation import summary

    for rotation in answer["rotations"]:
        click.echo(printable(summary(rotation)))


def _hub(hub: dict[str, Any]) -> None:
    click.echo(f"hub of {hub['base']}, version {hub['version']}, root {hub['root']}")
    print_table(
        hub["clusters"],
        [
            ("CLUSTER", text("name")),
            ("REGION", text("region")),
            ("STATE", state_of),
            ("AGENT", agent_state),
            ("GATEWAYS", lambda row: str(len(row["gateways"]))),
            ("EXPORTS", text("exports")),
            ("LAG", text("lag")),
        ],
        empty="no clusters yet; make a token with `federation token create`",
    )
    _rotations(hub)
    _problems(hub)


def _agent(agent: dict[str, Any]) -> None:
    connected = "connected" if agent["hub_connected"] else "NOT connected"
    why = f": {agent['hub_problem']}" if agent["hub_problem"] else ""
    click.echo(
        f"agent of {agent['cluster']} ({agent['region']}), version {agent['version']}, {connected} to {agent['hub']}"
        f"{printable(why)}"
    )
    print_table(
        agent["gateways"],
        [
            ("GATEWAY", text("name")),
            ("ADDRESS", text("address")),
            ("STATE", text("state")),
            ("CONFIG", lambda row: f"{row['acknowledged']}/{row['snapshot']}"),
            ("ENVOY", text("envoy")),
            ("CERTIFICATE", when("certificate_expires_at")),
            ("REJECTED", lambda row: str(len(row["rejected"]) or "-")),
        ],
        empty="no gateways yet; make a token with `federation token create --gateway`",
    )
    click.echo()
    print_table(
        agent["peers"],
        [
            ("PEER", text("name")),
            ("REGION", text("region")),
            ("STATE", state_of),
            ("LEASE", text("lease")),
            ("PATH", text("path")),
            ("TRUSTED", lambda row: "yes" if row["trusted"] else "no"),
        ],
        empty="no other cluster is known",
    )
    for gateway in agent["gateways"]:
        for rejected in gateway["rejected"]:
            text_ = f"{gateway['name']} refused {rejected['type']} {rejected['name']}: {rejected['error']}"
            click.secho(f"✗ {printable(text_)}", fg="red")
    for behind in agent["behind"]:
        click.secho(f"‼ {printable(behind)}", fg="yellow")
    _rotations(agent)
    _problems(agent)


def _gateway(gateway: dict[str, Any]) -> None:
    for name, value in gateway.items():
        if name not in ("kind", "problems"):
            click.echo(f"{name + ':':24}{printable(str(value))}")
    _problems(gateway)


@click.command()
@output_option
@click.pass_context
def check(ctx: click.Context, output: str) -> None:
    """Check everything that can be checked from the asked process; exit code 1 if something fails.

    \b
    Examples:
      federation check
      federation --hub unix:///var/lib/federation/agent/api.sock check
    """
    groups = ask(ctx, "GET", "/v1/checks")
    emit(output, groups, _checks)
    if any(one["result"] == "failure" for group in groups for one in group["checks"]):
        ctx.exit(1)


def _checks(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        click.secho(group["name"], bold=True)
        for one in group["checks"]:
            mark, colour = MARKS[one["result"]]
            detail = f": {one['detail']}" if one["detail"] else ""
            click.secho(f"  {mark} ", fg=colour, nl=False)
            click.echo(printable(one["name"] + detail))
            if one["hint"] and one["result"] != "ok":
                click.echo(f"      hint: {printable(one['hint'])}")
