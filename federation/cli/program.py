"""The command line: finds the command, turns every failure into one clear line and a stable exit code.

Exit codes: 0 fine, 1 found a problem, 2 wrong usage, 3 cannot reach, 130 interrupted, 141 nobody reads the output.
Commands are imported when they are called, so that `federation version` does not pay for gRPC.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from federation.cli.interrupt import INTERRUPTED
from federation.cli.lazy import LazyGroup
from federation.cli.output import brief, colour, fail, printable
from federation.errors import FederationError
from pki.errors import KeyMissing, PkiError

READER_GONE = 141
"""What a shell shows for a program that SIGPIPE has ended, as in `federation status | head -1`."""
DEBUG = "FEDERATION_DEBUG"
"""The variable of the environment that asks for the traceback of what nobody foresaw."""
COMPLETE = "_FEDERATION_COMPLETE"
"""The variable by which a shell asks for completions."""
HUB_OPTION = "--hub"
KEY_MISSING = "put it back from a backup: another one in its place would be trusted by nobody"

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


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 found a problem, 2 wrong usage, 3 cannot reach, 130 interrupted, "
    f"141 nobody reads the output. {DEBUG}=1 shows the traceback of what nobody foresaw; "
    "NO_COLOR=1 takes the colours away.",
)
@click.option(
    HUB_OPTION,
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


def run() -> int:
    """Run the command that the arguments of this process name, and return the exit code; what went wrong is told."""
    _fill_the_first_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # whatever the encoding of the terminal has no sign for
    try:
        if sys.stdout is None:
            fail("standard output is closed, and nothing was done", "> /dev/null throws an answer away")
            return READER_GONE
        return _told()
    except BrokenPipeError:
        _close_ears()
        return READER_GONE


def _told() -> int:
    try:
        return _invoked()
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        wrong = io.StringIO()
        error.show(wrong)
        if isinstance(error, click.NoSuchOption) and error.option_name == HUB_OPTION:
            wrong.write(f"{HUB_OPTION} stands before the command: federation {HUB_OPTION} TARGET …\n")
        for line in wrong.getvalue().splitlines():
            click.echo(printable(brief(line)), err=True)
        return error.exit_code
    except FederationError as error:
        fail(str(error), error.hint)
        return error.exit_code
    except PkiError as error:
        fail(str(error), KEY_MISSING if isinstance(error, KeyMissing) else getattr(error, "hint", ""))
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        return 1
    except Exception as error:  # the edge of the program: a mistake of ours leaves as one line, too
        if os.environ.get(DEBUG):
            raise
        fail(
            f"nobody foresaw this: {type(error).__name__}: {error}",
            f"please report it, with what {DEBUG}=1 shows; the log of a process has it already",
        )
        return 1


def _invoked() -> int:
    if COMPLETE in os.environ:
        cli.main(prog_name="federation")
    try:
        with cli.make_context("federation", sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as left:
        return left.exit_code
    return 0


def _fill_the_first_files() -> None:
    """What whoever started us has closed of standard input and error is /dev/null: otherwise the next file that is
    opened would be in its place, and get what libraries write there.
    """
    for number in (0, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _close_ears() -> None:
    """What is not written yet goes nowhere: nobody is there to read it, nor why."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
