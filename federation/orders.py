"""What an agent does because an operator of the hub wants it: as much as its own settings allow, and no more.

An order comes through the hub, which may be somebody else's by now. It has authority or leaves replaced a few times a
day at most, and goes on with, or turns back, only a rotation that an order began: what this cluster began itself is not
the hub's. Orders are counted on disk before they are obeyed, so that no restart forgets them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from federation.clock import Clock
from federation.errors import FederationError
from pki import durable
from pki.errors import PkiError

FILE = "orders.json"
LONGEST_FILE = 64 * 1024
DAY = timedelta(days=1)

Action = Literal["start", "abort", "advance", "leaves"]

_COUNTED = ("start", "leaves")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Whether orders are obeyed here at all, and how many that have something replaced, within any 24 hours."""

    from_hub: bool = True
    a_day: int = 4


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When orders were obeyed that had something replaced, oldest first."""

    obeyed: tuple[Annotated[datetime, Meta(tz=True)], ...]


def recent(obeyed: tuple[datetime, ...], now: datetime) -> tuple[datetime, ...]:
    """Those within a day, also the ones that a clock which was set back since has put in the future."""
    return tuple(at for at in obeyed if now - at < DAY)


def objection(
    action: Action, allowed: Allowed, ordered: bool | None, obeyed: tuple[datetime, ...], now: datetime
) -> tuple[str, str] | None:
    """Why an order is not obeyed and what can be done about it, or None.

    `ordered` says whether an order began the rotation that runs (None: none runs), `obeyed` when others were obeyed.
    """
    if not allowed.from_hub:
        return (
            "this cluster takes no orders from the hub about its authority (rotation.from_hub: false)",
            "ask at the socket of its agent, or change that setting there",
        )
    if ordered is False and action != "leaves":
        return (
            "the rotation that runs was begun in this cluster and not by the hub, which has no say in it",
            "ask at the socket of its agent",
        )
    if action == "start" and ordered:
        return "rotation: one is running already", "wait for its end, or turn it back"
    within = recent(obeyed, now) if action in _COUNTED else ()
    if len(within) < allowed.a_day:
        return None
    times = len(within)
    until = (sorted(within)[times - allowed.a_day] + DAY).isoformat(timespec="minutes")
    return (
        f"the hub had authority or leaves replaced here {times} times within a day (rotation.from_hub_a_day)",
        f"wait until {until}, or ask at the socket of the agent",
    )


class Orders:
    """Made by `open`. Whatever is done for an order is done within `obeying`."""

    def __init__(self, path: Path, obeyed: tuple[datetime, ...], allowed: Allowed, clock: Clock) -> None:
        self._path = path
        self._obeyed = obeyed
        self._allowed = allowed
        self._clock = clock
        self._one = asyncio.Lock()

    @classmethod
    def open(cls, folder: Path, allowed: Allowed, clock: Clock) -> Orders:
        """With what is on disk in the agent's `folder`. Raises FederationError for a file that is damaged."""
        path = folder / FILE
        try:
            file = msgspec.json.decode(durable.read_private(path, LONGEST_FILE), type=_File)
        except FileNotFoundError:
            return cls(path, (), allowed, clock)
        except (msgspec.MsgspecError, PkiError) as error:
            raise FederationError(
                f"{path} cannot be read: {error}",
                "remove it: it only counts what the hub has ordered of late",
            ) from error
        return cls(path, file.obeyed, allowed, clock)

    @asynccontextmanager
    async def obeying(self, action: Action, ordered: Callable[[], bool | None]) -> AsyncIterator[None]:
        """One order after the other; `ordered` answers as in `objection`. Raises FederationError for one that is
        refused, or that cannot be counted.
        """
        async with self._one:
            now = self._clock.now()
            why = objection(action, self._allowed, ordered(), self._obeyed, now)
            if why is not None:
                raise FederationError(*why)
            if action in _COUNTED:
                await self._count(now)
            yield

    async def _count(self, now: datetime) -> None:
        obeyed = (*recent(self._obeyed, now), now)
        try:
            await asyncio.to_thread(durable.write, self._path, msgspec.json.encode(_File(obeyed)))
        except PkiError as error:
            raise FederationError(f"the order cannot be counted: {error}") from error
        self._obeyed = obeyed
