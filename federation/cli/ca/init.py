"""`federation ca init --offline`: a new root, made on a machine that no network reaches, without any process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from federation.cli.ca.safe import KEYS, keys, passphrase_option, place
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
@click.option(
    "--follows",
    type=GivenPath(file_okay=False, exists=True, path_type=Path),
    help="The folder of the root that it is to take the place of.",
)
@click.option(
    "--hand-over",
    type=GivenPath(dir_okay=False, path_type=Path),
    help="With --follows: a new file with all that the hub needs, for `federation ca install`.",
)
@passphrase_option
@click.option(
    "--follows-passphrase-file",
    type=GivenPath(dir_okay=False, path_type=Path),
    help="Of the root before, where it has a passphrase of its own.",
)
@output_option
def init(
    offline: bool,
    base: str,
    out: Path,
    follows: Path | None,
    hand_over: Path | None,
    passphrase_file: Path | None,
    follows_passphrase_file: Path | None,
    output: str,
) -> None:
    """Make the root of a federation: a key, encrypted with a passphrase, and its certificate for ten years.

    Write the fingerprint down: whoever installs something that this root signed compares it. With --follows it is the
    root that takes the place of another one, whose key is needed once more: a root that is in --out already is taken as
    it is.

    \b
    Examples:
      federation ca init --offline --base mesh.example --out ./root
      federation ca init --offline --base mesh.example --out ./root-2 --follows ./root --hand-over next.root
    """
    from federation.written import Base
    from pki.ceremony import LONGEST_FILE
    from pki.durable import reserved, tentative_folder
    from pki.errors import KeyFileError
    from pki.root import RootAuthority

    if not offline:
        raise click.UsageError(
            "an online root is made by `federation serve` at its first start; give --offline"
        )
    if (follows is None) != (hand_over is None):
        raise click.UsageError("--follows and --hand-over belong together")
    if follows is None and follows_passphrase_file is not None:
        raise click.UsageError("--follows-passphrase-file is for --follows")
    try:
        domain = str(Base.parse(base))
    except ValueError as error:
        raise click.BadParameter(f"{base!r} {error}; allowed: {Base.allowed}", param_hint="--base") from error
    if follows is None or hand_over is None:
        if RootAuthority.exists(place(out)):
            raise KeyFileError(place(out), "holds a root already; it is never replaced")
        with tentative_folder(out), tentative_folder(out / KEYS):
            store = keys(out, passphrase_file, new=True)
            made = asyncio.run(_made(out, domain, store))
        emit(output, made, _show)
        return
    if os.path.lexists(hand_over):
        raise click.BadParameter(f"{hand_over} exists already; name a new file", param_hint="--hand-over")
    with reserved(hand_over, LONGEST_FILE):
        pass  # before anybody is asked for anything
    if out.resolve() == follows.resolve():
        raise click.BadParameter("it is the folder of the root before", param_hint="--out")
    old = keys(follows, follows_passphrase_file or passphrase_file)
    with tentative_folder(out), tentative_folder(out / KEYS):
        new = keys(out, passphrase_file, new=not RootAuthority.exists(place(out)))
        made = asyncio.run(_followed(domain, follows, old, out, new, hand_over))
    emit(output, made, _show)


async def _made(folder: Path, base: str, store: Any, epoch: int = 1) -> dict[str, Any]:
    from federation.clock import SystemClock
    from pki.root import RootAuthority

    root = await RootAuthority.create(place(folder), store, base, SystemClock(), epoch=epoch)
    try:
        return _told(root, folder)
    finally:
        await root.close()


async def _followed(
    base: str, before: Path, before_keys: Any, folder: Path, store: Any, file: Path
) -> dict[str, Any]:
    """Make the root in `folder` if it is not there, and let the one in `before` hand over to it."""
    from federation.clock import SystemClock
    from pki.ceremony import LONGEST_FILE, encode, fingerprint, fingerprint_of
    from pki.durable import reserved
    from pki.root import RootAuthority
    from pki.safe import hand_over, open_root, remembered

    clock = SystemClock()
    old = await open_root(place(before), before_keys, base, clock)
    try:
        if not RootAuthority.exists(place(folder)):
            epoch = (await remembered(place(before), old)).epoch + 1
            await _made(folder, base, store, epoch)
        new = await open_root(place(folder), store, base, clock)
        try:
            with reserved(file, LONGEST_FILE, 0o644) as publish:
                made = await hand_over(old, place(before), new, place(folder), clock.now())
                publish(encode(made))
            follows = {"follows": fingerprint_of(old.certificate), "file": str(file)}
            return _told(new, folder) | follows | {"file_fingerprint": fingerprint(made)}
        finally:
            await new.close()
    finally:
        await old.close()


def _told(root: Any, folder: Path) -> dict[str, Any]:
    from pki.ceremony import fingerprint_of

    return {
        "base": root.base,
        "folder": str(folder),
        "fingerprint": fingerprint_of(root.certificate),
        "not_after": root.certificate.not_valid_after_utc,
    }


def _show(made: dict[str, Any]) -> None:
    from pki.ceremony import aloud

    click.echo(f"root of {made['base']}, until {made['not_after']:%Y-%m-%d}, in {made['folder']}")
    click.echo(f"fingerprint  {aloud(made['fingerprint'])}")
    if "file" in made:
        click.echo(f"it follows   {aloud(made['follows'])}")
        click.echo(f"{made['file']} is for `federation ca install` at the hub; its fingerprint is")
        click.echo(f"  {aloud(made['file_fingerprint'])}")
