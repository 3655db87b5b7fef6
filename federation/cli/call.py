"""One REST call from a command: the usual shape of every command here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

import click

from federation.errors import Unreachable

NOT_THERE = "see that the process runs; `--hub` says which one is asked"


def ask(ctx: click.Context, method: str, path: str, *, body: Any = None, **query: str | None) -> Any:
    """Call the process that `--hub` means and return the decoded answer. Raises FederationError."""
    from federation.cli.target import client

    async def call() -> Any:
        async with client(ctx.find_root().obj) as api:
            given = {name: value for name, value in query.items() if value is not None}
            return await api.call(method, path, body=body, query=given)

    try:
        return asyncio.run(call())
    except Unreachable as error:
        error.hint = error.hint or NOT_THERE
        raise


def segment(name: str) -> str:
    """A name as one segment of a path; dots alone would mean another path (RFC 3986, 5.2.4). Raises UsageError."""
    if name in ("", ".", ".."):
        raise click.UsageError(f"{name!r} is not a name")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise click.UsageError(f"{name!r} is not a name: it is not UTF-8") from error


def check_grants(may_export: Iterable[str], ranges: Iterable[str]) -> None:
    """What the hub would refuse anyhow is wrong usage before it is asked. Raises UsageError."""
    from federation.pattern import is_service_pattern

    for pattern in may_export:
        if not is_service_pattern(pattern):
            raise click.BadParameter(
                f"{pattern!r} is not namespace/name; allowed: a-z, 0-9, '-' and '*', as in 'shop/*'",
                param_hint="--may-export",
            )
    for text in ranges:
        try:
            ip_network(text)
        except ValueError as error:
            raise click.BadParameter(
                f"{error}; allowed: a range in CIDR notation, as in 10.1.0.0/16", param_hint="--range"
            ) from error


class ServiceName(click.ParamType[str]):
    """`namespace/name`; a name alone is in the namespace `default`."""

    name = "SERVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from pki.names import is_dns_label

        namespace, slash, name = str(value).rpartition("/")
        namespace = namespace if slash else "default"
        if not is_dns_label(namespace) or not is_dns_label(name):
            self.fail(
                f"{value!r} is not a service; write namespace/name, for example default/echo", param, ctx
            )
        return f"{namespace}/{name}"


SERVICE = ServiceName()
