"""Between a door and its agent, over a real unix socket: answers find who asked, and noise ends the connection."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from federation.errors import FederationError
from federation.svid.demand import Answer, Demand, Given, Held, Refusal, Secret, Vetted
from federation.svid.doors import LONGEST_FRAME, Asked, Hatch, Link, Served
from tests.federation.svid.world import GATEWAY

SERVED = Served(b"chain", b"a private key", b"bundle")


def demand(number: int) -> Demand:
    return Demand(GATEWAY, "00" * 32, number.to_bytes(16), (Refusal("csr", str(number)),))


async def echo(asked: Demand) -> Answer:
    """Later ones are answered first."""
    await asyncio.sleep(0.02 / (1 + asked.request_id[-1]))
    return Answer(tuple(each for each in asked.wishes if isinstance(each, Refusal)), b"bundle")


@asynccontextmanager
async def hatch(path: Path, told: list[Served]) -> AsyncIterator[Link]:
    ended = asyncio.Event()

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Hatch(reader, writer, echo)
        one.tell(SERVED)
        await one.run()
        ended.set()

    async with await asyncio.start_unix_server(opened, path):
        reader, writer = await asyncio.open_unix_connection(path)
        link = Link(reader, writer, told.append)
        running = asyncio.create_task(link.run(), name="link")
        yield link
        writer.close()
        await asyncio.wait_for(ended.wait(), 10)
        await running


async def test_answers_find_whoever_asked(tmp_path: Path) -> None:
    told: list[Served] = []
    async with hatch(tmp_path / "s", told) as link:
        answers = await asyncio.gather(*(link.issue(demand(number)) for number in range(50)))
        reasons = [one.reason for answer in answers for one in answer.outcomes if isinstance(one, Refusal)]
        assert reasons == [str(number) for number in range(50)]
        assert told == [SERVED]
    assert "private" not in repr(SERVED)


async def test_who_gives_up_disturbs_nobody(tmp_path: Path) -> None:
    async with hatch(tmp_path / "s", []) as link:
        impatient = asyncio.create_task(link.issue(demand(0)), name="impatient")
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await link.issue(demand(1))).bundle == b"bundle"
        with pytest.raises(asyncio.CancelledError):
            await impatient


async def test_a_door_that_is_gone_while_it_is_answered_is_just_gone(tmp_path: Path) -> None:
    """What was lost in writing is told to whoever reads (asyncio, `StreamReaderProtocol.connection_lost`)."""
    ended = asyncio.Event()

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader.set_exception(BrokenPipeError(errno.EPIPE, "Broken pipe"))
        await Hatch(reader, writer, answering).run()
        ended.set()

    async def answering(_: Demand) -> Answer:
        return Answer((), b"bundle")

    async with await asyncio.start_unix_server(opened, tmp_path / "s"):
        left, writer = await asyncio.open_unix_connection(tmp_path / "s")
        async with asyncio.timeout(20):
            assert await left.read() == b""
            await ended.wait()
        writer.close()
        await writer.wait_closed()


async def test_what_the_agent_cannot_do_is_an_error_at_the_door(tmp_path: Path) -> None:
    async def failing(_: Demand) -> Answer:
        raise FederationError("no disk")

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Hatch(reader, writer, failing).run()

    async with await asyncio.start_unix_server(opened, tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        link = Link(reader, writer, lambda served: None)
        running = asyncio.create_task(link.run(), name="link")
        with pytest.raises(FederationError, match="could not issue"):
            await link.issue(demand(1))
        writer.close()
        await running


def frame(number: int) -> bytes:
    """What a door sends when it asks."""
    data = msgpack.encode(Asked(number, demand(number)))
    return len(data).to_bytes(4) + data


async def said_to(path: Path, *parts: bytes, cut: bool = False) -> bytes:
    """All that an agent answers; with `cut` nothing comes after the last part."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"".join(parts))
    if cut:
        writer.write_eof()
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "noise",
    [
        (5).to_bytes(4) + b"\xc1\xc1\xc1\xc1\xc1",
        (1).to_bytes(4) + b"\x01",
        (LONGEST_FRAME + 1).to_bytes(4) + b"x",
        b"\xff\xff\xff\xff",
    ],
)
async def test_noise_ends_the_connection_and_nothing_after_it_is_heard(noise: bytes, tmp_path: Path) -> None:
    heard: list[Demand] = []

    async def noted(asked: Demand) -> Answer:
        heard.append(asked)
        return await echo(asked)

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Hatch(reader, writer, noted).run()

    async with await asyncio.start_unix_server(opened, tmp_path / "s"):
        assert await said_to(tmp_path / "s", frame(1), cut=True) != b""
        assert heard == [demand(1)]
        assert await said_to(tmp_path / "s", noise, frame(2)) == b""
        assert await said_to(tmp_path / "s", frame(3)[:-1], cut=True) == b""
        assert heard == [demand(1)]


HELD = st.builds(Held, st.text("0123456789abcdef", min_size=1, max_size=40), st.text("0123456789abcdef"))
VETTED = st.builds(
    Vetted,
    st.binary(max_size=600),
    HELD | st.builds(Secret, st.binary(max_size=64)),
    st.none() | st.integers(0, 2**32),
)
REFUSED = st.builds(Refusal, st.text(max_size=20), st.text(max_size=80), st.floats(0, 1e6))
GIVEN = st.builds(
    Given,
    st.lists(st.binary(max_size=900), max_size=3).map(tuple),
    st.none() | st.integers(0, 2**32),
    st.integers(0, 2**32),
    st.text(max_size=40),
    st.integers(0, 2**40),
)


@given(st.lists(VETTED | REFUSED, max_size=64).map(tuple), st.lists(GIVEN | REFUSED, max_size=64).map(tuple))
def test_demands_and_answers_survive_the_way(
    wishes: tuple[Vetted | Refusal, ...], outcomes: tuple[Given | Refusal, ...]
) -> None:
    asked, answer = Demand(GATEWAY, "ab", bytes(16), wishes), Answer(outcomes, b"bundle")
    assert msgpack.decode(msgpack.encode(asked), type=Demand) == asked
    assert msgpack.decode(msgpack.encode(answer), type=Answer) == answer
