"""The newest value of something, for any number of readers: whoever is slow misses what was in between.

Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        return self._value

    def publish(self, value: T) -> None:
        self._value = value
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def after(self, seen: T | None) -> T:
        """The newest value as soon as it is another object than `seen`."""
        while self._value is seen:
            await self._changed.wait()
        return self._value
