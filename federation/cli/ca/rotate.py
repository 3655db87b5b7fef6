"""`federation ca rotate`: replace an authority, watch who holds it up, turn back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from federation.cli.call import ask, segment
from federation.cli.output import emit, output_option, printable, when

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


@click.group()
def rotate() -> None:
    """Replace an authority while everything runs. Each step waits until everybody is ready, and can be turned back
    until the old anchor is let go.

    \b
    Examples:
      federation ca rotate cluster start west --why "yearly"
      federation ca rotate cluster watch west
      federation --hub unix:///var/lib/federation/agent/api.sock ca rotate cluster status
    """


@rotate.group()
def cluster() -> None:
    """The authority of one cluster. At the hub, CLUSTER says which one; an agent is asked for its own."""


cluster_argument = click.argument("cluster", required=False, metavar="[CLUSTER]")


@cluster.command()
@cluster_argument
@click.option("--why", default="", help="For the record, and for whoever looks at it later.")
@click.option("--manual", is_flag=True, help="Wait for `advance` before each step.")
@output_option
@click.pass_context
def start(ctx: click.Context, cluster: str | None, why: str, manual: bool, output: str) -> None:
    """Begin to replace the authority. Nothing changes for anybody before all are ready for it.

    \b
    Example:
      federation ca rotate cluster start west --why "the key was on a lost disk"
    """
    _change(ctx, cluster, output, action="start", why=why, manual=manual)


@cluster.command()
@cluster_argument
@output_option
@click.pass_context
def status(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Show the phase, and who holds it up. Exit code 1 if somebody does.

    \b
    Examples:
      federation ca rotate cluster status west
      federation --hub unix:///var/lib/federation/agent/api.sock ca rotate cluster status
    """
    found = ask(ctx, "GET", _path(cluster))
    emit(output, found, _show)
    if found["running"] and found["blocking"]:
        ctx.exit(1)


@cluster.command()
@cluster_argument
@output_option
@click.pass_context
def watch(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Follow the rotation until it is over; exit code 1 if it was turned back.

    \b
    Example:
      federation ca rotate cluster watch west
    """
    before: tuple[Any, ...] = ()
    while True:
        found = ask(ctx, "GET", _path(cluster))
        line = (found["phase"], tuple(_blocking(found)), found["problem"])
        if line != before:
            emit(output, found, _follow)
            before = line
        if not found["running"]:
            ctx.exit(0 if found["phase"] in (None, "done") else 1)
        time.sleep(LOOK_EVERY)


@cluster.command()
@cluster_argument
@output_option
@click.pass_context
def abort(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Turn back, with the same care: leaves first, then the anchor. Too late once the old anchor is being let go.

    \b
    Example:
      federation ca rotate cluster abort west
    """
    _change(ctx, cluster, output, action="abort")


@cluster.command()
@cluster_argument
@output_option
@click.pass_context
def advance(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Take the next step of a rotation that was started with --manual, if nobody holds it up.

    \b
    Example:
      federation ca rotate cluster advance west
    """
    _change(ctx, cluster, output, action="advance")


@rotate.group()
def leaves() -> None:
    """The certificates that an authority has issued, under the same authority."""


@leaves.command("start")
@cluster_argument
@output_option
@click.pass_context
def start_leaves(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Have the agent and every gateway of a cluster get a new certificate now, spread over a while.

    \b
    Example:
      federation ca rotate leaves start west
    """
    _change(ctx, cluster, output, action="leaves")


def _path(cluster: str | None) -> str:
    return "/v1/ca/rotation" if cluster is None else f"/v1/clusters/{segment(cluster)}/rotation"


def _change(ctx: click.Context, cluster: str | None, output: str, **body: Any) -> None:
    emit(output, ask(ctx, "POST", _path(cluster), body=body), _show)


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
            click.echo("  ready; go on with: federation ca rotate cluster advance")
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
