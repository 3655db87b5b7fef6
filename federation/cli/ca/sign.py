"""`federation ca sign`: at the machine of the root, requests become root-signed certificates. No process is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from federation.cli.arguments import HASH
from federation.cli.ca.safe import keys, passphrase_option, place
from federation.cli.confirm import confirmed
from federation.cli.output import emit, fail, output_option, print_table, text
from federation.cli.paths import GivenPath
from federation.errors import FederationError, InputError

if TYPE_CHECKING:
    from pki.ceremony import Asked, Requests
    from pki.root import RootAuthority


@click.command()
@click.argument("requests", nargs=-1, required=True, type=GivenPath(dir_okay=False, path_type=Path))
@click.option(
    "--root",
    "folder",
    type=GivenPath(file_okay=False, exists=True, path_type=Path),
    required=True,
    help="The folder of the root.",
)
@click.option(
    "--out", type=GivenPath(dir_okay=False, path_type=Path), required=True, help="The answers: a new file."
)
@click.option("--expect", type=HASH, multiple=True, help="The fingerprint that a file has. Repeatable.")
@click.option("--yes", is_flag=True, help="Do not ask; every file needs its --expect.")
@click.option(
    "--name-constraints",
    is_flag=True,
    help="Name in each certificate the one trust domain that it may certify (RFC 5280, critical).",
)
@passphrase_option
@output_option
def sign(
    requests: tuple[Path, ...],
    folder: Path,
    out: Path,
    expect: tuple[str, ...],
    yes: bool,
    name_constraints: bool,
    passphrase_file: Path | None,
    output: str,
) -> None:
    """Sign what the files REQUESTS ask for, after you have compared their fingerprints with whoever made them.

    Only the rule of the root is signed: an authority of a cluster or of the hub, under the name that stands there. What
    was signed is in the journal of the root. Name constraints bind whoever trusts the root itself; pyca and rustls
    (ztunnel, Linkerd) refuse whatever is below them.

    \b
    Examples:
      federation ca sign hub.requests --root ./root --out hub.answers
      federation ca sign hub.requests --root ./root --out hub.answers --expect "$FINGERPRINT" --yes
    """
    from pki.ceremony import LONGEST_FILE, encode, fingerprint
    from pki.durable import reserved

    files = [_read(path) for path in requests]
    prints = [fingerprint(file) for file in files]
    expected = [digest in expect for digest in prints]
    for path, digest, known in zip(requests, prints, expected, strict=True):
        if (expect or yes) and not known:
            raise FederationError(
                f"{path} has the fingerprint {digest}, which no --expect names",
                "ask whoever made it what its fingerprint is, by another way than the file took",
            )
    if os.path.lexists(out):
        raise click.BadParameter(f"{out} exists already; name a new file", param_hint="--out")
    with reserved(out, LONGEST_FILE):
        pass  # before anybody is asked for anything
    store = keys(folder, passphrase_file)

    async def ceremony() -> dict[str, Any] | None:
        root, wanted = await _open(folder, store, dict(zip(requests, files, strict=True)), name_constraints)
        try:
            shown = _shown(root, wanted, requests, prints)
            if output == "table":
                _show(shown)
            if not all(expected) and not await asyncio.to_thread(
                confirmed, "Do all fingerprints agree? Sign?"
            ):
                return None
            with reserved(out, LONGEST_FILE, 0o644) as publish:
                answers = await _sign(root, wanted, prints)
                publish(encode(answers))
        finally:
            await root.close()
        return shown | {"file": str(out), "fingerprint": fingerprint(answers)}

    done = asyncio.run(ceremony())
    if done is None:
        fail("nothing was signed", "--expect names a fingerprint, for whoever cannot be asked")
        click.get_current_context().exit(1)
    emit(output, done, _show_done)


def _read(path: Path) -> Requests:
    from federation.cli.ca.files import read
    from pki.ceremony import Requests

    return read(path, Requests)


async def _open(
    folder: Path, store: Any, files: Mapping[Path, Requests], constrained: bool
) -> tuple[RootAuthority, tuple[Asked, ...]]:
    """The root, and what it is asked for, if its rule and its clock allow it. Raises FederationError, which names the
    file that is refused.
    """
    from federation.clock import SystemClock
    from pki.ceremony import asked
    from pki.safe import base_at, open_root
    from pki.skew import check_forward

    clock, base = SystemClock(), await base_at(place(folder))
    root = await open_root(place(folder), store, base, clock, constrained)
    try:
        for path, file in files.items():
            check_forward(clock.now(), file.made_at, "the request that is to be signed")
            with _refused(path):
                for one in asked((file,), root.certificate, base):
                    await root.check_cluster_ca(one.csr, one.subordinate.trust_domain, newest=True)
        wanted = asked(tuple(files.values()), root.certificate, base)
    except BaseException:
        await root.close()
        raise
    return root, wanted


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What is wrong with the requests in `path` names it."""
    from pki.errors import CeremonyFile, InvalidSpiffeId, Refused

    try:
        yield
    except CeremonyFile as error:
        raise InputError(error.reason, file=str(path), hint=error.hint) from error
    except InvalidSpiffeId as error:
        raise InputError(str(error), file=str(path)) from error
    except Refused as error:
        raise FederationError(f"{path}: {error}", "nothing was signed") from error


