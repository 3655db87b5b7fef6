"""A group of commands that are imported when they are called: `federation version` does not pay for gRPC."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from federation.cli.interrupt import leaving_at_once

LONGEST_SENTENCE = 200
"""Characters of the first sentence about a command that are shown in the list of all; click would cut it at 45."""


class LazyGroup(click.Group):
    """`places` maps the name of each command, in the order of the help, to `module:attribute`."""

    def __init__(self, places: Mapping[str, str], **given: Any) -> None:
        super().__init__(**given)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (place := self._places.get(cmd_name)) is None:
            return None
        module, _, name = place.partition(":")
        with leaving_at_once():
            command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        lines = [(name, command.get_short_help_str(LONGEST_SENTENCE)) for name, command in rows if command]
        if lines:
            with formatter.section("Commands"):
                formatter.write_dl(lines)
