"""`federation ca crl` and `revoke`: what those who trust the root must not believe any more."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click

from federation.cli.arguments import CLUSTER, REASON, SERIAL
from federation.cli.call import ask
from federation.cli.output import emit, output_option, print_table, text, when
from federation.cli.paths import GivenPath

REASONS = (
    "unspecified",
    "key-compromise",
    "ca-compromise",
    "affiliation-changed",
    "superseded",
    "cessation-of-operation",
    "privilege-withdrawn",
)


@click.command()
@click.option(
    "--out", type=GivenPath(dir_okay=False, path_type=Path), help="Write the list, DER, to this file as well."
)
@output_option
@click.pass_context
def crl(ctx: click.Context, out: Path | None, output: str) -> None:
    """Show the root's revocation list, which names authorities: leaves live for a day and are on no list.

    It is published at http://<telemetry address of the hub>/crl/root.crl, and made anew every day.

    \b
    Examples:
      federation ca crl
      federation ca crl --out root.crl && openssl crl -inform DER -in root.crl -noout -text
    """
    from pki.durable import write

    found = ask(ctx, "GET", "/v1/ca/crl")
    if out is not None:
        write(out, base64.b64decode(found["crl"]), mode=0o644)
    emit(output, found, _show)


def _show(found: dict[str, Any]) -> None:
    until = when("next_update")(found)
    click.echo(f"list {found['number']}, made {when('this_update')(found)}, the next one is due {until}")
    columns = [
        ("WHOSE", text("identity", absent="(in older parts of the journal)")),
        ("SERIAL", text("serial")),
        ("REVOKED", when("at")),
        ("REASON", text("reason")),
        ("BY", text("who")),
        ("WHY", text("why")),
    ]
    print_table(found["revoked"], columns, empty="nothing is revoked")


@click.command()
@click.argument("cluster", type=CLUSTER)
@click.option("--serial", type=SERIAL, help="Which of its root-signed authorities, if several live.")
@click.option("--all", "every", is_flag=True, help="All of them that live, those of earlier rotations too.")
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    metavar="REASON",
    required=True,
    help=f"One of RFC 5280: {', '.join(REASONS)}.",
)
@click.option("--why", type=REASON, default="", help="For the journal, and for whoever reads the list here.")
@output_option
@click.pass_context
def revoke(
    ctx: click.Context, cluster: str, serial: str | None, every: bool, reason: str, why: str, output: str
) -> None:
    """Revoke the root-signed authority of CLUSTER, for ever, for all who trust the root and read its list.

    Each rotation leaves one more that lives until its own end: which is meant is said by --serial, or by --all. Inside
    the federation nobody reads lists: there a cluster is banned, or its authority is rotated.

    \b
    Example:
      federation ca revoke west --all --reason key-compromise --why 'its nodes were broken into'
    """
    from federation.api.ban_routes import Revoke

    if every and serial is not None:
        raise click.UsageError("--all revokes every one, and --serial one; give one of them")
    body = Revoke(cluster=cluster, serial=serial, all=every, reason=reason, why=why)  # type: ignore[arg-type]
    done = ask(ctx, "POST", "/v1/ca/revocations", body=body)
    emit(output, done, lambda done: click.echo(done["done"]))
