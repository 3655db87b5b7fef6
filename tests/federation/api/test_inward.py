"""What the hub may ask an agent through the sync stream: what a viewer may see, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import structlog

from federation.api.inward import Inward
from federation.api.messages import Done
from federation.api.routes import Access, ApiProblem, Call, Principal, Route
from federation.errors import FederationError
from federation.questions import Question

INSIDE = "what nobody outside may read"


class Asked:
    """Routes of each kind of access; each call is kept."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failing: Exception | None = None

    async def note(self, call: Call) -> Done:
        self.calls.append(call)
        if self.failing is not None:
            raise self.failing
        return Done(done="seen")

    def inward(self) -> Inward:
        at = "/v1/services/{namespace}/{name}"
        return Inward(
            (
                Route("GET", "/v1/status", "", Access.VIEWER, self.note, Done),
                Route("GET", at, "", Access.VIEWER, self.note, Done, query=("from",)),
                Route("GET", "/v1/tokens", "", Access.OPERATOR, self.note, Done),
                Route("GET", "/v1/mine", "", Access.PEER, self.note, Done),
                Route("GET", "/v1/outcome", "", Access.OUTCOME, self.note, Done),
                Route("POST", "/v1/things", "", Access.VIEWER, self.note, Done, Done),
                Route("DELETE", "/v1/gateways/{name}", "", Access.VIEWER, self.note, Done),
                Route(
                    "POST",
                    "/v1/turns",
                    "",
                    Access.OPERATOR,
                    self.note,
                    Done,
                    request=Done,
                    told=("done",),
                    inward=True,
                ),
            )
        )


async def ask(asked: Asked, path: str) -> tuple[int, Any]:
    status, body = await asked.inward().answer(Question(path))
    return status, msgspec.json.decode(body)


async def test_a_question_is_answered_as_for_a_viewer() -> None:
    asked = Asked()
    assert await ask(asked, "/v1/services/default/echo%20x?from=east") == (200, {"done": "seen"})
    [call] = asked.calls
    assert call.principal == Principal("the hub", Access.VIEWER)
    assert call.params == {"namespace": "default", "name": "echo x"}
    assert call.query == {"from": "east"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tokens",
        "/v1/mine",
        "/v1/outcome",
        "/v1/things",
        "/v1/gateways/gw-0",
        "/v1/services/default",
        "/v1/services/default/echo/more",
        "/v1/services//echo",
        "/v1/status/",
        "/V1/status",
        "/v1/../v1/tokens",
        "/v1/openapi.json",
        "/healthz",
        "",
        "v1/status\n",
        "//[",
        "http://[::1/v1/status",
    ],
)
async def test_whatever_else_is_asked_is_not_there(path: str) -> None:
    asked = Asked()
    status, problem = await ask(asked, path)
    assert (status, problem["code"]) == (404, "not-found")
    assert asked.calls == []


@pytest.mark.parametrize("query", ["frm=east", "from=east&x=1"])
async def test_an_unknown_parameter_is_refused_as_over_http(query: str) -> None:
    asked = Asked()
    status, problem = await ask(asked, f"/v1/services/default/echo?{query}")
    assert (status, problem["code"]) == (400, "bad-query")
    assert "allowed: from" in problem["hint"]
    assert asked.calls == []


async def test_a_parameter_that_is_there_twice_is_refused_as_over_http() -> None:
    asked = Asked()
    status, problem = await ask(asked, "/v1/services/default/echo?from=east&from=west")
    assert (status, problem["code"], problem["message"]) == (
        400, "bad-query", "query parameter 'from' is there twice",
    )  # fmt: skip
    assert asked.calls == []


async def test_refusals_keep_their_status_and_hint() -> None:
    asked = Asked()
    asked.failing = ApiProblem(404, "not-found", "there is no service", "look elsewhere")
    refused = {"code": "not-found", "message": "there is no service", "hint": "look elsewhere"}
    assert await ask(asked, "/v1/status") == (404, refused)
    asked.failing = FederationError("the disk is full", "make room")
    refused = {"code": "refused", "message": "the disk is full", "hint": "make room"}
    assert await ask(asked, "/v1/status") == (409, refused)


async def test_what_nobody_foresaw_is_logged_here_and_answered_without_its_insides() -> None:
    asked = Asked()
    asked.failing = RuntimeError(INSIDE)
    with structlog.testing.capture_logs() as logged:
        status, problem = await ask(asked, "/v1/status")
    assert (status, problem["code"]) == (500, "internal")
    assert INSIDE not in str(problem)
    assert [each["log_level"] for each in logged] == ["error"]


async def change(
    asked: Asked, path: str, body: bytes, method: str = "POST", actor: str = "ada"
) -> tuple[int, Any]:
    status, answer = await asked.inward().answer(Question(path, method, body, actor))
    return status, msgspec.json.decode(answer)


async def test_a_change_that_is_inward_comes_from_an_operator_of_the_hub_and_leaves_a_trace() -> None:
    asked = Asked()
    with structlog.testing.capture_logs() as logged:
        assert (await change(asked, "/v1/turns", b'{"done": "turned"}'))[0] == 200
    [call] = asked.calls
    assert (call.principal.name, call.principal.access) == ("ada (at the hub)", Access.OPERATOR)
    assert call.body == Done(done="turned")
    [line] = [one for one in logged if one["event"] == "changed"]
    assert (line["actor"], line["done"]) == ("ada (at the hub)", "turned")


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/v1/turns", "POST", b"", 400),
        ("/v1/turns", "POST", b'{"done": 1}', 400),
        ("/v1/turns", "POST", b"\xff", 400),
        ("/v1/turns", "GET", b"", 404),
        ("/v1/turns", "DELETE", b"", 404),
        ("/v1/things", "POST", b'{"done": "x"}', 404),
        ("/v1/gateways/x", "DELETE", b"", 404),
        ("/v1/turns?more=1", "POST", b'{"done": "x"}', 400),
    ],
)
async def test_no_other_change_comes_from_the_hub(path: str, method: str, body: bytes, status: int) -> None:
    asked = Asked()
    assert (await change(asked, path, body, method))[0] == status
    assert asked.calls == []


async def test_whoever_comes_through_the_hub_is_marked_and_who_is_refused_leaves_a_few_lines() -> None:
    asked = Asked()
    await change(asked, "/v1/turns", b'{"done": "turned"}')
    assert asked.calls[0].principal.through_hub
    asked.failing = FederationError("not from there", "ask here")
    inward = asked.inward()
    with structlog.testing.capture_logs() as logged:
        for _ in range(50):
            question = Question("/v1/turns", "POST", b'{"done": "turned"}', "mallory")
            assert (await inward.answer(question))[0] == 409
    lines = [one for one in logged if one["event"] == "call refused"]
    assert 1 <= len(lines) <= 10
    assert (lines[0]["caller"], lines[0]["reason"], lines[0]["status"]) == (
        "mallory (at the hub)",
        "not from there",
        409,
    )
