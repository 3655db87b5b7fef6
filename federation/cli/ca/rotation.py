"""What the commands of `federation ca rotate` have in common: the steps, their picture, and who is waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from federation.cli.call import ask
from federation.cli.output import emit, printable, when

PHASES = ("prepared", "published", "active", "retiring", "done")
BACK = ("reverting", "withdrawing", "aborted")
MEANING = {
    "prepared": "the next authority is made",
    "published": "everybody learns of both anchors",
    "active": "the next authority issues, leaves are replaced",
    "retiring": "everybody lets go of the old anchor",
    "done": "the old key is destroyed",
    "reverting": "the old authority issues again, leaves are replaced",
    "withdrawing": "everybody lets go of the next anchor",
    "aborted": "the next key is destroyed",
}
LOOK_EVERY = 1.0


def change(ctx: click.Context, path: str, output: str, **body: Any) -> None:
    """Ask for a step of the rotation at `path`, and show it."""
    emit(output, ask(ctx, "POST", path, body=body), _show)


def show_status(ctx: click.Context, path: str, output: str) -> None:
    """Show the rotation at `path`; exit code 1 if somebody holds it up."""
    found = ask(ctx, "GET", path)
    emit(output, found, _show)
    if found["running"] and found["blocking"]:
        ctx.exit(1)


def follow(ctx: click.Context, path: str, output: str) -> None:
    """Show each change of the rotation at `path` until it is over; exit code 1 if it was turned back."""
    before: tuple[Any, ...] = ()
    while True:
        found = ask(ctx, "GET", path)
        line = (found["phase"], tuple(_blocking(found)), found["problem"])
        if line != before:
            emit(output, found, _follow)
            before = line
        if not found["running"]:
            ctx.exit(0 if found["phase"] in (None, "done") else 1)
        time.sleep(LOOK_EVERY)


def _show(found: Mapping[str, Any]) -> None:
    if found["phase"] is None:
        click.echo(f"{found['trust_domain']}: epoch {found['issuing']} issues; there was no rotation yet")
    else:
        click.echo(f"{found['trust_domain']}: rotation {found['number']}, {_asked(found)}")
        _steps(found["phase"])
        click.echo(f"epoch {found['issuing']} issues, bundle {found['sequence']}")
    if found["running"]:
        for line in _blocking(found):
            click.secho(f"  waits for {line}", fg="yellow")
        if found["blocking"]:
            click.echo(f"  it may wait until {found['deadline']} ({when('deadline')(found)})")
        if found["manual"] and not found["blocking"]:
            click.echo("  ready; go on with: federation ca rotate … advance")
        if not found["reversible"]:
            click.echo("  there is no way back any more")
    else:
        click.echo(f"the next one begins {when('due')(found)}; this authority ends {when('ends')(found)}")
    if found["problem"]:
        click.secho(f"‼ {printable(found['problem'])}", fg="yellow")


def _asked(found: Mapping[str, Any]) -> str:
    why = f" ({printable(found['why'])})" if found["why"] else ""
    return f"begun {when('begun_at')(found)} by {printable(found['who'])}{why}"


def _steps(phase: str) -> None:
    """A picture of the way: what is behind, where it is, what lies ahead."""
    way = PHASES if phase in PHASES else BACK
    here = way.index(phase)
    last = len(way) - 1
    for index, name in enumerate(way):
        done = index < here or (index == here == last)
        mark, colour = ("✓", "green") if done else ("→", "cyan") if index == here else ("·", None)
        click.secho(f"  {mark} {name:<12} {MEANING[name]}", fg=colour)


def _blocking(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{printable(one['member'])}: {printable(one['reason'])}"
        + (f" ({', '.join(map(printable, one['who']))})" if one["who"] else "")
        for one in found["blocking"]
    ]


def _follow(found: Mapping[str, Any]) -> None:
    phase = found["phase"]
    click.secho(f"{phase or 'no rotation'}: {MEANING.get(phase, 'none has begun yet')}", bold=True)
    for line in _blocking(found):
        click.echo(f"  waits for {line}")
    if found["problem"]:
        click.secho(f"‼ {printable(found['problem'])}", fg="yellow")
