"""The one allow-list for names that end up in file names, URLs, SNI, DNS and Kubernetes objects.

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


def dns_name(text: str) -> str:
    """Return `text` unchanged, or raise `InvalidName` if it is not labels joined by dots (253 bytes)."""
    if len(text) > LONGEST_DNS_NAME or not all(is_dns_label(label) for label in text.split(".")):
        raise InvalidName(
            text, "use lower-case DNS labels joined by '.', at most 253 bytes, no dot at the end"
        )
    return text
