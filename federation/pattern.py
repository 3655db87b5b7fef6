"""Patterns for names: `*` stands for any characters within one part, and never crosses the `/` between parts.

`shop/*` is every service of one namespace, `*/echo` one name in every namespace, `team-*/api` what it looks
like. There are no other special characters, and matching takes time linear in pattern times name.
"""

from __future__ import annotations

import re

from federation.model import Service
from pki.names import matches_name

LONGEST = 127

_PART = r"(?=[a-z0-9*])[a-z0-9*-]*(?<=[a-z0-9*])"
_VALID = re.compile(rf"{_PART}/{_PART}")


def is_service_pattern(text: str) -> bool:
    """Whether `text` is `<namespace>/<name>`, both of a-z, 0-9, '-' and '*', at most 127 characters in all."""
    return len(text) <= LONGEST and _VALID.fullmatch(text) is not None


def matches_service(pattern: str, service: Service) -> bool:
    """Whether `<namespace>/<name>` covers `service`. A pattern without exactly one `/` covers nothing."""
    parts = pattern.split("/")
    return (
        len(parts) == 2 and matches_name(parts[0], service.namespace) and matches_name(parts[1], service.name)
    )
