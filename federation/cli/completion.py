"""Shell completion and the version."""

from __future__ import annotations

from importlib.metadata import version as distribution_version

import click
from click.shell_completion import get_completion_class

from federation.cli.output import emit, output_option


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      federation completion bash > /etc/bash_completion.d/federation
      federation completion zsh > "${fpath[1]}/_federation"
      federation completion fish > ~/.config/fish/completions/federation.fish
    """
    from federation.cli.program import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "federation", "_FEDERATION_COMPLETE").source())


@click.command()
@output_option
def version(output: str) -> None:
    """Print the version.

    \b
    Examples:
      federation version
      federation version -o json
    """
    found = {"version": distribution_version("federation")}
    emit(output, found, lambda found: click.echo(f"federation {found['version']}"))
