"""`federation ca request`: what hub or agent want an offline root to sign, as a file that may travel on a stick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from federation.cli.call import ask
from federation.cli.output import emit, output_option, print_table, text
from federation.cli.paths import GivenPath
from federation.errors import FederationError


@click.command()
@click.option(
    "--out",
    type=GivenPath(dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    help="The requests: a new file, or - for standard output.",
)
@output_option
@click.pass_context
def request(ctx: click.Context, out: Path, output: str) -> None:
    """Write what waits for the root to OUT: at the hub of all clusters, at an agent of its own.

    Carry the file to the machine of the root, and read its fingerprint to whoever signs there. It holds no secret. If
    nobody waits there is no file, and the exit code is 1.

    \b
    Examples:
      federation ca request --out hub.requests
      federation --hub unix:///var/lib/federation/agent/api.sock ca request --out east.requests
    """
    from pki.durable import create
    from pki.errors import WriteError

    to_stdout = str(out) == "-"
    if to_stdout and output != "table":
        raise click.UsageError("--out - prints the file, and -o what is in it; give one")
    found = ask(ctx, "GET", "/v1/ca/requests")
    if not found["requests"]:
        emit(output, found, lambda _: click.echo("nobody waits for the root", err=to_stdout))
        ctx.exit(1)
    if to_stdout:
        click.echo(found["file"], nl=False)
        _show_fingerprint(found | {"file": "it"}, err=True)
        return
    try:
        create(out, found.pop("file").encode(), 0o644)
    except WriteError as error:
        raise FederationError(str(error), "choose a new file for --out") from error
    emit(output, found | {"file": str(out)}, _show)


def _show(found: dict[str, Any]) -> None:
    columns = [
        ("ASKS", text("trust_domain")),
        ("KEY", lambda row: str(row["key_id"])[:16]),
        ("EPOCH", text("epoch")),
    ]
    print_table(found["requests"], columns, empty="")
    _show_fingerprint(found, err=False)


def _show_fingerprint(found: dict[str, Any], *, err: bool) -> None:
    from pki.ceremony import aloud

    if found["left_out"]:
        click.echo(f"and {found['left_out']} more: they come with the next file", err=err)
    click.echo(f"{found['file']} has the fingerprint\n  {aloud(found['fingerprint'])}", err=err)
