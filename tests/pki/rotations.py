"""Rotations that nobody holds up, step by step, and what a process that dies at any of their writes leaves behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import pytest

from pki import durable
from pki.keys.file import FileKeyStore
from pki.rotation import Phase, Rotation, abort, advance
from pki.succession import Succession

NOBODY: frozenset[str] = frozenset()

S = TypeVar("S", bound=Succession[Any])


def phase(here: Succession[Any]) -> Phase:
    assert here.rotation is not None
    return here.rotation.phase


async def begun(here: Succession[Any]) -> Phase:
    await here.begin("ada", "")
    return phase(here)


async def go_on(here: Succession[Any]) -> Phase:
    """To the next phase, which nobody holds up."""
    assert here.rotation is not None
    await here.enter(advance(here.rotation, NOBODY, {}))
    return phase(here)


async def turn_back(here: Succession[Any]) -> Phase:
    assert here.rotation is not None
    back = abort(here.rotation)
    assert back is not None
    await here.enter(back)
    return phase(here)


Step = Callable[[Succession[Any]], Awaitable[Phase]]

THERE: tuple[Step, ...] = (begun, go_on, go_on, go_on, go_on)
BACK: tuple[Step, ...] = (begun, go_on, go_on, turn_back, go_on, go_on)
EARLY: tuple[Step, ...] = (begun, turn_back)

When = Literal["before", "after"]


class Died(Exception):
    """The process, just before it wrote something, or just after."""


class Deaths:
    """The process dies at the `at`-th write, or removal of a key, from the moment when that was set."""

    def __init__(self, when: When, patch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self._when = when
        patch.setattr(durable, "write", self._dying(durable.write))
        patch.setattr(durable, "create", self._dying(durable.create))
        patch.setattr(FileKeyStore, "_remove", staticmethod(self._dying(FileKeyStore._remove)))

    def _dying(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if self.at is None:
                return function(*args, **more)
            self.at -= 1
            if self.at > 0:
                return function(*args, **more)
            self.at = None
            if self._when == "after":
                function(*args, **more)
            raise Died

        return call


async def die_at_every_write(
    opened: Callable[[], Awaitable[S]],
    keys: FileKeyStore,
    path: Sequence[Step],
    when: When,
    patch: pytest.MonkeyPatch,
    look: Callable[[S], Awaitable[None]],
) -> None:
    """Go `path` again and again, and die once on each, one write later than on the one before; until it was shorter.

    `look` checks what is there after each step, and after each start that follows a death. A step that had been written
    down when the process died is not taken again.
    """
    deaths = Deaths(when, patch)
    here, point, died = await opened(), 0, True
    await look(here)
    while died:
        point, died = point + 1, False
        deaths.at = point
        for step in path:
            before, taken = here.rotation, False
            while not taken:
                try:
                    await step(here)
                    taken = True
                except Died:
                    died = True
                    here = await opened()
                    taken = _is_later(here.rotation, before)
                await look(here)
        deaths.at = None
        assert here.rotation is not None
        assert here.rotation.over
        assert len(await keys.names()) == len(here.bundle().anchors) == 1
    assert point > len(path)


def _is_later(now: Rotation | None, before: Rotation | None) -> bool:
    return now is not None and (before is None or before.token < now.token)
