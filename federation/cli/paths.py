"""Paths as arguments. An empty one, as of a variable that was never set, means nothing, not this folder."""

from __future__ import annotations

import os
from typing import Any

import click


class GivenPath(click.Path):
    """`click.Path`, but an empty text is wrong usage; there it is the working folder."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if not os.fspath(value):
            self.fail("an empty path; give the name of a file or folder", param, ctx)
        return super().convert(value, param, ctx)
