"""What hub and agents refuse when they start or join: each with an exit code and one clear line, never a traceback."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from federation.api.client import Refusal
from federation.demo.asking import ask, until
from federation.demo.processes import Process
from federation.document import dump
from pki.token import JoinToken
from tests.scenarios.command import Finished, federation
from tests.scenarios.lone_hub import COMMAND, LoneHub, serving, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

SMALL = 240 * 1024
"""Bytes that a file of a hub on a "full" disk may have: a few changes fit, a hundred do not."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoneHub]:
    found = LoneHub(tmp_path_factory.mktemp("hub"))
    async with serving(found):
        yield found


async def start_agent(config: Path) -> Finished:
    """`federation agent`, which is expected to end by itself."""
    return await federation("agent", "--config", config)


def refused(found: Finished, *said: str) -> None:
    assert found.code == 1, found.said
    assert "Traceback" not in found.said
    assert found.err.count("error: ") == 1, found.said
    for part in said:
        assert part in found.err, found.said


def joined(config: Path) -> bool:
    return (config.parent / "state" / "membership.json").exists()


async def join(hub: LoneHub, name: str, token: str) -> Path:
    """Join and leave again; returns the settings file of the agent."""
    config = hub.agent(name, token)
    process = Process(name, (*COMMAND, "agent", "--config", str(config)), config.parent / "log")

    async def ready() -> bool:
        status = await ask(config.parent / "state" / "api.sock", "/v1/status")
        return bool(status["hub_connected"])

    async with started(process, ready):
        pass
    return config


async def test_tokens_that_are_no_good_get_the_same_answer(hub: LoneHub) -> None:
    used = await hub.token("north")
    await join(hub, "north", used)
    expired = await hub.token("south", ttl="1s")

    async def over() -> bool:
        listed = (await hub.ask("token", "list", "-o", "json")).json
        return any(one["subject"] == "south" and one["state"] == "expired" for one in listed)

    await until("the end of a token", over)
    wrong = replace(JoinToken.decode(await hub.token("south")), secret=bytes(32)).encode()
    renamed = replace(JoinToken.decode(await hub.token("south")), subject="north").encode()
    answers: set[str] = set()
    for name, token in (("north", used), ("south", expired), ("south", wrong), ("north", renamed)):
        config = hub.agent(name, token)
        found = await start_agent(config)
        refused(found, "the token is not valid: wrong, used, expired, or made for another name")
        assert not joined(config)
        assert token not in found.said
        answers.update(line for line in found.err.splitlines() if line.startswith("error: "))
    assert len(answers) == 1, answers
    clusters = (await hub.ask("cluster", "list", "-o", "json")).json
    assert [one["name"] for one in clusters] == ["north"]


async def test_token_for_another_cluster_is_not_even_sent(hub: LoneHub) -> None:
    """The agent reads the name in it, and says so: only who holds the token is told, and the hub is not asked."""
    token = await hub.token("south")
    config = hub.agent("east", token)
    refused(await start_agent(config), "is not for cluster east", "federation token create east")
    assert not joined(config)
    listed = (await hub.ask("token", "list", "-o", "json")).json
    (left,) = [one for one in listed if one["id"] == JoinToken.decode(token).hash().hex()[:12]]
    assert left["state"] == "unused"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "it is empty"),
        ("once upon a time", "does not start with 'fed1.'"),
        ("fed1." + urlsafe_b64encode(b"no token").decode(), "damaged or cut"),
    ],
)
async def test_text_that_is_no_token(hub: LoneHub, token: str, said: str) -> None:
    refused(await start_agent(hub.agent("east", token)), said)


async def test_hub_that_does_not_match_the_pin_gets_no_secret(hub: LoneHub) -> None:
    token = JoinToken.decode(await hub.token("east"))
    config = hub.agent("east", replace(token, pin=bytes(32)).encode())
    refused(await start_agent(config), "pin")
    assert not joined(config)
    listed = (await hub.ask("token", "list", "-o", "json")).json
    (left,) = [one for one in listed if one["id"] == token.hash().hex()[:12]]
    assert left["state"] == "unused"


async def test_nobody_at_the_address_in_the_token(hub: LoneHub) -> None:
    token = JoinToken.decode(await hub.token("east"))
    found = await start_agent(hub.agent("east", replace(token, url=f"https://{hub.address}:1").encode()))
    assert found.code == 3, found.said
    assert f"cannot reach https://{hub.address}:1" in found.err
    assert "Traceback" not in found.said


async def test_port_in_use_names_the_holder(hub: LoneHub) -> None:
    config = hub.folder / "second.yaml"
    config.write_text(dump(hub.settings(hub.folder / "second")))
    refused(
        await federation("serve", "--config", config),
        f"cannot listen on {hub.address}:844",
        f"(pid {hub.process.pid})",
        "hint: stop it, or choose another port",
    )


async def test_folder_of_a_running_hub_is_not_shared(hub: LoneHub) -> None:
    refused(await federation("serve", "--config", hub.config), f"held by process {hub.process.pid}")


async def test_damaged_databases_are_left_as_they_are(hub: LoneHub) -> None:
    """Neither hub nor agent starts empty over what it cannot read; both start again with what was there."""
    config = await join(hub, "middle", await hub.token("middle"))
    await hub.process.stop()
    for database, command in (
        (hub.directory / "hub.db", ("serve", "--config", hub.config)),
        (config.parent / "state" / "agent.db", ("agent", "--config", config)),
    ):
        good = database.read_bytes()
        for damaged in (b"", b"this is no database" * 100, good[: len(good) // 2]):
            database.write_bytes(damaged)
            refused(await federation(*command), str(database), "damaged", "nothing was changed")
            assert database.read_bytes() == damaged
        database.write_bytes(good)
    await hub.start()
    clusters = (await hub.ask("cluster", "list", "-o", "json")).json
    assert "middle" in {one["name"] for one in clusters}


async def test_f26_full_disk_refuses_what_it_cannot_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was answered is there after a restart, what was refused is not; reading goes on all the while."""
    hub = LoneHub(tmp_path_factory.mktemp("full"))
    await hub.start()
    await hub.process.stop()
    hub.process = hub.running(f"ulimit -f {SMALL // 512}")
    await hub.start()
    try:
        made: set[str] = set()
        for number in range(200):
            body = {"cluster": f"c{number}", "may_export": ["default/*"], "ranges": ["127.0.0.0/8"]}
            try:
                created = await ask(hub.socket, "/v1/tokens", method="POST", body=body)
            except Refusal:
                break
            made.add(created["id"])
        found = await hub.ask(
            "token", "create", "late", "--may-export", "default/*", "--range", "127.0.0.0/8"
        )
        refused(found, "nothing was stored, the disk takes no more", "hint: free some space")
        assert 0 < len(made) < 200
        assert {one["id"] for one in (await hub.ask("token", "list", "-o", "json")).json} == made
        assert (await hub.ask("cluster", "list")).code == 0
        await hub.process.kill()
        hub.process = hub.running()
        await hub.start()
        assert {one["id"] for one in (await hub.ask("token", "list", "-o", "json")).json} == made
        assert await hub.token("late")
    finally:
        await hub.process.stop()
