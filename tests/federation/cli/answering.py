"""A process that answers what a test tells it to, at a unix socket, while the command line runs in this thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.api.doors import UnixDoor, serving
from federation.api.messages import Done, NewOperator, NewToken, SetCluster
from federation.api.routes import Access, ApiProblem, Call, Principal, Route, not_found
from federation.api.server import api_application

BODIES = {"/v1/tokens": NewToken, "/v1/clusters/{name}": SetCluster, "/v1/operators": NewOperator}
PATHS = (
    ("GET", "/v1/status", ()),
    ("GET", "/v1/checks", ()),
    ("GET", "/v1/ca/requests", ()),
    ("GET", "/v1/clusters", ()),
    ("GET", "/v1/clusters/{name}", ()),
    ("PUT", "/v1/clusters/{name}", ()),
    ("DELETE", "/v1/clusters/{name}", ()),
    ("GET", "/v1/services", ("from",)),
    ("GET", "/v1/services/{namespace}/{name}", ("from",)),
    ("GET", "/v1/explain/{namespace}/{name}", ("from",)),
    ("GET", "/v1/tokens", ()),
    ("POST", "/v1/tokens", ()),
    ("DELETE", "/v1/tokens/{id}", ()),
    ("GET", "/v1/operators", ()),
    ("POST", "/v1/operators", ()),
    ("DELETE", "/v1/operators/{name}", ()),
)


class _Nobody:
    async def certificate(self, der: bytes) -> Principal | None:
        return None

    async def bearer(self, secret: str) -> Principal | None:
        return None


@dataclass
class Process:
    """`answers` by method and path; what is not there is not found. `calls` is what was asked."""

    hub: str
    answers: Mapping[str, Any]
    calls: list[tuple[str, Call]] = field(default_factory=list)

    def routes(self) -> tuple[Route, ...]:
        return tuple(self._route(method, path, query) for method, path, query in PATHS)

    def _route(self, method: str, path: str, query: tuple[str, ...]) -> Route:
        async def answer(call: Call) -> Any:
            asked = f"{method} {path.format(**call.params)}"
            self.calls.append((asked, call))
            if asked not in self.answers:
                raise not_found("answer", asked, "tell the test")
            if isinstance(problem := self.answers[asked], ApiProblem):
                raise problem
            return self.answers[asked]

        body = BODIES.get(path) if method in ("POST", "PUT") else None
        return Route(method, path, "", Access.VIEWER, answer, Done, body, query)


@contextmanager
def answering(folder: Path, answers: Mapping[str, Any]) -> Iterator[Process]:
    socket = folder / "api.sock"
    process = Process(f"unix://{socket}", answers)
    opened, done = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with serving(api_application("test", "1", process.routes(), _Nobody()), UnixDoor(socket)):
            opened.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="answering")
    thread.start()
    try:
        assert opened.wait(30), "the process does not serve"
        yield process
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join()
