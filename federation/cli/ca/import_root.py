"""`federation ca import-root`: a root that an organisation has already becomes the root of a federation."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from federation.cli.arguments import HASH
from federation.cli.ca.safe import KEYS, keys, passphrase_option, place
from federation.cli.call import ask
from federation.cli.confirm import confirmed
from federation.cli.output import emit, fail, output_option, printable, quoted
from federation.cli.paths import GivenPath
from federation.errors import FederationError, InputError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec


ALONE = re.compile(rb"\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*")
"""What stands around a certificate would not be imported: a key that came along with it, above all."""


@click.command("import-root")
@click.argument("certificate", type=GivenPath(dir_okay=False, path_type=Path))
@click.option(
    "--key",
    type=GivenPath(dir_okay=False, path_type=Path),
    help="Its private key (PEM, 0600): makes a folder to sign with. Without it the certificate is pinned at the hub.",
)
@click.option("--base", metavar="DOMAIN", help="With --key: the domain of the federation.")
@click.option(
    "--out",
    type=GivenPath(file_okay=False, path_type=Path),
    help="With --key: the folder of the root (0700).",
)
@click.option("--expect", type=HASH, help="The fingerprint that it has; otherwise you are asked.")
@passphrase_option
@output_option
@click.pass_context
def import_root(
    ctx: click.Context,
    certificate: Path,
    key: Path | None,
    base: str | None,
    out: Path | None,
    expect: str | None,
    passphrase_file: Path | None,
    output: str,
) -> None:
    """Take over the root in CERTIFICATE (PEM), if it keeps the rules of a root; all that it breaks is said.

    With --key a folder is made, on the machine of the root, for `federation ca sign`. Without it the hub that is asked,
    whose root is offline and not pinned yet, pins it before anything that it signed arrives.

    \b
    Examples:
      federation ca import-root corp-root.pem --key corp-root.key --base mesh.example --out ./root
      federation ca import-root corp-root.pem
    """
    from federation.written import Base
    from pki.ceremony import aloud, fingerprint_of
    from pki.certificate import readable

    if (key is None) != (out is None) or (key is None) != (base is None):
        raise click.UsageError("--key, --base and --out belong together")
    try:
        base = None if base is None else str(Base.parse(base))
    except ValueError as error:
        raise click.BadParameter(
            f"{quoted(str(base))} {error}; allowed: {Base.allowed}", param_hint="--base"
        ) from error
    root = _read(certificate)
    private = None if key is None else _read_key(key)
    if private is not None and private.public_key() != root.public_key():
        raise InputError(
            f"is not the key of {certificate}", file=str(key), hint="bring both that belong together"
        )
    digest = fingerprint_of(root)
    if expect is not None and expect != digest:
        raise FederationError(f"{certificate} has the fingerprint {digest}, and --expect names another one")
    if expect is None:
        click.echo(f"{printable(readable(root.subject))}\n  {aloud(digest)}", err=True)
        if not confirmed("Is this the root? All members will pin it."):
            fail("nothing was imported", "--expect names the fingerprint, for whoever cannot be asked")
            ctx.exit(1)
    if private is None or out is None or base is None:
        from federation.api.ceremony_routes import PinRoot
        from pki.certificate import pem

        body = PinRoot(certificate=pem([root]).decode())
        pinned = ask(ctx, "PUT", "/v1/ca/root", body=body)
        emit(output, pinned, lambda one: click.echo(f"pinned  {aloud(one['root'])}"))
        return
    made = asyncio.run(_made(out, base, root, private, passphrase_file))
    emit(output, made, lambda one: click.echo(f"root of {one['base']} is in {one['folder']}"))


def _read(path: Path) -> x509.Certificate:
    from federation.cli.ca.files import read_bytes
    from federation.clock import SystemClock
    from pki.certificate import load_pem
    from pki.errors import Untrusted
    from pki.root_rules import root_faults

    alone, data = "one certificate in PEM, and nothing else", read_bytes(path)
    try:
        (root,) = load_pem(data, most=1)
    except (Untrusted, ValueError) as error:
        raise InputError(f"{error}", file=str(path), allowed=alone) from error
    if not ALONE.fullmatch(data):
        raise InputError("holds more than a certificate", file=str(path), allowed=alone)
    if faults := root_faults(root, SystemClock().now()):
        raise InputError(
            "it cannot be the root of a federation: " + "; ".join(faults),
            file=str(path),
            hint="make one that keeps these rules, or a new one with `federation ca init`",
        )
    return root


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from pki.durable import read_private
    from pki.keys.file import LONGEST_KEY_FILE

    try:
        found = serialization.load_pem_private_key(read_private(path, LONGEST_KEY_FILE), password=None)
    except FileNotFoundError as error:
        raise InputError("cannot be read: No such file or directory", file=str(path)) from error
    except (ValueError, TypeError):
        # The cause is dropped on purpose: parsers may quote what they could not parse.
        raise InputError(
            "not a private key that can be read",
            file=str(path),
            allowed="PEM without a passphrase; the folder that is made has one",
        ) from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise InputError("not an elliptic-curve key", file=str(path), allowed="P-256 or P-384")
    return found


async def _made(
    folder: Path,
    base: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    secret: Path | None,
) -> dict[str, Any]:
    from federation.clock import SystemClock
    from pki.ceremony import fingerprint_of
    from pki.durable import tentative_folder
    from pki.root import RootAuthority

    with tentative_folder(folder), tentative_folder(folder / KEYS):
        store = keys(folder, secret, new=True)
        root = await RootAuthority.take_over(place(folder), store, base, certificate, key, SystemClock())
    await root.close()
    return {"base": base, "folder": str(folder), "fingerprint": fingerprint_of(certificate)}
