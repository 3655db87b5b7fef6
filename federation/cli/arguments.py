"""What is looked at in an argument before anybody is asked: names, hashes and reasons, each with what is allowed.

Whatever is refused is told back in short: who pastes a file into a name does not get it back.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from federation.cli.output import quoted


class _Text(click.ParamType[str]):
    """Text that `fault` finds nothing wrong with, in the form in which it is meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = self.meant(str(value))
        if fault := self.fault(text):
            self.fail(f"{quoted(str(value))} {fault}", param, ctx)
        return text

    def meant(self, text: str) -> str:
        return text

    def fault(self, text: str) -> str | None:
        """What follows the text in the message that refuses it, or None."""
        raise NotImplementedError


class ClusterName(_Text):
    """The name of a cluster, or `hub`."""

    name = "NAME"

    def fault(self, text: str) -> str | None:
        from pki.names import is_dns_label

        if is_dns_label(text):
            return None
        return "is not a name of a cluster; allowed: 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'"


class Namespace(_Text):
    """A namespace of Kubernetes."""

    name = "NAME"

    def fault(self, text: str) -> str | None:
        from pki.names import is_dns_label

        if is_dns_label(text):
            return None
        return "is not a namespace; allowed: 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'"


class Reason(_Text):
    """What is said to why."""

    name = "TEXT"

    def fault(self, text: str) -> str | None:
        from federation.reason import ALLOWED, why_unspeakable

        found = why_unspeakable(text)
        return None if found is None else f"is no reason: {found}; allowed: {ALLOWED}"


class Hash(_Text):
    """A SHA-256, written as people and other tools write it; passed on as 64 of 0-9 and a-f."""

    name = "SHA256"

    def meant(self, text: str) -> str:
        from pki.digest import plain

        return plain(text)

    def fault(self, text: str) -> str | None:
        from pki.digest import is_digest

        return (
            None
            if is_digest(text)
            else "is not a SHA-256; allowed: 64 of 0-9 and a-f, with or without colons"
        )


class Serial(_Text):
    """The serial number of a certificate, in hex as other tools show it; passed on as digits alone."""

    name = "HEX"

    def meant(self, text: str) -> str:
        from pki.digest import plain

        return plain(text).removeprefix("0x")

    def fault(self, text: str) -> str | None:
        if re.fullmatch(r"[0-9a-f]{1,40}", text):
            return None
        return "is not a serial number; allowed: 1 to 40 of 0-9 and a-f, with or without colons"


class Instant(_Text):
    """A span, which counts back from now, or an instant (RFC 3339); passed on as an instant."""

    name = "SPAN|INSTANT"

    def meant(self, text: str) -> str:
        from federation.duration import Duration

        try:
            return (datetime.now(UTC) - timedelta(seconds=Duration.parse(text))).isoformat()
        except (ValueError, OverflowError):
            return text

    def fault(self, text: str) -> str | None:
        try:
            if datetime.fromisoformat(text).tzinfo is not None:
                return None
        except ValueError:
            pass
        return "is neither a span nor an instant; write 24h, or as in RFC 3339 2026-11-21T12:00:00Z"


class Identity(_Text):
    """What a certificate says whose it is: for us a SPIFFE ID, for other systems whatever they have there."""

    name = "ID"

    def fault(self, text: str) -> str | None:
        from pki.spiffe import LONGEST_ID

        return None if 1 <= len(text) <= LONGEST_ID and text.isprintable() else "is no identity"


CLUSTER = ClusterName()
NAMESPACE = Namespace()
REASON = Reason()
HASH = Hash()
SERIAL = Serial()
INSTANT = Instant()
IDENTITY = Identity()
