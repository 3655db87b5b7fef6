"""`federation ca tree`: who signed whom, until when, and who trusts what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import click

from federation.cli.call import ask
from federation.cli.output import emit, output_option, printable

SOON = timedelta(days=30)
SHORT = 16
"""Characters of a key id that people compare."""


@dataclass(frozen=True, slots=True)
class Node:
    """A line of the tree, what is said under it, and what hangs from it; `colour` is that of the line."""

    line: str
    colour: str | None = None
    notes: tuple[str, ...] = ()
    below: tuple[Node, ...] = ()


@click.command()
@output_option
@click.pass_context
def tree(ctx: click.Context, output: str) -> None:
    """Draw the hierarchy as the hub knows it; exit code 1 if an authority has ended.

    Yellow ends within 30 days, red has ended. What only an agent can tell (where its key is, whom it trusts) each agent
    is asked for.

    \b
    Examples:
      federation ca tree
      federation ca tree -o json | jq '.clusters[] | {name, bundle: .bundle.sequence}'
    """
    answer = ask(ctx, "GET", "/v1/tree")
    node = hierarchy(answer)
    emit(output, answer, lambda _: draw(node))
    if any(line.colour == "red" for line in _all(node)):
        ctx.exit(1)


def draw(node: Node) -> None:
    """Print a node and what hangs from it with ├─ and └─."""
    for prefix, line, colour in _lines(node, "", ""):
        click.echo(prefix, nl=False)
        click.secho(printable(line), fg=colour, bold=not prefix)


def hierarchy(answer: dict[str, Any]) -> Node:
    """The tree as nodes. Several roots, as in a rotation, share a line of their own each above all else."""
    now = datetime.fromisoformat(answer["now"])
    holders = _holders(answer)
    hub = answer["hub"]
    below = (
        _authority(
            "hub", [one["authority"] for one in hub["authorities"]], hub["bundle"], hub, holders, now, ""
        ),
        *(
            _authority(
                row["name"],
                row["authorities"],
                row["bundle"],
                row["own"],
                holders,
                now,
                row["problem"],
                row["banned"],
            )
            for row in answer["clusters"]
        ),
    )
    roots = [_root(root, answer["root"], now) for root in hub["roots"]]
    *others, last = roots
    notes = tuple(other.line for other in others)
    return Node(last.line, last.colour, notes, below)


def _root(root: dict[str, Any], mode: str, now: datetime) -> Node:
    said, colour = _ends(root["forms"], now)
    return Node(f"root {root['subject']} · key {root['key_id'][:SHORT]} ({mode}) · {said}", colour)


def _authority(
    name: str,
    authorities: Sequence[dict[str, Any]],
    bundle: dict[str, Any],
    own: dict[str, Any] | None,
    holders: dict[str, list[str]],
    now: datetime,
    problem: str,
    banned: str = "",
) -> Node:
    forms = [form for authority in authorities for form in authority["forms"]]
    said, colour = _ends(forms, now)
    epochs = "+".join(str(one["epoch"]) for one in authorities)
    rooted = "" if any(form["form"] == "root-signed" for form in forms) else " · not signed by the root yet"
    line = f"{name} · epoch {epochs} · {said}{rooted} · bundle {bundle['sequence']}"
    notes = [f"key {', '.join(key_id[:SHORT] for key_id in bundle['anchors'])}{_store(own)}"]
    if banned:
        notes.append(banned)
    held = holders.get(name, [])
    notes.append(
        f"believed by {', '.join(held)}" if held else f"believed by nobody else{'' if banned else ' yet'}"
    )
    if problem:
        notes.append(f"not asked: {problem}")
    return Node(line, colour, tuple(notes))


def _store(own: dict[str, Any] | None) -> str:
    return "" if own is None else f" in {', '.join(one['key_store'] for one in own['authorities'])}"


def _holders(answer: dict[str, Any]) -> dict[str, list[str]]:
    """Who holds which version of whose bundle, as each says itself: `east` → `west (sequence 2, its gateways 1)`."""
    held: dict[str, list[str]] = {}
    rows = [
        ("hub", answer["hub"], []),
        *((row["name"], row["own"], row["held"]) for row in answer["clusters"]),
    ]
    for name, own, gateways in rows:
        behind = {one["trust_domain"]: (one["generation"], one["sequence"]) for one in gateways}
        for trust in own["trusts"] if own else ():
            version = (trust["generation"], trust["sequence"])
            theirs = behind.get(trust["trust_domain"], version)
            said = f"{name} (sequence {trust['sequence']}{_behind(version, theirs)})"
            held.setdefault(trust["name"], []).append(said)
        for one in gateways if own is None else ():
            other = one["trust_domain"].removesuffix(f".{answer['base']}")
            held.setdefault(other, []).append(
                f"{name} (its gateways {one['sequence']}, when it was last heard)"
            )
    return held


def _behind(version: tuple[int, int], gateways: tuple[int, int]) -> str:
    """What is said of gateways that go by another version than their agent knows."""
    if gateways == version:
        return ""
    return f", its gateways {gateways[1]}" if gateways[0] == version[0] else ", its gateways an older key"


def _ends(forms: Sequence[dict[str, Any]], now: datetime) -> tuple[str, str | None]:
    ends = min(datetime.fromisoformat(form["not_after"]) for form in forms)
    left = ends - now
    if left <= timedelta(0):
        return f"ended {ends:%Y-%m-%d %H:%M} UTC", "red"
    span = f"{left.days} days" if left.days >= 2 else f"{left.total_seconds() / 3600:.0f} hours"
    return f"until {ends:%Y-%m-%d}, {span} left", "yellow" if left < SOON else None


def _lines(node: Node, first: str, rest: str) -> Iterator[tuple[str, str, str | None]]:
    yield first, node.line, node.colour
    for note in node.notes:
        yield f"{rest}{'│  ' if node.below else '   '}", note, None
    for place, below in enumerate(node.below, 1):
        last = place == len(node.below)
        yield from _lines(below, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")


def _all(node: Node) -> Iterator[Node]:
    yield node
    for below in node.below:
        yield from _all(below)
