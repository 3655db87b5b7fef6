"""`federation operator`: people and programs that use the hub from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from federation.cli.call import ask, segment
from federation.cli.output import emit, output_option, print_table, text
from federation.cli.paths import GivenPath


@click.group()
def operator() -> None:
    """Give people access to the hub, and take it away."""


@operator.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator"]), default="viewer", show_default=True)
@click.option("--certificate", is_flag=True, help="Make a key and a certificate instead of a bearer token.")
@click.option(
    "--out",
    type=GivenPath(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the credential (0700).",
)
@output_option
@click.pass_context
def create(
    ctx: click.Context,
    name: str,
    role: Literal["viewer", "operator"],
    certificate: bool,
    out: Path,
    output: str,
) -> None:
    """Create the operator NAME and write what it needs to OUT, with a contexts file that uses it.

    \b
    Example:
      federation operator create ada --role operator --out ./ada
      FEDERATION_CONTEXTS=./ada/contexts.yaml federation status
    """
    from federation.operators import create_credential

    made = create_credential(
        lambda body: ask(ctx, "POST", "/v1/operators", body=body), name, role, certificate, out
    )
    emit(output, made, lambda made: click.echo(f"{made['name']} ({made['role']}): {made['contexts']}"))


@operator.command()
@output_option
@click.pass_context
def renew(ctx: click.Context, output: str) -> None:
    """Replace your own certificate, while it is valid, by one that lives 7 days from now.

    It is the certificate in the current context; the key stays. Run it daily and nobody has to think of it.

    \b
    Example:
      FEDERATION_CONTEXTS=./ada/contexts.yaml federation operator renew
    """
    from federation.cli.target import credential
    from federation.operators import renew_credential

    certificate, key = credential(ctx.find_root().obj)
    renewed = renew_credential(lambda body: ask(ctx, "POST", "/v1/renew", body=body), certificate, key)
    emit(
        output,
        renewed,
        lambda renewed: click.echo(f"{renewed['certificate']} is good until {renewed['expires_at']}"),
    )


@operator.command("list")
@output_option
@click.pass_context
def list_(ctx: click.Context, output: str) -> None:
    """List the operators.

    \b
    Example:
      federation operator list
    """
    columns = [("NAME", text("name")), ("ROLE", text("role")), ("BY", text("kind"))]
    emit(
        output,
        ask(ctx, "GET", "/v1/operators"),
        lambda rows: print_table(rows, columns, empty="no operators"),
    )


@operator.command()
@click.argument("name")
@output_option
@click.pass_context
def remove(ctx: click.Context, name: str, output: str) -> None:
    """Take the access of the operator NAME away, at once.

    \b
    Example:
      federation operator remove ada
    """

    def show(done: dict[str, Any]) -> None:
        click.echo(done["done"])

    emit(output, ask(ctx, "DELETE", f"/v1/operators/{segment(name)}"), show)
