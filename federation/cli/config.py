"""`federation config check`: look at a file before a process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from federation.cli.output import emit, output_option, printable
from federation.cli.paths import GivenPath


@click.group()
def config() -> None:
    """Look at configuration files."""


@config.command()
@click.argument("path", type=GivenPath(exists=True, path_type=Path))
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="CIDR",
    help="Also check endpoint addresses against these. Repeatable.",
)
@output_option
@click.pass_context
def check(ctx: click.Context, path: Path, ranges: tuple[str, ...], output: str) -> None:
    """Check a settings file (hub.yaml, agent.yaml, gateway.yaml), or a file or folder of services.

    \b
    Examples:
      federation config check /etc/federation/agent.yaml
      federation config check services/ --range 10.1.0.0/16
    """
    from federation.check_files import check_path

    found = check_path(path, ranges)
    emit(output, {"path": str(path), "kind": found.kind, "problems": list(found.problems)}, _show)
    if found.problems:
        ctx.exit(1)


def _show(answer: dict[str, Any]) -> None:
    for problem in answer["problems"]:
        click.secho("✗ ", fg="red", nl=False)
        click.echo(printable(problem))
    if not answer["problems"]:
        click.secho("✓ ", fg="green", nl=False)
        click.echo(f"{answer['path']} ({answer['kind']}) is fine")
    elif answer["kind"] != "unknown":
        click.echo(f"It was taken for: {answer['kind']}")
