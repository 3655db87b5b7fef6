"""How long to wait before trying again: jittered, capped, and short again after a while without failure.

Full jitter: each wait is drawn from zero to the span of that attempt, so that many who lost the same peer do not come
back together, and whoever lost it for a moment is back in a moment (AWS Architecture Blog, Exponential Backoff And
Jitter).
"""

from __future__ import annotations

import random

from federation.clock import Clock


class Backoff:
    """Waits of at most `shortest` seconds, `growth` times as long with each failure, up to `longest`.

    A failure that comes `longest` seconds or more after the last wait ended counts as the first one.
    """

    def __init__(self, clock: Clock, shortest: float, longest: float, growth: float = 2.0) -> None:
        self._clock = clock
        self._shortest = shortest
        self._longest = longest
        self._growth = growth
        self._next = shortest
        self._ended: float | None = None

    def reset(self) -> None:
        """It worked for long enough: the next failure is the first one."""
        self._next = self._shortest

    async def wait(self) -> None:
        if self._ended is not None and self._clock.monotonic() - self._ended >= self._longest:
            self.reset()
        span = self._next
        self._next = min(self._next * self._growth, self._longest)
        await self._clock.sleep(random.uniform(0, span))
        self._ended = self._clock.monotonic()
