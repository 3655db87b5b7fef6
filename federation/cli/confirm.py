"""A question that only yes answers with yes."""

from __future__ import annotations

import sys

import click


def confirmed(question: str) -> bool:
    """Whether the answer is yes. No answer, as with an empty standard input, is no; Ctrl-C ends the program."""
    if sys.stdin is None:
        return False
    try:
        return click.confirm(question, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise
        click.echo(err=True)
        return False
