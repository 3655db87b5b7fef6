"""The entry point: finds the command, turns every failure into one clear line and a stable exit code.

Exit codes: 0 fine, 1 found a problem, 2 wrong usage, 3 cannot reach, 130 interrupted, 141 nobody reads the output.
Commands are imported when they are called, so that `federation version` does not pay for gRPC.
"""

from __future__ import annotations

import sys

from federation.cli.interrupt import INTERRUPTED, leaving_at_once

READER_GONE = 141
"""What a shell shows for a program that SIGPIPE has ended, as in `federation status | head -1`."""
DEBUG = "FEDERATION_DEBUG"
"""The variable of the environment that asks for the traceback of what nobody foresaw."""
KEY_MISSING = "put it back from a backup: another one in its place would be trusted by nobody"

with leaving_at_once():
    import os
    from typing import Any

    import click

    from federation.cli.lazy import LazyGroup
    from federation.cli.output import colour, fail
    from federation.errors import FederationError
    from pki.errors import KeyMissing, PkiError

COMMANDS = {
    "serve": "federation.cli.processes:serve",
    "agent": "federation.cli.processes:agent",
    "gateway": "federation.cli.processes:gateway",
    "token": "federation.cli.tokens:token",
    "operator": "federation.cli.operators:operator",
    "cluster": "federation.cli.clusters:cluster",
    "ca": "federation.cli.ca:ca",
    "service": "federation.cli.services:service",
    "explain": "federation.cli.services:explain",
    "status": "federation.cli.status:status",
    "check": "federation.cli.status:check",
    "config": "federation.cli.config:config",
    "demo": "federation.cli.demo:demo",
    "completion": "federation.cli.completion:completion",
    "version": "federation.cli.completion:version",
}


class Program(LazyGroup):
    """The whole command line."""

    def __init__(self, **given: Any) -> None:
        super().__init__(COMMANDS, **given)

    def invoke(self, ctx: click.Context) -> Any:
        """A reader that has gone is no problem found; what is not flushed yet goes nowhere."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(READER_GONE)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 found a problem, 2 wrong usage, 3 cannot reach, 130 interrupted. "
    f"{DEBUG}=1 shows the traceback of what nobody foresaw; NO_COLOR=1 takes the colours away.",
)
@click.option(
    "--hub",
    metavar="TARGET",
    envvar="FEDERATION_HUB",
    help="Which process to ask: a context's name, unix:///path/to/api.sock or https://host:port.  "
    "[env: FEDERATION_HUB; default: the current context, else the hub's socket on this machine]",
)
@click.pass_context
def cli(ctx: click.Context, hub: str | None) -> None:
    """One service space over many clusters: gateways, a certificate authority in each cluster, failover.

    \b
    Examples:
      federation demo                       three clusters on this machine, with a tour
      federation status                     who is connected and what is wrong
      federation explain default/echo --from east
    """
    ctx.obj = hub
    ctx.color = colour()


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    try:
        code: Any = cli.main(prog_name="federation", standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FederationError as error:
        fail(str(error), error.hint)
        code = error.exit_code
    except PkiError as error:
        fail(str(error), KEY_MISSING if isinstance(error, KeyMissing) else getattr(error, "hint", ""))
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        code = 1
    except Exception as error:  # the edge of the program: a mistake of ours leaves as one line, too
        if os.environ.get(DEBUG):
            raise
        fail(
            f"nobody foresaw this: {type(error).__name__}: {error}",
            f"please report it, with what {DEBUG}=1 shows; the log of a process has it already",
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
