"""A SHA-256 as people and other tools write it: upper or lower case, with colons or spaces between."""

from __future__ import annotations

import re

_DIGEST = re.compile(r"[0-9a-f]{64}")


def plain(text: str) -> str:
    """The same in lower case with nothing between, whether it is one or not."""
    return "".join(text.replace(":", "").split()).lower()


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 in hex as `plain` leaves it."""
    return _DIGEST.fullmatch(text) is not None
