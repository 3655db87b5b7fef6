"""What the hub is asked and only an agent knows, or may change: passed on over the agent's own stream."""

from __future__ import annotations

from typing import Any

import msgspec

from federation.api.routes import ApiProblem, Problem, not_found
from federation.errors import FederationError
from federation.hub import Hub
from federation.questions import Question


async def ask_agent(hub: Hub, cluster: str, question: Question, shape: Any) -> Any:
    """What the agent of `cluster` answers, as `shape`. Raises ApiProblem if it cannot be asked or refuses."""
    if hub.member(cluster) is None:
        raise not_found("cluster", cluster, "see `federation cluster list`")
    try:
        answer = await hub.ask(cluster, question)
    except FederationError as error:
        raise ApiProblem(503, "agent", str(error), "ask the agent at its own socket, or try again") from error
    try:
        if answer.status != 200:
            problem = msgspec.json.decode(answer.body, type=Problem)
            raise ApiProblem(answer.status, problem.code, problem.message, problem.hint)
        return msgspec.json.decode(answer.body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ApiProblem(502, "agent", f"the agent of {cluster} speaks another version") from error
