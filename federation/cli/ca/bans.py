"""`federation ca ban`, `unban` and `bans`: who is kept out of the federation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from federation.cli.arguments import REASON
from federation.cli.call import ask
from federation.cli.output import emit, output_option, print_table, quoted, text, when
from federation.cli.paths import GivenPath
from federation.errors import InputError

Kind = Literal["cluster", "identity", "key"]

certificate_option = click.option(
    "--certificate",
    type=GivenPath(exists=True, dir_okay=False, path_type=Path),
    help="Instead of SUBJECT: the key of the first certificate in this PEM file.",
)


@click.command()
@click.argument("subject", required=False)
@click.option(
    "--reason", type=REASON, required=True, help="For everybody who is turned away, and for the journal."
)
@click.option("--unknown", is_flag=True, help="Also a cluster that has not joined: its name is kept out.")
@certificate_option
@output_option
@click.pass_context
def ban(
    ctx: click.Context,
    subject: str | None,
    reason: str,
    unknown: bool,
    certificate: Path | None,
    output: str,
) -> None:
    """Keep SUBJECT out: a cluster, a SPIFFE ID, or a key by the SHA-256 of its SubjectPublicKeyInfo. Made at the hub.

    Its streams are cut, it gets no certificates, and where it is a cluster or the identity of its gateways, the others
    drop its tunnels and use their remaining clusters. All gateways of one class in a cluster have one identity, so
    banning it bans them all. Banning a key keeps one of them from its agent; the others let it in until its
    certificate ends, a day later at most.

    \b
    Examples:
      federation ca ban west --reason 'its nodes were broken into'
      federation ca ban spiffe://west.mesh.example/ns/shop/sa/cart --reason 'token leaked'
      federation ca ban --certificate stolen.pem --reason 'laptop lost'
    """
    from federation.api.ban_routes import NewBan

    kind, named = _named(subject, certificate)
    made = ask(
        ctx, "POST", "/v1/ca/bans", body=NewBan(kind=kind, subject=named, reason=reason, unknown=unknown)
    )
    emit(
        output, made, lambda made: click.echo(f"{made['kind']} {made['subject']} is banned: {made['reason']}")
    )


@click.command()
@click.argument("subject", required=False)
@certificate_option
@output_option
@click.pass_context
def unban(ctx: click.Context, subject: str | None, certificate: Path | None, output: str) -> None:
    """Take the ban of SUBJECT back; whoever was cut off comes back by itself.

    \b
    Example:
      federation ca unban west
    """
    from federation.api.ban_routes import EndBan

    kind, named = _named(subject, certificate)
    done = ask(ctx, "POST", "/v1/ca/bans/end", body=EndBan(kind=kind, subject=named))
    emit(output, done, lambda done: click.echo(done["done"]))


@click.command()
@output_option
@click.pass_context
def bans(ctx: click.Context, output: str) -> None:
    """List who is banned, as the asked process knows it.

    \b
    Example:
      federation ca bans
    """
    columns = [
        ("KIND", text("kind")),
        ("SUBJECT", text("subject")),
        ("SINCE", when("since")),
        ("REASON", text("reason")),
    ]
    emit(
        output,
        ask(ctx, "GET", "/v1/ca/bans"),
        lambda rows: print_table(rows, columns, empty="nobody is banned"),
    )


def _named(subject: str | None, certificate: Path | None) -> tuple[Kind, str]:
    """What is meant; the three kinds of names have nothing in common."""
    from pki.digest import is_digest, plain
    from pki.errors import InvalidSpiffeId
    from pki.names import is_dns_label
    from pki.spiffe import SCHEME, SpiffeId

    if (subject is None) == (certificate is None):
        raise click.UsageError("name one: SUBJECT or --certificate")
    if certificate is not None:
        return "key", _key_of(certificate)
    assert subject is not None
    if subject.startswith(SCHEME):
        try:
            return "identity", str(SpiffeId.parse(subject))
        except InvalidSpiffeId as error:
            raise click.UsageError(str(error)) from error
    if is_digest(digest := plain(subject)):
        return "key", digest
    if not is_dns_label(subject):
        raise click.UsageError(
            f"{quoted(subject)} is neither the name of a cluster, nor a SPIFFE ID, nor the SHA-256 of a key"
        )
    return "cluster", subject


def _key_of(file: Path) -> str:
    from federation.cli.ca.files import read_bytes
    from pki.algorithms import spki_hash
    from pki.certificate import load_pem, public_key
    from pki.errors import Untrusted

    try:
        return spki_hash(public_key(load_pem(read_bytes(file))[0]))
    except Untrusted as error:
        raise InputError("holds no certificate", file=str(file), allowed="certificates in PEM") from error