async def _sign(root: RootAuthority, wanted: Sequence[Asked], prints: Sequence[str]) -> Any:
    from federation.clock import SystemClock
    from pki.ceremony import Answers, now_in_seconds
    from pki.certificate import der

    why = f"ceremony, requests {', '.join(digest[:16] for digest in prints)}"
    signed = [
        await root.sign_cluster_ca(
            one.csr, one.subordinate.trust_domain, who=str(one.subordinate.trust_domain), why=why
        )
        for one in wanted
    ]
    return Answers(
        base=root.base,
        made_at=now_in_seconds(SystemClock().now()),
        root=der(root.certificate),
        certificates=tuple(map(der, signed)),
    )


def _shown(
    root: RootAuthority, wanted: Sequence[Asked], paths: Sequence[Path], prints: Sequence[str]
) -> dict[str, Any]:
    from federation.clock import SystemClock
    from pki.ceremony import fingerprint_of

    now = SystemClock().now()
    rows = []
    for one in wanted:
        planned = one.subordinate.template(root.certificate, 1, now)
        rows.append(
            {
                "trust_domain": str(one.subordinate.trust_domain),
                "key_id": planned.subject_key_id.hex(),
                "epoch": one.subordinate.epoch,
                "instead_of": _instead_of(root, one),
                "not_before": planned.not_before,
                "not_after": planned.not_after,
            }
        )
    return {
        "base": root.base,
        "root": fingerprint_of(root.certificate),
        "requests": [
            {"file": str(path), "fingerprint": digest} for path, digest in zip(paths, prints, strict=True)
        ],
        "signs": rows,
    }


def _instead_of(root: RootAuthority, one: Asked) -> str:
    """What the others go by now: nothing yet, the same key, or another one, whose holder is then shut out."""
    from pki.algorithms import spki_hash

    before = root.newest(one.subordinate.trust_domain)
    if before is None:
        return "nothing"
    same = before.spki == spki_hash(one.subordinate.key)
    return "the same key" if same else f"the key of epoch {before.epoch}"


def _show(shown: dict[str, Any]) -> None:
    from pki.ceremony import aloud

    click.echo(f"root of {shown['base']}\n  {aloud(shown['root'])}", err=True)
    for one in shown["requests"]:
        click.echo(f"{one['file']}\n  {aloud(one['fingerprint'])}", err=True)
    click.echo(err=True)
    print_table(
        shown["signs"],
        [
            ("SIGNS", text("trust_domain")),
            ("KEY", lambda row: str(row["key_id"])[:16]),
            ("EPOCH", text("epoch")),
            ("INSTEAD OF", text("instead_of")),
            ("UNTIL", lambda row: f"{row['not_after']:%Y-%m-%d}"),
        ],
        empty="nothing",
    )


def _show_done(done: dict[str, Any]) -> None:
    from pki.ceremony import aloud

    click.echo(f"{done['file']} has {len(done['signs'])} signed; its fingerprint is")
    click.echo(f"  {aloud(done['fingerprint'])}")
