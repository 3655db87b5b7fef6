"""`federation ca rotate` and the driver of a rotation at a unix socket: what is shown can be copied and repeated."""

from __future__ import annotations

import asyncio
import json
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from federation.api.doors import UnixDoor, serving
from federation.api.rotation_routes import RotationRoutes
from federation.api.routes import ApiProblem, Principal
from federation.api.server import api_application
from federation.cli import call
from federation.cli.ca import rotation
from federation.clock import ManualClock
from federation.errors import Unreachable
from federation.rotating import Rotating
from pki.errors import Refused
from pki.keys.file import FileKeyStore
from pki.lineage import Lineage
from pki.spiffe import TrustDomain
from tests.federation.cli.answering import answering
from tests.federation.cli.command import Cli, Finished
from tests.federation.realms import Realm
from tests.federation.world import BASE, NOW

DOMAIN = TrustDomain.of_cluster("west", BASE)


class _Nobody:
    async def certificate(self, der: bytes) -> Principal | None:
        return None

    async def bearer(self, secret: str) -> Principal | None:
        return None


class Agent:
    """The part of an agent that rotates, in a thread of its own. It looks when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "api.sock"
        self.hub = f"unix://{self.socket}"

    async def open(self) -> None:
        keys = FileKeyStore(self.folder / "keys")
        lineage = await Lineage.open(self.folder / "ca", keys, DOMAIN, ManualClock(NOW))
        self.realm = Realm(lineage)
        self.rotating = Rotating(self.realm, ManualClock(NOW))

    @contextmanager
    def answers(self) -> Iterator[None]:
        """From now on until the end of the context."""
        opened, loops = threading.Event(), list[asyncio.AbstractEventLoop]()
        done = asyncio.Event()

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            routes = RotationRoutes(self.rotating, cluster="west").routes()
            async with serving(api_application("test", "1", routes, _Nobody()), UnixDoor(self.socket)):
                opened.set()
                await done.wait()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="agent")
        thread.start()
        try:
            assert opened.wait(30), "it does not serve"
            yield
        finally:
            loops[0].call_soon_threadsafe(done.set)
            thread.join()

    def look(self, times: int = 1) -> None:
        async def looks() -> None:
            for _ in range(times):
                await self.rotating.look()

        asyncio.run(looks())


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    made = Agent(tmp_path)
    asyncio.run(made.open())
    return made


@pytest.fixture
def ask(agent: Agent, cli: Cli) -> Callable[..., Finished]:
    def asked(*arguments: str) -> Finished:
        return cli("--hub", agent.hub, "ca", "rotate", *arguments)

    return asked


Ask = Callable[..., Finished]


def copied(text: str, cli: Cli) -> Finished:
    """The command that somebody is told to go on with, as he pastes it."""
    (line,) = [each for each in text.splitlines() if "federation --hub" in each]
    program, *arguments = shlex.split(line[line.index("federation") :])
    assert program == "federation"
    return cli(*arguments)


def test_a_step_is_copied_from_the_status_and_taken_once(agent: Agent, ask: Ask, cli: Cli) -> None:
    with agent.answers():
        begun = ask("cluster", "start", "--manual", "--why", "a trial")
        assert begun.code == 0, begun.err
        status = ask("cluster", "status", "west")
        assert (status.code, "a trial" in status.out) == (0, True), status.err
        stepped = copied(status.out, cli)
        assert stepped.code == 0, stepped.err
        assert "advance rotation 1, which is prepared" in stepped.out
        assert "→ published" in stepped.out
        again = copied(status.out, cli)
        assert (again.code, "rotation 1 is in the phase published now" in again.err) == (1, True)
        shown = copied(again.err, cli)
        assert (shown.code, "→ published" in shown.out) == (0, True), shown.err


def test_a_second_one_is_refused_with_a_command_that_shows_the_first(
    agent: Agent, ask: Ask, cli: Cli
) -> None:
    with agent.answers():
        assert ask("cluster", "start", "--manual").code == 0
        second = ask("cluster", "start")
        assert (second.code, "rotation: one is running already" in second.err) == (1, True), second.err
        shown = copied(second.err, cli)
        assert (shown.code, "→ prepared" in shown.out) == (0, True), shown.err


def test_who_has_no_root_to_follow_is_told_that_alone(
    agent: Agent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to do about it is in the reason; there is no rotation to look at."""

    async def none(*_: object) -> None:
        raise Refused("root", "the one that is to follow is not here; make it in the safe")

    monkeypatch.setattr(agent.rotating, "start", none)
    with agent.answers():
        refused = ask("cluster", "start")
    assert (refused.code, "make it in the safe" in refused.err) == (1, True)
    assert "hint" not in refused.err


def test_without_saying_what_was_seen_a_step_is_taken_from_where_it_is(agent: Agent, ask: Ask) -> None:
    with agent.answers():
        ask("cluster", "start", "--manual")
        stepped = ask("cluster", "advance", "-o", "json")
        assert '"phase": "published"' in stepped.out
        assert "advance rotation" not in stepped.out
        wrong = ask("cluster", "advance", "--from", "prepared")
        assert (wrong.code, "in the phase published now" in wrong.err) == (1, True)
        other = ask("cluster", "abort", "--number", "7")
        assert (other.code, "about rotation 7" in other.err) == (1, True)
        assert ask("cluster", "abort", "--from", "published").code == 0
        agent.look()
        over = ask("cluster", "abort")
        assert (over.code, "no rotation is running" in over.err) == (1, True)


def test_who_is_waited_for_is_shown_with_what_to_do_about_it(agent: Agent, ask: Ask) -> None:
    with agent.answers():
        ask("cluster", "start")
        agent.realm.away = True
        agent.look()
        shown = ask("cluster", "status")
        assert shown.code == 1
        assert "waits for central: its agent is not connected, for " in shown.out
        assert "federation ca rotate quarantine central" in shown.out
        assert "does not wait for north: it is quarantined" in shown.out
        assert "it may wait until" in shown.out


