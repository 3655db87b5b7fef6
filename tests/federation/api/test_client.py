"""The client: one clear error for whatever is at the other end, and nothing taken on trust."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from federation.api.client import LONGEST_ANSWER, Refusal, Target, connect
from federation.api.tls import client_context
from federation.errors import Unreachable
from tests.federation.api.world import Api, serve
from tests.gateway.certificates import ca


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path) as served:
        yield served


async def get(target: Target, path: str = "/v1/things/x", timeout: float = 15.0) -> object:
    async with connect(target, timeout=timeout) as client:
        return await client.get(path)


@asynccontextmanager
async def saying(folder: Path, *words: bytes) -> AsyncIterator[Target]:
    """A server at a unix socket that answers every request with the same bytes and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for word in words:
                writer.write(word)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    path = folder / "odd.sock"
    server = await asyncio.start_unix_server(answer, str(path))
    async with server:
        yield Target(f"unix://{path}")


async def test_an_answer_is_what_was_said(api: Api) -> None:
    assert await get(api.local) == {"done": f"unix:{api.folder.stat().st_uid}"}
    secret = await api.bearer("ada", "viewer")
    assert await get(api.remote(token=secret)) == {"done": "ada"}
    assert await get(api.remote(await api.operator("vi", "viewer"))) == {"done": "vi"}


async def test_a_refusal_carries_its_reason_and_what_to_do(api: Api) -> None:
    with pytest.raises(Refusal) as refused:
        await get(api.remote())
    assert (refused.value.status, refused.value.code, refused.value.exit_code) == (401, "unauthorized", 1)
    assert "federation operator create" in refused.value.hint


async def test_nobody_there_is_one_clear_line(tmp_path: Path) -> None:
    missing, stale = tmp_path / "missing.sock", tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for target, why in (
        (Target(f"unix://{missing}"), "No such file or directory"),
        (Target(f"unix://{stale}"), "Connection refused"),
        (Target(f"https://127.0.0.1:{port}"), "Connection refused"),
        (Target("https://nobody.invalid:1"), ""),
        (Target(f"http://127.0.0.1:{port}"), "not one to call"),
        (Target("unix:api.sock"), "not one to call"),
        (Target("https://["), ""),
        (Target("https://127.0.0.1:99999"), ""),
    ):
        with pytest.raises(Unreachable) as told:
            await get(target)
        assert str(told.value).startswith(f"cannot reach {target.url}: ")
        assert why in str(told.value)
        assert told.value.exit_code == 3


async def test_a_server_that_is_not_the_one_expected_is_not_spoken_to(api: Api) -> None:
    trusting = api.remote()
    stranger = ca("hub-of-others").write(api.folder / "stranger")
    other = client_context((ca("hub-of-others").certificate,), stranger.chain, stranger.key)
    for target in (
        Target(trusting.url, other, trusting.server_name),
        Target(trusting.url, trusting.tls, "agent.east.mesh.example"),
        Target(trusting.url, trusting.tls),
        Target(trusting.url, None, trusting.server_name),
    ):
        with pytest.raises(Unreachable, match="certificate"):
            await get(target)
    assert not api.routes.calls


@pytest.mark.parametrize(
    "words",
    [
        (b"",),
        (b"SSH-2.0-OpenSSH\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\xff",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff",),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",),
        (b'HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\n{"error": 403}',),
        (b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",),
    ],
    ids=["nothing", "another protocol", "no JSON", "cut", "no text", "a proxy", "another API", "elsewhere"],
)
async def test_what_does_not_speak_this_api_is_told(tmp_path: Path, words: tuple[bytes, ...]) -> None:
    async with saying(tmp_path, *words) as target:
        with pytest.raises(Unreachable, match="cannot reach"):
            await get(target)


async def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    megabyte = b"100000\r\n" + b" " * (1024 * 1024) + b"\r\n"
    endless = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    endless += [megabyte] * (LONGEST_ANSWER // (1024 * 1024) + 1)
    async with saying(tmp_path, *endless) as target:
        with pytest.raises(Unreachable, match="longer than 64 MiB"):
            await get(target, timeout=60.0)


async def test_who_does_not_answer_in_time_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(Unreachable, match="no answer in time"):
            await get(Target(f"unix://{path}"), timeout=0.05)


def test_a_secret_is_not_shown() -> None:
    assert "fedop1.secret" not in repr(Target("https://hub:1", token="fedop1.secret"))


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Role: operator", "\u00e9"])
async def test_a_token_cannot_add_headers(api: Api, token: str) -> None:
    with pytest.raises((Unreachable, Refusal)):
        await get(api.remote(token=token))
    assert not api.routes.calls
