"""How answers look: a table for people, JSON and YAML for programs.

Colour only where a terminal reads along that knows it, and never with NO_COLOR set (no-color.org).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]

FORMATS = ("table", "json", "yaml")
LONGEST_QUOTED, SHORT_QUOTE = 300, 40
"""Characters of one word in a message, and those that are left of a longer one; a path may be long."""


def output_option(command: F) -> F:
    """Adds `-o table|json|yaml`, passed on as `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How the answer looks.",
    )(command)


def emit(output: str, value: Any, table: Callable[[Any], None]) -> None:
    """Print `value` for programs, or hand it to `table` for people."""
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    elif output == "yaml":
        from federation.document import dump

        click.echo(dump(msgspec.to_builtins(value)), nl=False)
    else:
        table(value)


def print_table(rows: Sequence[Row], columns: Sequence[Column], *, empty: str) -> None:
    """Columns as wide as their contents; `empty` says in words that there is nothing."""
    if not rows:
        click.echo(empty)
        return
    cells = [[printable(render(row)) for _, render in columns] for row in rows]
    heads = [head for head, _ in columns]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))]
    click.secho(_line(heads, widths), bold=True)
    for line in cells:
        click.echo(_line(line, widths))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def text(key: str, absent: str = "-") -> Callable[[Row], str]:
    """A column that shows a field as it is; lists are joined."""

    def render(row: Row) -> str:
        value = row.get(key)
        if value is None or value in ("", []):
            return absent
        if isinstance(value, list):
            return ",".join(str(item) for item in value)
        return str(value)

    return render


def when(key: str) -> Callable[[Row], str]:
    """A column that shows an RFC 3339 instant as its distance from now: `3m ago`, `in 9m`."""

    def render(row: Row) -> str:
        value = row.get(key)
        return distance(datetime.fromisoformat(value)) if value else "-"

    return render


def distance(moment: datetime) -> str:
    seconds = (moment - datetime.now(UTC)).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def span(seconds: float) -> str:
    """Seconds in the largest unit that leaves at least two of it: `95s`, `12m`, `30h`, `9d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def quoted(value: str) -> str:
    """What the user wrote, in quotes, and cut where it would fill his screen."""
    return (
        repr(value) if len(value) <= LONGEST_QUOTED else f"{value[:SHORT_QUOTE]!r}… ({len(value)} characters)"
    )


def brief(message: str) -> str:
    """A message without the middle of what is too long in it to be read."""
    return re.sub(
        rf"\S{{{LONGEST_QUOTED},}}", lambda word: f"{word[0][:SHORT_QUOTE]}…{word[0][-8:]}", message
    )


def printable(value: str) -> str:
    """Text from elsewhere without control characters, so that a name cannot steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in value)


def colour() -> bool | None:
    """False where the user wants none, or TERM is dumb; None leaves it to whether a terminal reads along."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def fail(message: str, hint: str = "") -> None:
    """One error line, and what to do under it, on standard error."""
    click.secho(f"error: {printable(brief(message))}", fg="red", err=True, color=colour())
    if hint:
        click.echo(f"  hint: {printable(brief(hint))}", err=True)
