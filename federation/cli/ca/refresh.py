"""`federation ca refresh`: fetch the bundle of a trust domain outside now."""

from __future__ import annotations

from typing import Any

import click

from federation.cli.call import ask, segment
from federation.cli.output import emit, output_option, printable


@click.command()
@click.argument("trust_domain")
@output_option
@click.pass_context
def refresh(ctx: click.Context, trust_domain: str, output: str) -> None:
    """Fetch the bundle of TRUST_DOMAIN, which `federates` of the asked process names, without waiting for its turn.

    Exit code 1 if it could not be brought up to date; what is held then stays.

    \b
    Example:
      federation ca refresh partner.example
    """
    found = ask(ctx, "POST", f"/v1/bundles/{segment(trust_domain)}/look")
    emit(output, found, _show)
    if found["problem"]:
        ctx.exit(1)


def _show(found: dict[str, Any]) -> None:
    held = "nothing" if found["sequence"] is None else f"sequence {found['sequence']}"
    click.echo(f"{found['trust_domain']}: {held} is held")
    if found["problem"]:
        click.secho(f"‼ {printable(found['problem'])}", fg="yellow")
