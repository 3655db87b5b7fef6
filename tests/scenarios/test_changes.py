"""Services change, vanish and are refused under load: configuration is made before it is broken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from federation.demo.asking import ask, until
from federation.demo.files import objects
from federation.demo.load import request, running
from federation.demo.world import World
from tests.scenarios.changes import (
    add_service,
    healthy,
    planned,
    reach,
    remove_service,
    replace,
    settled,
    withdrawn,
)
from tests.scenarios.command import federation as command
from tests.scenarios.traffic import answered_by

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

CHANGES = 105


async def snapshot(world: World, cluster: str) -> int:
    """The number of the newest snapshot that the agent of `cluster` has for its gateways."""
    status = await ask(world.clusters[cluster].socket, "/v1/status")
    return min(int(gateway["snapshot"]) for gateway in status["gateways"])


async def test_f37_a_hundred_changes_under_load_fail_no_request(federation: World) -> None:
    """Backends come and go, and with them weights; every seventh time a service does."""
    west = federation.clusters["west"]
    both = [one.address.host for one in west.of("echo")]
    to = await reach(federation, "east", "remote")
    first = await snapshot(federation, "west")
    async with running(to) as load:
        for number in range(CHANGES):
            before = await snapshot(federation, "west")
            if number % 14 == 6:
                add_service(federation, "west", "another", both)
            elif number % 14 == 13:
                remove_service(federation, "west", "another")
            else:
                add_service(federation, "west", "remote", (both[:1], both[1:], both)[number % 3])

            async def changed(before: int = before) -> bool:
                return await snapshot(federation, "west") > before

            await until(f"change {number}", changed, watch=(west.agent,))
        await settled(federation)
    assert await snapshot(federation, "west") >= first + CHANGES
    assert load.failed == 0, [one for one in load.answers if one.who is None][:5]
    assert set(load.clusters) == {"west"}


async def test_explicit_zero_moves_traffic_without_a_failed_request(federation: World) -> None:
    to = await reach(federation, "east", "echo")
    async with running(to) as load:
        await until("east's answer", answered_by(to, "east"))
        add_service(federation, "east", "echo", [])
        await planned(federation, "east", "echo", {"west", "central"})
        await until("west's answer", answered_by(to, "west"))
        await asyncio.sleep(0.5)
        add_service(federation, "east", "echo")
        await until("east's return", answered_by(to, "east"))
        await asyncio.sleep(0.5)
    assert load.failed == 0, [one for one in load.answers if one.who is None][:5]
    assert set(load.clusters) == {"east", "west"}


async def test_f35_slices_that_vanish_are_held(federation: World) -> None:
    """Service and export stay, so that nobody meant to take the backends away."""
    services = federation.clusters["west"].folder / "services"
    service, endpoints, export = objects(
        "held", [one.address.host for one in federation.clusters["west"].of("echo")]
    ).split("---\n")
    replace(services / "held.yaml", f"{service}---\n{export}")
    replace(services / "held-slice.yaml", endpoints)
    await planned(federation, "east", "held", {"west"})
    to = await reach(federation, "east", "held")
    await until("west's answer", answered_by(to, "west"))
    before = await snapshot(federation, "west")
    (services / "held-slice.yaml").unlink()
    add_service(federation, "west", "later")
    await planned(federation, "east", "later", {"west"})
    assert await snapshot(federation, "west") > before, "the folder was read after the slice had gone"
    assert await healthy(federation, "east", "held") == {"west"}
    assert (await request(to)).who == "west"


async def test_f33_a_file_cut_in_half_deletes_nothing(federation: World) -> None:
    west = federation.clusters["west"]
    path = west.folder / "services" / "remote.yaml"
    text = path.read_text()
    to = await reach(federation, "east", "remote")
    async with running(to) as load:
        replace(path, text[: len(text) // 2] + "\n  {")

        async def said() -> bool:
            problems = (await ask(west.socket, "/v1/status"))["problems"]
            return any("remote.yaml" in problem for problem in problems)

        await until("the problem in the status", said)
        assert "west" in await healthy(federation, "east", "remote")
        status = await command("--hub", f"unix://{west.socket}", "status")
        assert (status.code, "remote.yaml:" in status.out) == (1, True), status.said
        replace(path, text)

        async def mended() -> bool:
            return not (await ask(west.socket, "/v1/status"))["problems"]

        await until("the end of the problem", mended)
    assert load.failed == 0
    assert set(load.clusters) == {"west"}


@contextmanager
def next_ports_taken(world: World, first: int) -> Iterator[None]:
    """Somebody else holds the ports that the next imports would get in east, so Envoy refuses their listeners."""
    (gateway,) = world.clusters["east"].gateways
    with ExitStack() as stack:
        for port in range(first, first + 60):
            taken = stack.enter_context(socket.socket())
            with suppress(OSError):
                taken.bind((gateway.address.host, port))
                taken.listen()
        yield


async def refused(world: World) -> list[str]:
    """The types of what east's Envoy refuses, as its agent says."""
    (seen,) = (await ask(world.clusters["east"].socket, "/v1/status"))["gateways"]
    return [one["type"] for one in seen["rejected"]]


async def one_listener_refused(world: World) -> None:
    async def seen() -> bool:
        return await refused(world) == ["Listener"]

    await until("the refusal in the agent's status", seen)


async def test_f36_a_refused_listener_stays_alone_and_is_shown(federation: World) -> None:
    east = federation.clusters["east"]
    to = await reach(federation, "east", "remote")
    with next_ports_taken(federation, to.port + 1):
        async with running(to) as load:
            add_service(federation, "west", "blocked")
            await planned(federation, "east", "blocked", {"west"})
            await one_listener_refused(federation)
            status = await command("--hub", f"unix://{east.socket}", "status")
            assert "gateway-1 refused Listener" in status.out, status.said
            assert "blocked" in status.out.partition("refused Listener")[2]
            checks = await command("--hub", f"unix://{east.socket}", "check")
            assert (checks.code, "its Envoy refused Listener" in checks.out) == (1, True), checks.said
            add_service(federation, "east", "echo", [])
            await until("west's answer", answered_by(await reach(federation, "east", "echo"), "west"))
        assert load.failed == 0
        assert set(load.clusters) == {"west"}
        remove_service(federation, "west", "blocked")
        await withdrawn(federation, "east", "blocked")
    add_service(federation, "west", "blocked")
    await planned(federation, "east", "blocked", {"west"})
    await settled(federation)
    blocked = await reach(federation, "east", "blocked")
    await until("an answer once the port is free", answered_by(blocked, "west"))
    assert await refused(federation) == []


async def test_f36_what_was_refused_is_offered_again_when_the_agent_starts_again(federation: World) -> None:
    """The way out, as `federation check` says, once the port is free and nothing else changes."""
    east = federation.clusters["east"]
    to = await reach(federation, "east", "remote")
    with next_ports_taken(federation, to.port + 1):
        add_service(federation, "west", "blocked")
        await planned(federation, "east", "blocked", {"west"})
        await one_listener_refused(federation)
    blocked = await reach(federation, "east", "blocked")
    assert (await request(blocked)).who is None
    async with running(to) as load:
        await east.agent.kill()
        await east.agent.start()
        await until("an answer once the port is free", answered_by(blocked, "west"), watch=(east.agent,))
    assert load.failed == 0
    await settled(federation)
    assert await refused(federation) == []
