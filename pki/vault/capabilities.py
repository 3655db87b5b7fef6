"""What the policy of our token lets us do, compared with what we need. Pure.

Too little is told by name before it is needed. Too much is told as well: what signs whatever it is given, or hands out
a key, makes whoever steals the token a root of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALL = "root"
"""The capability of a token to which no policy applies."""

CHANGES = frozenset({"create", "update", "delete", "patch", "sudo", ALL})


@dataclass(frozen=True, slots=True)
class Needs:
    """Paths with the capability that each needs, and paths on which nothing may be changed, with what that would do."""

    must: Mapping[str, str]
    never: Mapping[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.must, *self.never)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Sentences: what is missing, and what is too much."""

    lacking: tuple[str, ...]
    excess: tuple[str, ...]


def judge(needs: Needs, found: Mapping[str, Any]) -> Verdict:
    """Compare with the `data` of an answer of `sys/capabilities-self`."""
    lacking = [
        f"{path} needs {capability}"
        for path, capability in needs.must.items()
        if not {capability, ALL} & _of(found, path)
    ]
    if any(ALL in _of(found, path) for path in needs.paths):
        return Verdict(tuple(lacking), ("the token is a root token and may do everything",))
    excess = [f"{path}: {what}" for path, what in needs.never.items() if CHANGES & _of(found, path)]
    return Verdict(tuple(lacking), tuple(excess))


def _of(found: Mapping[str, Any], path: str) -> frozenset[str]:
    named = found.get(path)
    return frozenset(map(str, named)) if isinstance(named, list) else frozenset()
