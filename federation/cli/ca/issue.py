"""`federation ca issue` and `ca renew`: a workload's certificate in a folder. The key is made there, and stays."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from federation.cli.call import WrongArgument, ask
from federation.cli.output import emit, output_option, span
from federation.cli.paths import GivenPath

if TYPE_CHECKING:
    from federation.api.messages import NewCertificate
    from pki.token import JoinToken

AGENT = "/var/lib/federation/agent/api.sock"
NOT_FOUND = 404
FOLDER = GivenPath(file_okay=False, path_type=Path)


@click.command()
@click.argument("spiffe_id", metavar="[SPIFFE-ID]", required=False)
@click.option(
    "--token",
    type=GivenPath(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="A one-time token says who it is for; no operator is needed. FILE is yours, 0600; - is standard input.",
)
@click.option("--out", type=FOLDER, required=True, help="Folder for key, chain and bundle (0700).")
@click.option("--ttl", metavar="DURATION", help="How long it lives; the usual 1h without it.")
@click.option("--force", is_flag=True, help="Replace what is in the folder.")
@output_option
@click.pass_context
def issue(
    ctx: click.Context,
    spiffe_id: str | None,
    token: Path | None,
    out: Path,
    ttl: str | None,
    force: bool,
    output: str,
) -> None:
    """Issue a certificate to a workload: SPIFFE-ID as an operator at the agent, or --token as the workload itself.

    The key is made here and never sent. With a token `federation ca renew` renews it.

    \b
    Examples:
      federation --hub unix:///var/lib/federation/agent/api.sock \\
          ca issue spiffe://east.mesh.example/ns/shop/sa/cart --out ./cart
      federation ca issue --token ./cart.token --out /run/cart
    """
    from federation.workload import CHAIN, KEY

    if (spiffe_id is None) == (token is None):
        raise click.UsageError("name a SPIFFE ID (at an agent, as its operator), or give --token FILE")
    if token is not None and ttl is not None:
        raise click.UsageError("--ttl goes with a SPIFFE ID; a token brings the usual life")
    if not force and any(os.path.lexists(out / name) for name in (CHAIN, KEY)):
        raise click.BadParameter(
            f"{out} has a certificate already; name another folder, or give --force", param_hint="--out"
        )
    if token is not None:
        emit(output, asyncio.run(_redeemed(token, out)), _show)
    else:
        emit(output, _issued(ctx, str(spiffe_id), ttl, out), _show)


@click.command()
@click.argument("folder", type=FOLDER)
@output_option
def renew(folder: Path, output: str) -> None:
    """Replace the certificate in FOLDER by its successor, for a new key, at the agent that issued it.

    Only the latest certificate of a workload is renewed, while it is valid. Run it at half of its life.

    \b
    Example:
      federation ca renew /run/cart
    """
    emit(output, asyncio.run(_renewed(folder)), _show)


def _issued(ctx: click.Context, spiffe_id: str, ttl: str | None, out: Path) -> dict[str, Any]:
    from federation.api.client import Refusal
    from federation.duration import Duration
    from federation.workload import from_operator
    from pki.errors import InvalidSpiffeId
    from pki.spiffe import SpiffeId

    try:
        SpiffeId.parse(spiffe_id)
    except InvalidSpiffeId as error:
        raise click.BadParameter(str(error), param_hint="SPIFFE-ID") from error
    try:
        lifetime = None if ttl is None else float(Duration.parse(ttl))
    except ValueError as error:
        raise click.BadParameter(f"{error}; allowed: {Duration.allowed}", param_hint="--ttl") from error

    def asked(body: NewCertificate) -> Any:
        try:
            return ask(ctx, "POST", "/v1/certificates", body=body)
        except Refusal as error:
            if error.status != NOT_FOUND:
                raise
            raise WrongArgument(
                "agents issue certificates to workloads, and another process was asked",
                f"ask the agent of that cluster: federation --hub unix://{AGENT} ca issue …",
            ) from error

    made = from_operator(asked, spiffe_id, lifetime, out)
    return {
        "spiffe_id": spiffe_id,
        "folder": str(out),
        "expires_at": made.expires_at,
        "requested": made.requested,
        "granted": made.granted,
        "limited_by": made.limited_by,
    }


async def _redeemed(token: Path, out: Path) -> dict[str, Any]:
    from federation.clock import SystemClock
    from federation.workload import from_token

    return _told(await from_token(_token(token), out, SystemClock()), out)


def _token(file: Path) -> JoinToken:
    from federation.api.redeem import read_token
    from pki.token import LONGEST_TEXT, JoinToken

    if str(file) != "-":
        return read_token(file)
    return JoinToken.decode((sys.stdin or io.StringIO()).read(LONGEST_TEXT + 1))


async def _renewed(folder: Path) -> dict[str, Any]:
    from federation.clock import SystemClock
    from federation.workload import renewed

    return _told(await renewed(folder, SystemClock()), folder)


def _told(kept: Any, folder: Path) -> dict[str, Any]:
    from pki.renewal import renew_at

    return {
        "spiffe_id": str(kept.spiffe_id),
        "folder": str(folder),
        "expires_at": kept.chain[0].not_valid_after_utc,
        "renew_at": renew_at(kept.chain[0]),
    }


def _show(made: dict[str, Any]) -> None:
    click.echo(f"{made['spiffe_id']}: {made['folder']}, until {made['expires_at']:%Y-%m-%d %H:%M:%S} UTC")
    if made.get("limited_by"):
        asked = "the usual life" if made["requested"] is None else span(made["requested"])
        click.echo(f"  {span(made['granted'])} instead of {asked}: limited by {made['limited_by']}")
