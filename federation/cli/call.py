"""One REST call from a command: the usual shape of every command here."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar
from urllib.parse import quote

import click

from federation.cli.output import quoted
from federation.errors import FederationError, Unreachable

NOT_THERE = (
    "see that the process runs, and does not wait at a terminal for the passphrase of its keys; `--hub` says which one "
    "is asked"
)
BAD_REQUEST = 400
AGENT_AWAY = (503, "agent")
"""Status and code of a hub's answer that the agent which was to be asked cannot be."""
LONGEST_NAME = 255
"""Characters; nothing that is asked for by its name has a longer one than a trust domain."""


class WrongArgument(FederationError):
    """The process that was asked does not understand an argument, such as a range that is none."""

    exit_code: ClassVar[int] = 2


class AgentAway(FederationError):
    """The hub answered, and the agent that it was to ask did not."""

    exit_code: ClassVar[int] = 3


def ask(ctx: click.Context, method: str, path: str, *, body: Any = None, **query: str | None) -> Any:
    """Call the process that `--hub` means and return the decoded answer. Raises FederationError."""
    from federation.api.client import Refusal, Unrecognised
    from federation.cli.target import client, learn_anchors

    wanted = ctx.find_root().obj

    async def call() -> Any:
        async with client(wanted) as api:
            given = {name: value for name, value in query.items() if value is not None}
            return await api.call(method, path, body=body, query=given)

    async def call_whoever_it_is_now() -> Any:
        """The hub may have replaced its authority since it was asked last."""
        try:
            return await call()
        except Unrecognised:
            if not await learn_anchors(wanted):
                raise
        return await call()

    try:
        return asyncio.run(call_whoever_it_is_now())
    except Refusal as error:
        if error.status == BAD_REQUEST:
            raise WrongArgument(str(error), error.hint) from error
        if (error.status, error.code) == AGENT_AWAY:
            raise AgentAway(str(error), error.hint) from error
        raise
    except Unreachable as error:
        error.hint = error.hint or NOT_THERE
        raise


def segment(name: str) -> str:
    """A name as one segment of a path; dots alone would mean another path (RFC 3986, 5.2.4). Raises UsageError."""
    if name in ("", ".", ".."):
        raise click.UsageError(f"{name!r} is not a name")
    if len(name) > LONGEST_NAME:
        raise click.UsageError(f"{quoted(name)} is not a name")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise click.UsageError(f"{name!r} is not a name: it is not UTF-8") from error


class ServiceName(click.ParamType[str]):
    """`namespace/name`; a name alone is in the namespace `default`."""

    name = "SERVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from pki.names import is_dns_label

        namespace, slash, name = str(value).rpartition("/")
        namespace = namespace if slash else "default"
        if not is_dns_label(namespace) or not is_dns_label(name):
            self.fail(
                f"{quoted(str(value))} is not a service; write namespace/name, for example default/echo",
                param,
                ctx,
            )
        return f"{namespace}/{name}"


SERVICE = ServiceName()
