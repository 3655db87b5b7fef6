"""Paths as arguments. An empty one, as of a variable that was never set, means nothing, not this folder; one that is
not UTF-8 could be told in no answer.
"""

from __future__ import annotations

import os
from typing import Any

import click

from federation.cli.output import quoted


class GivenPath(click.Path):
    """`click.Path`, but an empty text, which is the working folder there, and one that is not UTF-8 are wrong usage."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if not os.fspath(value):
            self.fail("an empty path; give the name of a file or folder", param, ctx)
        try:
            os.fsdecode(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{quoted(os.fsdecode(value))} is not UTF-8", param, ctx)
        return super().convert(value, param, ctx)
