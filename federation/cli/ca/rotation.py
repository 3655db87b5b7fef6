"""What the commands of `federation ca rotate` have in common: the steps, their picture, and who is waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

import click

from federation.cli.call import AgentAway, ask
from federation.cli.output import emit, fail, printable, when
from federation.errors import Unreachable

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
OF_A_ROOT = MEANING | {
    "done": "the old key is of no use any more",
    "aborted": "the next key is of no use any more",
}
"""Those in a safe are destroyed by whoever has it."""
LOOK_EVERY = 1.0
PATIENCE = 600.0
"""Seconds without any answer after which nobody watches any more."""
OWN = "/v1/ca/rotation"
"""Where an agent is asked for the authority of its own cluster."""
NOT_FOUND = 404


def _ask(ctx: click.Context, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """As `ask`. A hub has no cluster of its own, so it has to be told which is meant, and a command in a hint is for
    whoever was asked. Raises FederationError, UsageError.
    """
    from federation.api.client import Refusal

    try:
        return ask(ctx, method, path, body=body)
    except Refusal as error:
        if (path, error.status) == (OWN, NOT_FOUND):
            raise click.UsageError("name the CLUSTER; only an agent has one of its own") from error
        error.hint = error.hint.replace("federation ca rotate", f"{_program(ctx)} ca rotate")
        raise


def begin(ctx: click.Context, path: str, output: str, why: str, manual: bool) -> None:
    """Begin the rotation at `path`, and show it."""
    _change(ctx, path, output, action="start", why=why, manual=manual)


def renew_leaves(ctx: click.Context, path: str, output: str) -> None:
    """Have all leaves of the authority at `path` renewed, and show how far that is."""
    emit(output, _ask(ctx, "POST", path, {"action": "leaves"}), lambda found: _show_leaves(ctx, found))


def show_leaves(ctx: click.Context, path: str, output: str) -> None:
    """Show how far the last renewal of all leaves at `path` is; exit code 1 if somebody has not renewed."""
    found = _ask(ctx, "GET", path)
    emit(output, found, lambda status: _show_leaves(ctx, status))
    if found["leaves"] and found["leaves"]["waiting"]:
        ctx.exit(1)


def step(
    ctx: click.Context, path: str, output: str, action: str, number: int | None, phase: str | None
) -> None:
    """`abort` or `advance` the rotation `number` at `path` in `phase`, without them as it is now, and show it.

    What has moved on is left as it is: the answer may be lost and the command repeated.
    """
    found = _ask(ctx, "GET", path)
    number, phase = number or found["number"], phase or found["phase"] or "none"
    if found["running"] and output == "table":
        click.echo(f"{found['trust_domain']}: {action} rotation {number}, which is {phase}")
    try:
        _change(ctx, path, output, action=action, number=number, phase=phase)
    except (Unreachable, AgentAway) as error:
        error.hint = f"it may have been done; look before you repeat it: {_command(ctx, found, 'status')}"
        raise


def show_status(ctx: click.Context, path: str, output: str) -> None:
    """Show the rotation at `path`; exit code 1 if somebody holds it up."""
    found = _ask(ctx, "GET", path)
    emit(output, found, lambda status: _show(ctx, status))
    if found["running"] and found["blocking"]:
        ctx.exit(1)


def follow(ctx: click.Context, path: str, output: str) -> None:
    """Show each change of the rotation at `path` until it is over; exit code 1 if it was turned back or never began.

    A process that has answered once, if only that an agent is away, is asked again for `PATIENCE`; then Unreachable or
    AgentAway is raised. One that never answered may not be the one that was meant: that is raised at once.
    """
    before: tuple[Any, ...] = ()
    answered: float | None = None
    told = ""
    while True:
        try:
            found = _ask(ctx, "GET", path)
        except (Unreachable, AgentAway) as error:
            if answered is None and isinstance(error, AgentAway):
                answered = time.monotonic()
            if answered is None or time.monotonic() - answered > PATIENCE:
                raise
            if told != str(error):
                told = str(error)
                fail(
                    told,
                    f"asking again for {PATIENCE / 60:.0f} minutes; the rotation goes on without this command",
                )
            time.sleep(LOOK_EVERY)
            continue
        answered, told = time.monotonic(), ""
        line = (found["phase"], tuple(_waits(found)), found["problem"])
        if line != before:
            emit(output, found, _follow)
            before = line
        if not found["running"]:
            ctx.exit(0 if found["phase"] == "done" else 1)
        time.sleep(LOOK_EVERY)


def summary(found: Mapping[str, Any]) -> str:
    """One line of a rotation that runs, for a status."""
    waits = ", ".join(one["member"] for one in found["blocking"])
    state = f"waits for {waits}, until {found['deadline']} at most" if waits else "nobody holds it up"
    if found["ready"]:
        state = "waits for an operator: advance or abort"
    for_ = _age(found, "entered_at")
    return f"{found['trust_domain']}: rotation {found['number']} is {found['phase']} for {for_}; {state}"


def _change(ctx: click.Context, path: str, output: str, **body: Any) -> None:
    emit(output, _ask(ctx, "POST", path, body), lambda found: _show(ctx, found))


def _command(ctx: click.Context, found: Mapping[str, Any], verb: str, *more: str) -> str:
    """The same program, asked about the same rotation, to be copied."""
    of = (found["kind"], verb, *((found["cluster"],) if found["cluster"] else ()))
    return " ".join((_program(ctx), "ca rotate", *map(quote, (*of, *more))))


def _program(ctx: click.Context) -> str:
    """The program, with the process that it was told to ask."""
    root = ctx.find_root()
    given = root.get_parameter_source("hub") is click.core.ParameterSource.COMMANDLINE
    return f"federation --hub {quote(root.obj)}" if given and root.obj else "federation"


def _show(ctx: click.Context, found: Mapping[str, Any]) -> None:
    if found["phase"] is None:
        click.echo(f"{found['trust_domain']}: epoch {found['issuing']} issues; there was no rotation yet")
    else:
        click.echo(f"{found['trust_domain']}: rotation {found['number']}, {_asked(found)}")
        _steps(found)
        click.echo(f"epoch {found['issuing']} issues, bundle {found['sequence']}")
    if found["running"]:
        _running(ctx, found)
    else:
        alone = found["due"] < found["ends"]
        following = f"the next one begins {when('due')(found)}" if alone else "no other one begins by itself"
        click.echo(f"{following}; this authority ends {when('ends')(found)}")
    if found["problem"]:
        click.secho(f"‼ {printable(found['problem'])}", fg="yellow")


def _running(ctx: click.Context, found: Mapping[str, Any]) -> None:
    for waits, one in zip(_waits(found), found["blocking"], strict=True):
        since = f", for {_age(one, 'since')}" if one["since"] else ""
        click.secho(f"  waits for {waits}{since}", fg="yellow")
        if one["todo"]:
            click.echo(f"      {printable(one['todo'])}")
    for one in found["unawaited"]:
        click.echo(f"  does not wait for {printable(one)}")
    if found["blocking"]:
        click.echo(f"  it may wait until {found['deadline']} ({when('deadline')(found)})")
    if found["ready"]:
        seen = ("--number", str(found["number"]), "--from", found["phase"])
        click.echo(f"  ready; go on with: {_command(ctx, found, 'advance', *seen)}")
    if not found["reversible"]:
        click.echo("  there is no way back any more")


def _age(found: Mapping[str, Any], key: str) -> str:
    return when(key)(found).removesuffix(" ago")


def _asked(found: Mapping[str, Any]) -> str:
    why = f" ({printable(found['why'])})" if found["why"] else ""
    return f"begun {when('begun_at')(found)} by {printable(found['who'])}{why}"


def _steps(found: Mapping[str, Any]) -> None:
    """A picture of the way: what is behind, where it is, what lies ahead."""
    phase = found["phase"]
    _way(PHASES if phase in PHASES else BACK, phase, _meaning(found))


def _meaning(found: Mapping[str, Any]) -> Mapping[str, str]:
    return OF_A_ROOT if found["kind"] == "root" else MEANING


def _way(way: Sequence[str], phase: str, meaning: Mapping[str, str]) -> None:
    here = way.index(phase)
    last = len(way) - 1
    for index, name in enumerate(way):
        done = index < here or (index == here == last)
        mark, colour = ("✓", "green") if done else ("→", "cyan") if index == here else ("·", None)
        click.secho(f"  {mark} {name:<12} {meaning[name]}", fg=colour)


LEAVES = ("asked", "renewing", "done")


def _show_leaves(ctx: click.Context, found: Mapping[str, Any]) -> None:
    """The same picture, of all leaves that are renewed under the authority that issues."""
    domain, leaves = found["trust_domain"], found["leaves"]
    if leaves is None:
        click.echo(f"{domain}: nobody was asked to renew since the agent started")
        return
    click.echo(f"{domain}: leaves of epoch {found['issuing']} are renewed, asked {when('asked_at')(leaves)}")
    of = leaves["renewed"] + len(leaves["waiting"])
    _way(LEAVES, "renewing" if leaves["waiting"] else "done", {
        "asked": "the agent has a new certificate, and asked its gateways",
        "renewing": f"{leaves['renewed']} of {of} gateways have a new certificate",
        "done": "all have one",
    })  # fmt: skip
    for one in leaves["waiting"]:
        click.secho(f"  waits for {printable(one)}", fg="yellow")
    if leaves["waiting"]:
        click.echo(f"  look again: {_command(ctx, {**found, 'kind': 'leaves'}, 'status')}")


def _waits(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{printable(one['member'])}: {printable(one['reason'])}"
        + (f" ({'; '.join(map(printable, one['who']))})" if one["who"] else "")
        for one in found["blocking"]
    ]


def _follow(found: Mapping[str, Any]) -> None:
    phase = found["phase"]
    click.secho(f"{phase or 'no rotation'}: {_meaning(found).get(phase, 'none has begun yet')}", bold=True)
    for line in _waits(found):
        click.echo(f"  waits for {line}")
    if found["problem"]:
        click.secho(f"‼ {printable(found['problem'])}", fg="yellow")
