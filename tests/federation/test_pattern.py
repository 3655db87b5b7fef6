from __future__ import annotations

import pytest

from federation.model import Service
from federation.pattern import is_service_pattern, matches_service


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("default/echo", "default/echo", True),
        ("default/echo", "default/echo2", False),
        ("default/*", "default/echo", True),
        ("default/*", "other/echo", False),
        ("*/echo", "any/echo", True),
        ("*/*", "any/thing", True),
        ("team-*/api", "team-a/api", True),
        ("team-*/api", "team/api", False),
        ("*/a*a", "x/a", False),
        ("*/a*a", "x/aa", True),
        ("*", "x/y", False),
        ("x/y/z", "x/y", False),
        ("default/e?ho", "default/echo", False),
        ("default/[e]cho", "default/echo", False),
    ],
)
def test_a_star_stays_within_its_part(pattern: str, name: str, covered: bool) -> None:
    namespace, _, service = name.partition("/")
    assert matches_service(pattern, Service(namespace, service)) is covered


@pytest.mark.parametrize("text", ["*/*", "default/echo", "team-*/api", "a/b*c*d"])
def test_patterns_that_are_stored(text: str) -> None:
    assert is_service_pattern(text)


@pytest.mark.parametrize(
    "text", ["", "*", "a", "a/", "/a", "a/b/c", "A/b", "-a/b", "a/b-", "a b/c", "a/b\n", "x" * 127 + "/y"]
)
def test_patterns_that_are_refused(text: str) -> None:
    assert not is_service_pattern(text)