def test_leaves_are_shown_in_the_same_picture(agent: Agent, ask: Ask, cli: Cli) -> None:
    with agent.answers():
        nothing = ask("leaves", "status")
        assert (nothing.code, "nobody was asked" in nothing.out) == (0, True)
        begun = ask("leaves", "start", "west")
        assert begun.code == 0, begun.err
        assert "✓ asked" in begun.out
        assert "→ renewing     0 of 2 gateways" in begun.out
        agent.realm.renewed = 1
        looked = copied(begun.out, cli)
        assert looked.code == 1
        assert "1 of 2 gateways" in looked.out
        assert "waits for gateway gw-1, connected" in looked.out
        agent.realm.renewed = 2
        done = ask("leaves", "status", "west")
        assert (done.code, "✓ done" in done.out) == (0, True), done.out


class Time:
    """Instead of sleeping, whoever watches lets a test do the next of its `steps`."""

    def __init__(self, steps: Iterator[float]) -> None:
        self.steps = steps
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += next(self.steps)


def test_whoever_watches_asks_again_when_the_agent_was_away(
    agent: Agent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def story() -> Iterator[float]:
        with agent.answers():
            agent.look()
            yield 1  # it was seen once, and is seen again
        yield 1
        yield 1  # nobody has answered, twice
        with agent.answers():
            agent.look(4)
            yield 1
            yield 1

    monkeypatch.setattr(rotation, "time", Time(story()))
    asyncio.run(agent.rotating.start("ada", "", manual=False))
    with agent.answers():
        pass
    monkeypatch.setattr(rotation, "time", clock := Time(iter(())))
    unreachable = ask("cluster", "watch")
    assert unreachable.code == 3, "it was never there"
    clock.steps = story()
    next(clock.steps)
    watched = ask("cluster", "watch")
    assert watched.code == 0, watched.err
    assert watched.out.splitlines()[-1].startswith("done:")
    assert watched.err.count("cannot reach") == 1
    assert "asking again" in watched.err


def test_whoever_watches_asks_again_when_the_hub_cannot_ask_the_agent_yet(
    agent: Agent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([1.0, 1.0])
    monkeypatch.setattr(rotation, "time", Time(steps))
    away = [call.AgentAway("cannot reach the agent of west: it is not connected to this hub")]

    def asked(*given: Any, **more: Any) -> Any:
        if away:
            raise away.pop()
        return call.ask(*given, **more)

    monkeypatch.setattr(rotation, "ask", asked)
    asyncio.run(agent.rotating.start("ada", "", manual=False))
    agent.look(4)
    with agent.answers():
        watched = ask("cluster", "watch", "west")
    assert watched.code == 0, watched.err
    assert watched.out.splitlines()[-1].startswith("done:")
    assert "asking again" in watched.err
    assert next(steps) == 1.0, "it slept once"


def test_to_watch_what_has_never_begun_is_no_success(agent: Agent, ask: Ask) -> None:
    with agent.answers():
        watched = ask("cluster", "watch", "west")
    assert (watched.code, watched.out) == (1, "no rotation: none has begun yet\n")


def test_whoever_watches_gives_up_when_nobody_has_answered_for_long(
    agent: Agent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def story() -> Iterator[float]:
        with agent.answers():
            yield 0
        yield rotation.PATIENCE
        yield 1

    asyncio.run(agent.rotating.start("ada", "", manual=True))
    clock = Time(story())
    next(clock.steps)
    monkeypatch.setattr(rotation, "time", clock)
    watched = ask("cluster", "watch")
    assert watched.code == 3, watched.err


def test_a_step_whose_answer_is_lost_says_to_look_first(
    agent: Agent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(agent.rotating.start("ada", "", manual=True))

    def lost(ctx: Any, method: str, path: str, **more: Any) -> Any:
        answer = call.ask(ctx, method, path, **more)
        if method == "POST":
            raise Unreachable(agent.hub, "no answer in time")
        return answer

    monkeypatch.setattr(rotation, "ask", lost)
    with agent.answers():
        found = ask("cluster", "advance")
    assert found.code == 3
    assert (
        f"look before you repeat it: federation --hub {agent.hub} ca rotate cluster status west" in found.err
    )


def test_an_agent_that_the_hub_cannot_ask_is_out_of_reach(tmp_path: Path, cli: Cli) -> None:
    away = ApiProblem(503, "agent", "cannot reach the agent of west: it is not connected to this hub")
    with answering(tmp_path, {"GET /v1/services/default/echo": away}) as process:
        found = cli("--hub", process.hub, "service", "show", "echo", "--from", "west")
    assert (found.code, "not connected to this hub" in found.err) == (3, True)


def test_a_hub_that_is_asked_for_no_cluster_by_name_says_so(tmp_path: Path, cli: Cli) -> None:
    with answering(tmp_path, {}) as process:
        done = cli("--hub", process.hub, "ca", "rotate", "cluster", "start")
    assert (done.code, done.out) == (2, "")
    assert "name the CLUSTER" in done.err


def test_a_cluster_is_put_into_quarantine_where_the_hub_is_asked(tmp_path: Path, cli: Cli) -> None:
    with answering(tmp_path, {"PUT /v1/clusters/east": {"state": "quarantined"}}) as process:
        done = cli("--hub", process.hub, "ca", "rotate", "quarantine", "east", "-o", "json")
    assert (done.code, json.loads(done.out)) == (0, {"state": "quarantined"})
    assert [call.body.state for _, call in process.calls] == ["quarantined"]
