"""`federation ca audit`: what was signed and why, and whether the journals that say so can be believed."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from federation.cli.arguments import CLUSTER, IDENTITY, INSTANT
from federation.cli.call import ask
from federation.cli.output import emit, output_option, print_table, printable, quoted, text, when
from federation.cli.paths import GivenPath

from_option = click.option(
    "--from",
    "cluster",
    type=CLUSTER,
    metavar="CLUSTER",
    help="At the hub: the journals of this cluster instead of the hub's own.",
)
since_option = click.option("--since", type=INSTANT, help="For example 24h, or 2026-11-21T12:00:00Z.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="The newest so many."
)


@click.group(invoke_without_command=True)
@since_option
@click.option("--identity", type=IDENTITY, help="Exactly this identity.")
@limit_option
@from_option
@output_option
@click.pass_context
def audit(
    ctx: click.Context, since: str | None, identity: str | None, limit: int, cluster: str | None, output: str
) -> None:
    """Show what the asked process has signed: for whom, who asked for it, why, and what came of it.

    The root and the hub's authority have their journals at the hub, the authority of a cluster at its agent.

    \b
    Examples:
      federation ca audit --since 24h
      federation ca audit --from east --identity spiffe://east.mesh.example/gateway/eastwest
      federation ca audit show --limit 20
      federation ca audit verify
    """
    if ctx.invoked_subcommand is not None:
        _nothing_before(ctx, ctx.invoked_subcommand)
        return
    columns = [
        ("WHEN", when("at")),
        ("SERIAL", lambda row: row["serial"][:16]),
        ("PROFILE", text("profile")),
        ("IDENTITY", text("identity")),
        ("ASKED BY", text("who")),
        ("WHY", text("why")),
        ("ENDS", when("not_after")),
        ("OUTCOME", lambda row: row["outcome"] + (f" ({row['note']})" if row["note"] else "")),
    ]
    query = {"identity": identity, "limit": str(limit), "from": cluster, "since": since}
    found = ask(ctx, "GET", "/v1/ca/audit", **query)
    emit(output, found, lambda rows: print_table(rows, columns, empty="nothing was signed"))


def _nothing_before(ctx: click.Context, command: str) -> None:
    """An option that stands before the command is about something else, and must not seem to count."""
    for parameter in ctx.command.params:
        if ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} goes after {command}, if that has it", ctx)


@audit.command()
@click.argument("file", required=False, type=GivenPath(exists=True, dir_okay=False, path_type=Path))
@since_option
@limit_option
@from_option
@output_option
@click.pass_context
def show(
    ctx: click.Context, file: Path | None, since: str | None, limit: int, cluster: str | None, output: str
) -> None:
    """Show the journals line by line: what was signed, revoked, listed and banned, as it was written.

    With -o json everything that is in a line; of what a later part carries over, how much it is. FILE is a journal,
    such as a copy from a backup, which is read here, with the parts beside it. Whether it can be believed is another
    question: federation ca audit verify.

    \b
    Examples:
      federation ca audit show --since 24h
      federation ca audit show --from east -o json
      federation ca audit show /var/lib/federation/agent/authority/journal
    """
    columns = [
        ("WHEN", when("at")),
        ("JOURNAL", text("journal")),
        ("LINE", text("line")),
        ("KIND", lambda row: row["record"]["type"]),
        ("ABOUT", text("about")),
        ("SAYS", text("says")),
    ]
    if file is None:
        query = {"limit": str(limit), "from": cluster, "since": since}
        found = ask(ctx, "GET", "/v1/ca/audit/records", **query)
    else:
        if cluster is not None:
            raise click.UsageError("--from is about the journals of a process, not about a FILE")
        found = _read(file, since, limit)
    emit(output, found, lambda rows: print_table(rows, columns, empty="nothing is written there"))


def _read(file: Path, since: str | None, limit: int) -> list[dict[str, Any]]:
    from msgspec import to_builtins

    from federation.api.audit_routes import record_info
    from pki.audit import told
    from pki.errors import JournalError
    from pki.journal import records

    begin = None if since is None else datetime.fromisoformat(since)
    lines = told(records(file))
    first = next(lines, None)
    if first is None:
        raise JournalError(file, 0, "has no whole line: it is no journal")
    found = deque((one for one in chain([first], lines) if begin is None or one.record.at >= begin), limit)
    return [to_builtins(record_info(file.name, one)) for one in found]


@audit.command()
@click.argument("file", required=False, type=GivenPath(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="AUTHORITY:LINES:HASH",
    help="A head that was kept elsewhere. Repeatable.",
)
@click.option("--alone", is_flag=True, help="Ask nobody for heads: then only FILE itself speaks for its end.")
@from_option
@output_option
@click.pass_context
def verify(
    ctx: click.Context,
    file: Path | None,
    heads: tuple[str, ...],
    alone: bool,
    cluster: str | None,
    output: str,
) -> None:
    """Look for what was edited, removed, reordered, exchanged or cut; exit code 1 if there is any.

    Without FILE the asked process looks at its own journals; the hub asks its agents which heads they keep of it, and
    with --from vouches itself for those of a cluster. FILE is a journal, such as a copy from a backup, which is looked
    at here, with the parts beside it; the heads that must be in it come from --head, else from the asked process.

    \b
    Examples:
      federation ca audit verify
      federation ca audit verify --from east
      federation ca audit verify /var/lib/federation/agent/authority/journal --alone
    """
    for head in heads:
        _check_head(head)
    if file is None:
        if alone:
            raise click.UsageError("--alone is about a FILE")
        found = ask(ctx, "GET", "/v1/ca/audit/verify", **{"heads": ",".join(heads) or None, "from": cluster})
    else:
        if cluster is not None:
            raise click.UsageError("--from is about the journals of a process, not about a FILE")
        found = [_look_at(ctx, file, heads, alone)]
    emit(output, found, _verdicts)
    if any(one["problem"] for one in found):
        ctx.exit(1)


def _check_head(head: str) -> None:
    from federation.api.audit_routes import parse_heads
    from federation.errors import FederationError

    try:
        parse_heads([head])
    except FederationError as error:
        raise click.BadParameter(
            f"{quoted(head)} is not the head of a journal; {error.hint}", param_hint="--head"
        ) from error


def _look_at(ctx: click.Context, file: Path, heads: tuple[str, ...], alone: bool) -> dict[str, Any]:
    from federation.api.audit_routes import GIVEN, parse_heads
    from federation.journals import verdict

    vouchers: dict[str, str] = {}
    if heads or alone:
        vouchers = dict.fromkeys(heads, GIVEN)
    else:
        for one in ask(ctx, "GET", "/v1/ca/heads"):
            vouchers[f"{one['authority']}:{one['lines']}:{one['hash']}"] = f"{one['owner']} ({one['kind']})"
    known = dict(zip(parse_heads(vouchers), vouchers.values(), strict=True))
    found = verdict(file, None, tuple(known))
    exchanged = (
        "is the journal of another authority than the heads given" if heads and not found.kept else None
    )
    return {
        "owner": "-",
        "journal": str(file),
        "authority": found.head.authority if found.head else None,
        "since": found.since,
        "lines": found.head.lines if found.head else 0,
        "problem": found.problem or exchanged,
        "vouched_by": sorted({known[head] for head in found.kept}),
        "vouched_lines": max((head.lines for head in found.kept), default=0),
    }


def _verdicts(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        name = f"{row['owner']}: {row['journal']}" if row["owner"] != "-" else row["journal"]
        if row["problem"]:
            click.secho(f"✗ {printable(name)}: {printable(row['problem'])}", fg="red")
            continue
        click.secho("✓ ", fg="green", nl=False)
        click.echo(f"{printable(name)}: {row['lines']} lines, authority {row['authority'][:16]}…")
        if row["since"]:
            click.echo(f"    lines up to {row['since']} are in parts that are not here")
        vouched = ", ".join(row["vouched_by"])
        if vouched:
            click.echo(f"    the first {row['vouched_lines']} lines are vouched for by: {printable(vouched)}")
        else:
            click.echo("    nobody vouches for its end: what was cut from there would not be noticed")


@audit.command()
@output_option
@click.pass_context
def heads(ctx: click.Context, output: str) -> None:
    """Show how far the journals of the asked process have come, and how far those of others that it keeps.

    \b
    Example:
      federation ca audit heads -o json
    """
    columns = [
        ("OWNER", text("owner")),
        ("KIND", text("kind")),
        ("AUTHORITY", lambda row: row["authority"][:16]),
        ("LINES", text("lines")),
        ("HASH", lambda row: row["hash"][:16]),
        ("PROBLEM", text("problem")),
    ]
    found = ask(ctx, "GET", "/v1/ca/heads")
    emit(output, found, lambda rows: print_table(rows, columns, empty="no journals are known"))
    if any(one["problem"] for one in found):
        ctx.exit(1)


@audit.command()
@click.argument("owner", type=CLUSTER)
@output_option
@click.pass_context
def accept(ctx: click.Context, owner: str, output: str) -> None:
    """Take the journals of OWNER (a cluster, or `hub`) for right as they are now, at the asked process.

    Only after you know why they went back: a backup was put back, and not somebody hides what was signed.

    \b
    Example:
      federation ca audit accept east
    """
    from federation.api.audit_routes import AcceptJournals

    done = ask(ctx, "POST", "/v1/ca/heads", body=AcceptJournals(owner=owner))
    emit(output, done, lambda done: click.echo(done["done"]))
