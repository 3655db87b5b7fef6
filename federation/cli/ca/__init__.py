"""`federation ca`: the hierarchy of certificate authorities, one module a command."""

from __future__ import annotations

from typing import Any

import click

from federation.cli.lazy import LazyGroup

COMMANDS: dict[str, str] = {
    "rotate": "federation.cli.ca.rotate:rotate",
    "show": "federation.cli.ca.show:show",
    "tree": "federation.cli.ca.tree:tree",
    "export": "federation.cli.ca.export:export",
    "verify": "federation.cli.ca.verify:verify",
    "refresh": "federation.cli.ca.refresh:refresh",
    "issue": "federation.cli.ca.issue:issue",
    "renew": "federation.cli.ca.issue:renew",
    "init": "federation.cli.ca.init:init",
    "request": "federation.cli.ca.request:request",
    "sign": "federation.cli.ca.sign:sign",
    "install": "federation.cli.ca.install:install",
    "import-root": "federation.cli.ca.import_root:import_root",
    "audit": "federation.cli.ca.audit:audit",
    "ban": "federation.cli.ca.bans:ban",
    "unban": "federation.cli.ca.bans:unban",
    "bans": "federation.cli.ca.bans:bans",
    "crl": "federation.cli.ca.crl:crl",
    "revoke": "federation.cli.ca.crl:revoke",
}


class Authorities(LazyGroup):
    def __init__(self, **given: Any) -> None:
        super().__init__(COMMANDS, **given)


@click.group(cls=Authorities)
def ca() -> None:
    """The root, the authority of each cluster, and what they issue.

    They ask the hub of this machine, or whom --hub names, which stands before ca.

    \b
    Examples:
      federation ca tree                    who signed whom, and who trusts what
      federation --hub unix:///var/lib/federation/agent/api.sock ca show
    """
