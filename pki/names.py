"""The one allow-list for names that end up in file names, URLs, SNI, DNS and Kubernetes objects, and the one
way to match a name with a pattern.

It refuses by being narrow: what is not a lower-case DNS label (RFC 1123 §2.1) does not pass, so that no path,
quoting or case question can arise behind it.
"""

from __future__ import annotations

import re

from pki.errors import InvalidName

LONGEST_LABEL = 63
LONGEST_DNS_NAME = 253

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def is_dns_label(text: str) -> bool:
    """Whether `text` is a lower-case DNS label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end."""
    return len(text) <= LONGEST_LABEL and _LABEL.fullmatch(text) is not None


def dns_label(text: str) -> str:
    """Return `text` unchanged, or raise `InvalidName` when it is not a lower-case DNS label."""
    if not is_dns_label(text):
        raise InvalidName(text, "use 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-'")
    return text


def is_dns_name(text: str) -> bool:
    """Whether `text` is lower-case DNS labels joined by dots, of at most 253 bytes."""
    return len(text) <= LONGEST_DNS_NAME and all(is_dns_label(label) for label in text.split("."))


def dns_name(text: str) -> str:
    """Return `text` unchanged, or raise `InvalidName` if it is not labels joined by dots (253 bytes)."""
    if not is_dns_name(text):
        raise InvalidName(
            text, "use lower-case DNS labels joined by '.', at most 253 bytes, no dot at the end"
        )
    return text


def matches_name(pattern: str, name: str) -> bool:
    """Whether a pattern, in which `*` stands for any characters, covers `name`; without `*` if they are equal.

    Takes time linear in pattern times name.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
