"""`federation ca show`: the authorities that one process holds, and whom it trusts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from federation.cli.call import ask
from federation.cli.output import distance, emit, output_option, print_table, printable, text, when

SHORT = 16
"""Characters of a key id or a hash that people compare."""


@click.command()
@output_option
@click.pass_context
def show(ctx: click.Context, output: str) -> None:
    """Show the authority of the asked process, hub or agent: its certificates, its key, its journal, whom it trusts.

    \b
    Examples:
      federation ca show
      federation --hub unix:///var/lib/federation/agent/api.sock ca show -o json
    """
    answer = ask(ctx, "GET", "/v1/authorities")
    emit(output, answer, _show)
    if any(one["problem"] or one["stale"] for one in answer["foreign"]):
        ctx.exit(1)


def _show(answer: dict[str, Any]) -> None:
    for root in answer["roots"]:
        click.secho(f"root {printable(root['subject'])}", bold=True)
        _forms(root)
    for own in answer["authorities"]:
        authority = own["authority"]
        name = "" if answer["name"] == answer["kind"] else f" {answer['name']}"
        click.secho(f"{answer['kind']}{name}: {printable(authority['subject'])}", bold=True)
        _forms(authority)
        _line("epoch", authority["epoch"])
        _line("key store", own["key_store"])
        _line("issued", f"{own['issued']} certificates that have not ended")
        _line("journal", f"{own['journal_entries']} lines, head {own['journal'][:SHORT]}…")
    _line("bundle", f"sequence {answer['bundle']['sequence']}, {_anchors(answer['bundle'])}")
    click.echo()
    print_table(
        answer["trusts"],
        [
            ("TRUSTS", text("name")),
            ("TRUST DOMAIN", text("trust_domain")),
            ("SEQUENCE", text("sequence")),
            ("ANCHORS", _anchors),
        ],
        empty="no other cluster is trusted yet",
    )
    if answer["foreign"]:
        click.echo()
        print_table(
            answer["foreign"],
            [
                ("FOREIGN", text("trust_domain")),
                ("PROFILE", text("profile")),
                ("SEQUENCE", text("sequence")),
                ("ANCHORS", _anchors),
                ("FETCHED", when("fetched_at")),
                ("STATE", lambda row: "stale" if row["stale"] else "fresh"),
                ("PROBLEM", text("problem")),
            ],
            empty="",
        )


def _forms(authority: dict[str, Any]) -> None:
    _line("key id", authority["key_id"])
    for form in authority["forms"]:
        ends = datetime.fromisoformat(form["not_after"])
        _line(form["form"], f"until {ends:%Y-%m-%d %H:%M} UTC ({distance(ends)}), serial {form['serial']}")


def _line(label: str, value: Any) -> None:
    click.echo(f"  {label + ':':13}{printable(str('-' if value is None else value))}")


def _anchors(row: Any) -> str:
    return ", ".join(key_id[:SHORT] or "without a key id" for key_id in row["anchors"])
