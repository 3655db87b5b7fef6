"""`federation ca init --offline`: a new root, made on a machine that no network reaches, without any process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from federation.cli.ca.safe import keys, passphrase_option, place
from federation.cli.output import emit, output_option
from federation.cli.paths import GivenPath


@click.command()
@click.option("--offline", is_flag=True, help="The key stays on this machine, which should have no network.")
@click.option("--base", required=True, metavar="DOMAIN", help="The domain of the federation: mesh.example.")
@click.option(
    "--out",
    type=GivenPath(file_okay=False, path_type=Path),
    required=True,
    help="The folder of the root (0700); a stick in a safe will do.",
)
@passphrase_option
@output_option
def init(offline: bool, base: str, out: Path, passphrase_file: Path | None, output: str) -> None:
    """Make the root of a federation: a key, encrypted with a passphrase, and its certificate for ten years.

    Write the fingerprint down: whoever installs something that this root signed compares it.

    \b
    Example:
      federation ca init --offline --base mesh.example --out ./root
    """
    from federation.written import Base
    from pki.errors import KeyFileError
    from pki.root import RootAuthority

    if not offline:
        raise click.UsageError(
            "an online root is made by `federation serve` at its first start; give --offline"
        )
    try:
        domain = Base.parse(base)
    except ValueError as error:
        raise click.BadParameter(f"{base!r} {error}; allowed: {Base.allowed}", param_hint="--base") from error
    if RootAuthority.exists(place(out)):
        raise KeyFileError(place(out), "holds a root already; it is never replaced")
    emit(output, asyncio.run(_made(out, str(domain), keys(out, passphrase_file, new=True))), _show)


async def _made(folder: Path, base: str, store: Any) -> dict[str, Any]:
    from federation.clock import SystemClock
    from pki.ceremony import fingerprint_of
    from pki.root import RootAuthority

    root = await RootAuthority.create(place(folder), store, base, SystemClock())
    try:
        return {
            "base": base,
            "folder": str(folder),
            "fingerprint": fingerprint_of(root.certificate),
            "not_after": root.certificate.not_valid_after_utc,
        }
    finally:
        await root.close()


def _show(made: dict[str, Any]) -> None:
    from pki.ceremony import aloud

    click.echo(f"root of {made['base']}, until {made['not_after']:%Y-%m-%d}, in {made['folder']}")
    click.echo(f"fingerprint  {aloud(made['fingerprint'])}")
