"""What bad calls get: one shape of refusal, no insides, nothing for pages of other origins."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from federation.api.server import MAX_BODY, REFUSED_AFTER
from tests.federation.api.world import INSIDE, SERVER_NAME, Api, ask, http, serve


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path) as served:
        yield served


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "says"),
    [
        ("GET", "/v1/nothing", None, 404, "not-found", "no such path"),
        ("GET", "/v1/things/a/b", None, 404, "not-found", "no such path"),
        ("DELETE", "/v1/things", None, 405, "method-not-allowed", "Method Not Allowed"),
        ("GET", "/v1/things/x?form=east", None, 400, "bad-query", "'form'"),
        ("POST", "/v1/things?from=east", {}, 400, "bad-query", "'from'"),
        ("POST", "/v1/things", {"clutser": "east"}, 400, "bad-body", "clutser"),
        ("POST", "/v1/things", {"cluster": 3}, 400, "bad-body", "Expected `str"),
        ("POST", "/v1/things", {"lifetime": 601}, 400, "bad-body", "<= 600"),
        ("POST", "/v1/things", {"lifetime": 1e300}, 400, "bad-body", "<= 600"),
        ("POST", "/v1/things", {"lifetime": 0}, 400, "bad-body", ">= 1"),
        ("POST", "/v1/things", {"lifetime": 0.001}, 400, "bad-body", ">= 1"),
        ("POST", "/v1/things", b'{"cluster": "a", "cluster": "b"}', 400, "bad-body", "'cluster' twice"),
        ("POST", "/v1/things", b'{"cluster": "a", "\\u0063luster": "b"}', 400, "bad-body", "'cluster' twice"),
        ("GET", "/v1/things/x?from=a&from=b", None, 400, "bad-query", "'from' is there twice"),
        ("GET", "/v1/impossible", None, 400, "bad-value", "cannot be"),
        ("POST", "/v1/things", [], 400, "bad-body", "Expected `object`"),
        ("POST", "/v1/things", b"{", 400, "bad-body", "truncated"),
        ("POST", "/v1/things", b"", 400, "bad-body", "truncated"),
        ("POST", "/v1/things", b'{"cluster": "\xff"}', 400, "bad-body", "'utf-8' codec"),
        ("POST", "/v1/things", b" " * (MAX_BODY + 1), 413, "too-large", "64 KiB"),
        ("GET", "/v1/full", None, 409, "refused", "No space left on device"),
        ("GET", "/v1/broken", None, 500, "internal", "inside the process"),
    ],
)  # fmt: skip
async def test_a_bad_call_is_refused_with_a_reason(
    api: Api, method: str, path: str, body: object, status: int, code: str, says: str
) -> None:
    found, answer = await ask(api.local, method, path, body=body)
    assert (found, answer["code"]) == (status, code)
    assert says in answer["message"]
    assert INSIDE not in str(answer)
    assert set(answer) == {"code", "message", "hint"}
    assert not api.routes.calls


async def test_every_answer_has_the_headers_that_http_asks_for_and_none_that_names_the_library(
    api: Api,
) -> None:
    async with http(api.remote()) as session:
        for method, path, status, header, value in (
            ("GET", "/v1/things/x", 401, "WWW-Authenticate", 'Bearer realm="federation"'),
            ("DELETE", "/v1/things", 405, "Allow", "POST"),
            ("GET", "/v1/nothing", 404, "Content-Type", "application/json"),
            ("GET", "/healthz", 401, "WWW-Authenticate", 'Bearer realm="federation"'),
        ):
            asked = session.request(method, api.url + path, server_hostname=SERVER_NAME)
            async with asked as response:
                assert (response.status, response.headers[header]) == (status, value)
                assert "Server" not in response.headers


async def test_a_call_hands_on_what_was_asked(api: Api) -> None:
    status, _ = await ask(api.local, "GET", "/v1/things/a%2Fb%20c?from=east")
    assert status == 200
    (call,) = api.routes.calls
    assert (dict(call.params), dict(call.query), call.body) == ({"name": "a/b c"}, {"from": "east"}, None)


async def test_a_body_that_never_ends_is_cut_off(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 4096

    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api.socket))) as session:
        asked = session.post(
            "http://localhost/v1/things", data=endless(), headers={"Content-Type": "application/json"}
        )
        try:
            async with asyncio.timeout(30), asked as response:
                assert response.status == 413
        except (aiohttp.ClientError, ConnectionError):
            pass


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /\xff\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    ],
    ids=["nonsense", "length", "line", "path", "headers"],
)
async def test_what_is_no_http_is_refused_and_is_one_line_in_the_log(
    api: Api, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(request_)
    assert (await reader.read()).startswith(b"HTTP/1.0 400")
    writer.close()
    assert all(record.exc_info is None and "\n" not in record.getMessage() for record in caplog.records)


async def test_a_body_is_taken_as_it_is_and_never_unpacked(api: Api) -> None:
    for packed in (gzip.compress(b" " * 10_000_000), gzip.compress(b"{}"), b"no gzip"):
        status, answer = await ask(
            api.local, "POST", "/v1/things", body=packed, headers={"Content-Encoding": "gzip"}
        )
        assert (status, answer["code"]) == (400, "bad-body")


@pytest.mark.parametrize("opening", [b"[", b'{"cluster": [', b'{"a":'])
async def test_a_body_that_is_nested_without_end_is_refused(api: Api, opening: bytes) -> None:
    status, answer = await ask(
        api.local, "POST", "/v1/things", body=opening * ((MAX_BODY - 1) // len(opening))
    )
    assert (status, answer["code"]) == (400, "bad-body")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost.evil.example"},
        {"Origin": "https://localhost:9"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
async def test_a_page_of_another_origin_can_use_nothing(api: Api, headers: dict[str, str]) -> None:
    """A page may send these without asking first; the browser would add the operator's certificate."""
    shown = await api.operator("ada", "operator")
    for target in (api.local, api.remote(shown)):
        status, answer = await ask(target, "POST", "/v1/things", body={"cluster": "x"}, headers=headers)
        assert status in (403, 415), answer
    assert not api.routes.calls


async def test_no_answer_lets_another_origin_read(api: Api) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api.socket))) as session:
        for method in ("GET", "OPTIONS"):
            asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
            async with session.request(method, "http://localhost/v1/things/x", headers=asked) as response:
                assert response.status == 403
                assert not [name for name in response.headers if name.lower().startswith("access-control")]
        own = {"Origin": "http://localhost"}
        async with session.get("http://localhost/v1/things/x", headers=own) as response:
            assert response.status == 200


async def attempt(api: Api, cluster: str | None) -> tuple[float, int, Any]:
    began = time.perf_counter()
    status, answer = await ask(api.remote(), "POST", "/v1/join", body={"cluster": cluster})
    return time.perf_counter() - began, status, answer


async def test_a_refused_token_tells_nothing_by_its_answer_or_its_time(api: Api) -> None:
    refusals = [await attempt(api, cluster) for cluster in (None, "west", "", "hub")]
    assert {repr(refusal[1:]) for refusal in refusals} == {
        repr((403, {"code": "token", "message": "no good", "hint": ""}))
    }
    assert min(took for took, *_ in refusals) >= REFUSED_AFTER
    assert (await attempt(api, "east"))[1:] == (200, {"done": "joined"})


async def test_what_fails_inside_while_a_token_is_redeemed_is_not_for_strangers(api: Api) -> None:
    for cause in ("full", "store"):
        _, status, answer = await attempt(api, cause)
        assert (status, answer["code"]) == (503, "unavailable")
        assert INSIDE not in str(answer)
