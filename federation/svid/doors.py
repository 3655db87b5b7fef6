"""Door processes for `IssueSvid`: they speak TLS and gRPC and vet wishes; the agent alone decides, signs and records.

A door holds no key of the authority, no journal and no token. What it needs to speak TLS it is told over a private unix
socket, and again whenever that changes; over the same socket go the wishes that it has vetted, and come the answers.
A frame is its length (4 bytes) and a message in MessagePack.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import structlog

from federation.errors import FederationError
from federation.svid.demand import Answer, Demand

LONGEST_FRAME = 4 << 20
"""Bytes; an answer to 64 wishes has less than 200 KiB."""

log = structlog.get_logger()


class Served(msgspec.Struct, frozen=True, tag="served", forbid_unknown_fields=True):
    """With what a door speaks TLS (PEM), and the encoded bundle by which it knows callers."""

    chain: bytes
    key: bytes
    bundle: bytes

    def __repr__(self) -> str:
        return "Served(…)"


class Asked(msgspec.Struct, frozen=True, tag="asked", forbid_unknown_fields=True):
    number: int
    demand: Demand


class Answered(msgspec.Struct, frozen=True, tag="answered", forbid_unknown_fields=True):
    """`answer` is None if nothing could be done; the log of the agent has the reason."""

    number: int
    answer: Answer | None


_to_door = msgspec.msgpack.Decoder(Served | Answered)
_to_agent = msgspec.msgpack.Decoder(Asked)
_encoder = msgspec.msgpack.Encoder()


class Hatch:
    """The agent's side of one door's connection; `issue` does what is asked, `served` is told at once and by `tell`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        issue: Callable[[Demand], Awaitable[Answer]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._issue = issue

    def tell(self, served: Served) -> None:
        _send(self._writer, served)

    async def run(self) -> None:
        """Until the door is gone. What it asks is done side by side."""
        try:
            async with asyncio.TaskGroup() as group:
                while (asked := await self._heard()) is not None:
                    group.create_task(self._answer(asked), name=f"issue-{asked.number}")
        finally:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    async def _heard(self) -> Asked | None:
        """What the door asks next; None when it is gone, or does not speak our language."""
        frame = await _receive(self._reader)
        try:
            return None if frame is None else _to_agent.decode(frame)
        except msgspec.MsgspecError as error:
            log.error("a door does not speak our language", reason=str(error))
            return None

    async def _answer(self, asked: Asked) -> None:
        answer: Answer | None = None
        try:
            answer = await self._issue(asked.demand)
        except (FederationError, OSError) as error:
            log.error("a door could not be answered", reason=str(error))
        finally:
            _send(self._writer, Answered(asked.number, answer))
        with suppress(OSError):
            await self._writer.drain()


class Link:
    """A door's side: `issue` asks the agent; `on_served` hears, each time it is told, what to speak TLS with."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_served: Callable[[Served], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_served = on_served
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def issue(self, demand: Demand) -> Answer:
        """Raises FederationError if the agent could not answer."""
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            _send(self._writer, Asked(number, demand))
            return await future
        finally:
            del self._waiting[number]

    async def run(self) -> None:
        """Until the agent is gone."""
        while (frame := await _receive(self._reader)) is not None:
            match _to_door.decode(frame):
                case Served() as served:
                    self._on_served(served)
                case Answered(number=number, answer=answer):
                    future = self._waiting.get(number)
                    if future is None or future.done():
                        continue
                    if answer is None:
                        future.set_exception(FederationError("the agent could not issue", "see its log"))
                    else:
                        future.set_result(answer)


def _send(writer: asyncio.StreamWriter, message: Served | Asked | Answered) -> None:
    data = _encoder.encode(message)
    writer.write(len(data).to_bytes(4) + data)


async def _receive(reader: asyncio.StreamReader) -> bytes | None:
    """The next message; None when the other side is gone, or says more than fits into a frame."""
    try:
        length = int.from_bytes(await reader.readexactly(4))
        return await reader.readexactly(length) if length <= LONGEST_FRAME else None
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
