"""How long to wait before trying again: jittered, capped, and short again after a while without failure."""

from __future__ import annotations

import random

from federation.clock import Clock


class Backoff:
    """Waits of `shortest` seconds, doubled with each failure up to `longest`, each drawn from its upper half.

    A failure that comes `longest` seconds or more after the last wait ended counts as the first one.
    """

    def __init__(self, clock: Clock, shortest: float, longest: float) -> None:
        self._clock = clock
        self._shortest = shortest
        self._longest = longest
        self._next = shortest
        self._ended: float | None = None

    async def wait(self) -> None:
        if self._ended is not None and self._clock.monotonic() - self._ended >= self._longest:
            self._next = self._shortest
        span = self._next
        self._next = min(self._next * 2, self._longest)
        await self._clock.sleep(random.uniform(span / 2, span))
        self._ended = self._clock.monotonic()
