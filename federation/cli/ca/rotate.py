"""`federation ca rotate`: replace an authority, watch who holds it up, turn back."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getdoc
from typing import Any, TypeVar

import click

from federation.cli.arguments import CLUSTER, REASON
from federation.cli.ca.rotation import (
    BACK,
    OWN,
    PHASES,
    begin,
    follow,
    renew_leaves,
    show_leaves,
    show_status,
    step,
)
from federation.cli.call import ask, segment
from federation.cli.clusters import show_cluster
from federation.cli.output import emit, output_option

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def rotate() -> None:
    """Replace an authority while everything runs. Each step waits until everybody is ready, and can be turned back
    until the old anchor is let go.

    \b
    Examples:
      federation ca rotate cluster start west --why "yearly"
      federation ca rotate cluster watch west
      federation --hub unix:///var/lib/federation/agent/api.sock ca rotate cluster status
      federation ca rotate root start --why "ten years are over"
      federation ca rotate hub status
      federation ca rotate quarantine east
    """


@rotate.command()
@click.argument("cluster", type=CLUSTER)
@output_option
@click.pass_context
def quarantine(ctx: click.Context, cluster: str, output: str) -> None:
    """Wait for CLUSTER in no rotation any more. Nobody trusts it from then on, so that nobody meets it half way: its
    services are reached from no other cluster, until `federation cluster set CLUSTER --state active`.

    \b
    Example:
      federation ca rotate quarantine east
    """
    from federation.api.messages import SetCluster

    change = SetCluster(state="quarantined")
    emit(output, ask(ctx, "PUT", f"/v1/clusters/{segment(cluster)}", body=change), show_cluster)


@rotate.group()
def cluster() -> None:
    """The authority of one cluster. At the hub, CLUSTER says which one; an agent is asked for its own."""


why_option = click.option(
    "--why", type=REASON, default="", help="For the record, and for whoever looks at it later."
)
manual_option = click.option("--manual", is_flag=True, help="Wait for `advance` before each step.")
number_option = click.option("--number", type=int, help="Only if it is this rotation.  [the one that runs]")
from_option = click.option(
    "--from", "phase", type=click.Choice((*PHASES, *BACK)), help="Only if it is in this phase.  [where it is]"
)


def seen_options(command: F) -> F:
    """What the operator saw, so that a command that is repeated takes no other step."""
    return number_option(from_option(command))


cluster_argument = click.argument("cluster", type=CLUSTER, required=False, metavar="[CLUSTER]")


@cluster.command()
@cluster_argument
@why_option
@manual_option
@output_option
@click.pass_context
def start(ctx: click.Context, cluster: str | None, why: str, manual: bool, output: str) -> None:
    """Begin to replace the authority. Nothing changes for anybody before all are ready for it.

    \b
    Example:
      federation ca rotate cluster start west --why "the key was on a lost disk"
    """
    begin(ctx, _path(cluster), output, why, manual)


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
    show_status(ctx, _path(cluster), output)


@cluster.command()
@cluster_argument
@output_option
@click.pass_context
def watch(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Follow the rotation until it is over; exit code 1 if it was turned back or there was none, 3 if nobody
    has answered for long.

    \b
    Example:
      federation ca rotate cluster watch west
    """
    follow(ctx, _path(cluster), output)


@cluster.command()
@cluster_argument
@seen_options
@output_option
@click.pass_context
def abort(
    ctx: click.Context, cluster: str | None, number: int | None, phase: str | None, output: str
) -> None:
    """Turn back, with the same care: leaves first, then the anchor. Too late once the old anchor is being let go. It
    then runs to its end by itself.

    \b
    Example:
      federation ca rotate cluster abort west
    """
    step(ctx, _path(cluster), output, "abort", number, phase)


@cluster.command()
@cluster_argument
@seen_options
@output_option
@click.pass_context
def advance(
    ctx: click.Context, cluster: str | None, number: int | None, phase: str | None, output: str
) -> None:
    """Take the next step of a rotation that was started with --manual, if nobody holds it up.

    \b
    Examples:
      federation ca rotate cluster advance west
      federation ca rotate cluster advance west --from published
    """
    step(ctx, _path(cluster), output, "advance", number, phase)


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
    renew_leaves(ctx, _path(cluster), output)


@leaves.command("status")
@cluster_argument
@output_option
@click.pass_context
def status_of_leaves(ctx: click.Context, cluster: str | None, output: str) -> None:
    """Show which gateways have not got the new certificate yet. Exit code 1 if there is one.

    \b
    Example:
      federation ca rotate leaves status west
    """
    show_leaves(ctx, _path(cluster), output)


def _path(cluster: str | None) -> str:
    return OWN if cluster is None else f"/v1/clusters/{segment(cluster)}/rotation"


def _at_hub(name: str, path: str, about: str) -> click.Group:
    """The same commands for an authority that the hub itself replaces; `about` says which."""

    def start(ctx: click.Context, why: str, manual: bool, output: str) -> None:
        """Begin to replace the authority. Nothing changes for anybody before all are ready for it."""
        begin(ctx, path, output, why, manual)

    def status(ctx: click.Context, output: str) -> None:
        """Show the phase, and who holds it up. Exit code 1 if somebody does."""
        show_status(ctx, path, output)

    def watch(ctx: click.Context, output: str) -> None:
        """Follow the rotation until it is over; exit code 1 if it was turned back or there was none, 3 if nobody
        answers for long.
        """
        follow(ctx, path, output)

    def abort(ctx: click.Context, number: int | None, phase: str | None, output: str) -> None:
        """Turn back, with the same care: what it signed first, then the anchor. Too late once the old one is let go. It
        then runs to its end by itself.
        """
        step(ctx, path, output, "abort", number, phase)

    def advance(ctx: click.Context, number: int | None, phase: str | None, output: str) -> None:
        """Take the next step of a rotation that was started with --manual, if nobody holds it up."""
        step(ctx, path, output, "advance", number, phase)

    group = click.Group(name, help=about)
    for command in (start, status, watch, abort, advance):
        wrapped = output_option(click.pass_context(command))
        if command is start:
            wrapped = manual_option(why_option(wrapped))
        if command in (abort, advance):
            wrapped = seen_options(wrapped)
        example = f"\n\n\b\nExample:\n  federation ca rotate {name} {command.__name__}"
        group.add_command(click.command(command.__name__, help=(getdoc(command) or "") + example)(wrapped))
    return group


rotate.add_command(
    _at_hub(
        "root",
        "/v1/root/rotation",
        "The root of the federation. The next one signs every cluster's authority anew; in a safe it is made there"
        " before (`federation ca init --follows`).",
    )
)
rotate.add_command(
    _at_hub(
        "hub",
        "/v1/hub/rotation",
        "The hub's own authority, by which agents and operators recognise it. It waits for operators' certificates,"
        " which live for 7 days at most: renew them with `federation operator renew`.",
    )
)
