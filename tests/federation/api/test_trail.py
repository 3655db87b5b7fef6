"""What the log tells of callers: every change with its actor, no secret, and no more of strangers than fits."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from federation.api.trail import MOST, WINDOW, Trail
from tests.federation.api.hub_world import hub_routes
from tests.federation.api.world import Api, ask, serve


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path) as served:
        yield served


async def test_a_change_names_who_made_it_and_what_its_route_tells(api: Api) -> None:
    ada, eve = await api.operator("ada", "operator"), await api.bearer("eve", "operator")
    body = {"cluster": "east", "may_export": ["default/*"], "lifetime": 60}
    with capture_logs() as lines:
        for target in (api.local, api.remote(ada), api.remote(token=eve)):
            assert (await ask(target, "POST", "/v1/things", body=body))[0] == 200
            assert (await ask(target, "GET", "/v1/things/x"))[0] == 200
    assert [line["actor"] for line in lines] == [f"unix:{os.geteuid()}", "ada", "eve"]
    for line in lines:
        assert {name: value for name, value in line.items() if name != "actor"} == {
            "event": "changed",
            "log_level": "info",
            "method": "POST",
            "path": "/v1/things",
            "may_export": ("default/*",),
        }


async def test_a_refusal_names_who_was_refused_and_where_it_came_from(api: Api) -> None:
    viewer = await api.operator("vi", "viewer")
    with capture_logs() as lines:
        assert (await ask(api.remote(viewer), "POST", "/v1/things", body={}))[0] == 403
        assert (await ask(api.remote(token="fedop1.x"), "GET", "/v1/things/guessed"))[0] == 401
        assert (await ask(api.remote(), "POST", "/v1/join", body={}))[0] == 403
        assert (await ask(api.remote(), "GET", "/v1/x", headers={"Origin": "https://evil"}))[0] == 403
    assert [(line.get("actor"), line["caller"], line["path"], line["status"]) for line in lines] == [
        ("vi", "127.0.0.1", "/v1/things", 403),
        (None, "127.0.0.1", "/v1/things/{name}", 401),
        (None, "127.0.0.1", "/v1/join", 403),
        (None, "127.0.0.1", "no path of ours", 403),
    ]
    assert "fedop1.x" not in str(lines)


def test_strangers_cannot_fill_the_log_nor_hide_anybody_who_is_known() -> None:
    now = 100.0
    trail = Trail(lambda: now)

    def refuse(actor: str | None) -> None:
        trail.refused(actor, "192.0.2.1", "GET", "/v1/status", 401, "why")

    with capture_logs() as lines:
        for _ in range(1000):
            refuse(None)
        assert len(lines) == MOST
        refuse("vi")
        assert lines[-1]["actor"] == "vi"
        now += WINDOW
        refuse(None)
        refuse(None)
    assert [line.get("unwritten") for line in lines[MOST:]] == [None, str(1000 - MOST), None]


def test_no_route_tells_what_is_secret() -> None:
    routes = hub_routes()
    assert any(route.told for route in routes)
    for route in routes:
        assert not {"token", "csr", "certificates", "bundle"} & set(route.told), route.path
