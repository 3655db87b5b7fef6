"""`federation ca install`: what an offline root signed comes home to whoever asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from federation.cli.arguments import HASH
from federation.cli.call import ask
from federation.cli.confirm import confirmed
from federation.cli.output import emit, fail, output_option
from federation.cli.paths import GivenPath
from federation.errors import FederationError


@click.command()
@click.argument("file", type=GivenPath(dir_okay=False, path_type=Path))
@click.option(
    "--expect-root",
    type=HASH,
    help="The fingerprint of the root, as `federation ca init` showed it: needed once, when nothing is pinned yet.",
)
@output_option
@click.pass_context
def install(ctx: click.Context, file: Path, expect_root: str | None, output: str) -> None:
    """Install the answers of the root in FILE: at the hub for all clusters, at an agent for its own.

    Only what was asked for with a key that is here is kept. The first answer at a hub pins the root, for ever: compare
    its fingerprint with the one that was written down when the root was made.

    At the hub FILE may also be the root that is to follow (`federation ca init --follows`). It is kept if the pinned
    root has handed over to it, and changes nothing until `federation ca rotate root start`.

    \b
    Examples:
      federation ca install hub.answers
      federation ca install hub.answers --expect-root "$FINGERPRINT"
      federation ca install next.root
    """
    from federation.api.ceremony_routes import InstallAnswers, InstallNextRoot
    from federation.cli.ca.files import read, read_bytes
    from pki.ceremony import Answers, NextRoot, aloud, encode, kind_of

    if kind_of(read_bytes(file)) is NextRoot:
        following = read(file, NextRoot)
        _expected(file, expect_root, following.root)
        next_root = InstallNextRoot(file=encode(following).decode())
        emit(output, ask(ctx, "PUT", "/v1/ca/next-root", body=next_root), _show_next)
        return
    answers = read(file, Answers)
    root = _expected(file, expect_root, answers.root)
    if expect_root is None and not ask(ctx, "GET", "/v1/ca/requests")["root"]:
        click.echo(f"the root of {answers.base}\n  {aloud(root)}", err=True)
        if not confirmed("Is this the fingerprint that was written down? It is pinned for ever."):
            fail("nothing was installed", "--expect-root names the fingerprint, for whoever cannot be asked")
            ctx.exit(1)
    body = InstallAnswers(file=encode(answers).decode())
    emit(output, ask(ctx, "PUT", "/v1/ca/answers", body=body), _show)


def _expected(file: Path, expected: str | None, certificate: bytes) -> str:
    """The fingerprint of the root in a file. Raises FederationError for another one than is expected."""
    from pki.ceremony import fingerprint_of
    from pki.certificate import load_der
    from pki.errors import Untrusted

    try:
        root = fingerprint_of(load_der(certificate))
    except Untrusted as error:
        raise FederationError(f"{file}: its root cannot be read: {error}", "take the file anew") from error
    if expected is not None and expected != root:
        raise FederationError(
            f"{file} is by the root {root}, and --expect-root names another one",
            "find out which root this federation has before anything is installed",
        )
    return root


def _show_next(done: dict[str, Any]) -> None:
    from pki.ceremony import aloud

    click.echo(f"the root that is to follow is here\n  {aloud(done['root'])}")
    click.echo(f"it follows\n  {aloud(done['follows'])}")
    click.echo("begin to replace it with `federation ca rotate root start`")


def _show(done: dict[str, Any]) -> None:
    for domain in done["kept"]:
        click.echo(f"{domain} is vouched for by the root")
    for domain in done["unasked"]:
        click.echo(f"{domain} was not asked for here, or with another key, and is left out")
