"""The commands against a running federation: on the machine itself, and from elsewhere over HTTPS."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from federation.demo.world import World
from federation.document import dump
from tests.scenarios.changes import planned, reach
from tests.scenarios.command import Finished
from tests.scenarios.command import federation as command

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]


async def at_hub(world: World, *arguments: str | Path) -> Finished:
    return await command("--hub", f"unix://{world.hub_socket}", *arguments)


async def at_agent(world: World, cluster: str, *arguments: str | Path) -> Finished:
    return await command("--hub", f"unix://{world.clusters[cluster].socket}", *arguments)


def fine(found: Finished) -> Finished:
    assert found.code == 0, found.said
    assert found.err == ""
    return found


async def test_status_and_check_of_a_federation_that_is_well(federation: World) -> None:
    hub = fine(await at_hub(federation, "status", "-o", "json")).json
    assert {one["name"]: one["connected"] for one in hub["clusters"]} == dict.fromkeys(
        federation.clusters, True
    )
    agent = fine(await at_agent(federation, "west", "status", "-o", "json")).json
    assert {one["address"] for one in agent["gateways"]} == {
        gateway.address for gateway in federation.clusters["west"].gateways
    }
    assert {one["name"]: one["path"] for one in agent["peers"]} == {"east": "up", "central": "up"}
    gateway = federation.clusters["east"].gateways[0]
    table = fine(await command("--hub", f"unix://{gateway.socket}", "status")).out
    assert f"{'cluster:':24}east\n" in table
    assert "\x1b" not in table
    for asked in (await at_hub(federation, "check"), await at_agent(federation, "east", "check")):
        assert "✗" not in fine(asked).out
        assert "✓" in asked.out
        assert "hint:" not in asked.out


async def test_check_says_what_is_wrong_and_what_to_do(federation: World) -> None:
    await federation.clusters["central"].agent.kill()

    found = await at_hub(federation, "check")
    assert found.code == 1
    (line,) = [number for number, text in enumerate(found.out.splitlines()) if "✗" in text]
    assert "central" in found.out.splitlines()[line]
    assert found.out.splitlines()[line + 1].strip().startswith("hint: ")
    groups = (await at_hub(federation, "check", "-o", "json")).json
    assert [one["result"] for group in groups for one in group["checks"]].count("failure") == 1


async def test_explain_and_service_are_answered_by_the_agent_asked_for(federation: World) -> None:
    await planned(federation, "east", "echo", {"east", "west", "central"})
    explained = fine(await at_hub(federation, "explain", "default/echo", "--from", "east", "-o", "json")).json
    (port,) = explained["ports"]
    assert [(line["cluster"], line["code"]) for line in port["lines"]] == [
        ("east", "local"),
        ("west", "same-region"),
        ("central", "other-region"),
    ]
    assert fine(await at_agent(federation, "east", "explain", "echo", "-o", "json")).json == explained
    table = fine(await at_hub(federation, "explain", "echo", "--from", "central")).out
    assert "default/echo:80 from central" in table
    assert "our own cluster, 2 of 2 endpoints healthy" in table
    to = await reach(federation, "east", "echo")
    assert to in fine(await at_hub(federation, "service", "show", "echo", "--from", "east")).out
    listed = fine(await at_agent(federation, "east", "service", "list", "-o", "json")).json
    assert {one["service"] for one in listed} == {"default/echo", "default/remote"}
    missing = await at_hub(federation, "explain", "default/nothing", "--from", "east")
    assert (missing.code, missing.err.startswith("error: ")) == (1, True), missing.said
    nowhere = await at_hub(federation, "explain", "default/echo", "--from", "atlantis")
    assert (nowhere.code, "atlantis" in nowhere.err) == (1, True), nowhere.said
    wrong = await at_hub(federation, "explain", "a/b/c")
    assert (wrong.code, "namespace/name" in wrong.err) == (2, True), wrong.said


async def test_cluster_set_changes_what_a_cluster_may_do(federation: World) -> None:
    before = fine(await at_hub(federation, "cluster", "show", "west", "-o", "json")).json
    try:
        fine(await at_hub(federation, "cluster", "set", "west", "--may-export", "default/echo"))
        await planned(federation, "east", "remote", {"central"})
        shown = fine(await at_hub(federation, "cluster", "show", "west")).out
        assert "default/echo" in shown
        status = await at_agent(federation, "west", "status")
        assert status.code == 1
        assert "default/remote" in status.out, status.said
        checked = await at_hub(federation, "check")
        assert (checked.code, "default/remote" in checked.out) == (1, True), checked.said
    finally:
        allowed = [part for pattern in before["may_export"] for part in ("--may-export", pattern)]
        fine(await at_hub(federation, "cluster", "set", "west", *allowed))
    await planned(federation, "east", "remote", {"west", "central"})
    unknown = await at_hub(federation, "cluster", "set", "atlantis", "--state", "draining")
    assert (unknown.code, "atlantis" in unknown.err) == (1, True), unknown.said


async def test_tokens_are_made_listed_and_revoked(federation: World, tmp_path: Path) -> None:
    file = tmp_path / "new.token"
    wanted = ("token", "create", "north", "--may-export", "default/*", "--range", "127.9.0.0/16")
    made = fine(await at_hub(federation, *wanted, "--out", file, "-o", "json")).json
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("fed1.")
    assert "token" not in made
    listed = fine(await at_hub(federation, "token", "list", "-o", "json")).json
    assert {one["id"]: one["state"] for one in listed}[made["id"]] == "unused"
    fine(await at_hub(federation, "token", "revoke", made["id"]))
    listed = fine(await at_hub(federation, "token", "list", "-o", "json")).json
    assert made["id"] not in {one["id"] for one in listed if one["state"] == "unused"}
    again = await at_hub(federation, "token", "revoke", "0123456789ab")
    assert (again.code, again.err.startswith("error: ")) == (1, True), again.said
    long = await at_hub(federation, *wanted, "--ttl", "1h")
    assert long.code == 2
    assert "10" in long.err, long.said
    for asked in (("token", "create"), ("token", "create", "north", "--gateway")):
        assert (await at_hub(federation, *asked)).code == 2
    gateway = fine(await at_agent(federation, "east", "token", "create", "--gateway", "-o", "json")).json
    assert gateway["token"].startswith("fed1.")


async def test_every_listing_in_every_form(federation: World) -> None:
    listings = [(what, "list") for what in ("cluster", "service", "token", "operator")]
    for listing in (*listings, ("status",)):
        forms = ("json", "yaml", "table")
        told = await asyncio.gather(*(at_hub(federation, *listing, "-o", form) for form in forms))
        as_json, as_yaml, as_table = (fine(one) for one in told)
        assert fields(as_json.json) == fields(yaml.safe_load(as_yaml.out))
        assert as_table.out.strip()


def fields(answer: Any) -> list[set[str]]:
    """The names of the fields of each row; what is in them may change between two questions."""
    return [set(row) for row in (answer if isinstance(answer, list) else [answer])]


async def test_nobody_there(tmp_path: Path) -> None:
    found = await command("--hub", f"unix://{tmp_path}/api.sock", "status")
    assert (found.code, found.err.startswith("error: cannot reach unix://")) == (3, True), found.said


class Remote:
    """An operator's folder, used from elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, *arguments: str | Path) -> Finished:
        return await command(
            *arguments, environment={"FEDERATION_CONTEXTS": str(self.folder / "contexts.yaml")}
        )


@pytest_asyncio.fixture(loop_scope="session")
async def operators(federation: World, tmp_path: Path) -> AsyncIterator[dict[str, Remote]]:
    """A viewer and an operator by bearer token, and an operator by certificate."""
    made: dict[str, Remote] = {}
    for name, *options in (
        ("vera", "--role", "viewer"),
        ("otto", "--role", "operator"),
        ("cora", "--certificate"),
    ):
        role = [] if "--role" in options else ["--role", "operator"]
        folder = tmp_path / name
        fine(await at_hub(federation, "operator", "create", name, *options, *role, "--out", folder))
        made[name] = Remote(folder)
    yield made
    for name in made:
        await at_hub(federation, "operator", "remove", name)


NEW_TOKEN = ("token", "create", "north", "--may-export", "default/*", "--range", "127.9.0.0/16", "-o", "json")


async def test_roles_from_elsewhere(federation: World, operators: dict[str, Remote]) -> None:
    for name, remote in operators.items():
        clusters: Any = fine(await remote("cluster", "list", "-o", "json")).json
        assert {one["name"] for one in clusters} == set(federation.clusters)
        asked = await remote(*NEW_TOKEN)
        if name == "vera":
            assert (asked.code, asked.out) == (1, ""), asked.said
            assert "vera may not do this: it needs the role operator" in asked.err
        else:
            fine(asked)
    assert (await operators["vera"]("operator", "list")).code == 1
    listed = fine(await operators["cora"]("operator", "list", "-o", "json")).json
    assert {one["name"]: (one["role"], one["kind"]) for one in listed} == {
        "vera": ("viewer", "bearer"),
        "otto": ("operator", "bearer"),
        "cora": ("operator", "certificate"),
    }


async def test_access_that_was_taken_away_is_gone_at_once(
    federation: World, operators: dict[str, Remote]
) -> None:
    for name in ("otto", "cora"):
        fine(await operators[name]("status"))
        fine(await at_hub(federation, "operator", "remove", name))
        found = await operators[name]("status")
        assert (found.code, found.err.startswith("error: ")) == (1, True), found.said
        assert "Traceback" not in found.err


async def test_secrets_of_operators_are_private(operators: dict[str, Remote]) -> None:
    for remote in operators.values():
        assert stat.S_IMODE(remote.folder.stat().st_mode) == 0o700
        names = os.listdir(remote.folder)
        assert names
        for name in names:
            assert stat.S_IMODE((remote.folder / name).stat().st_mode) == 0o600, name


async def test_hub_that_cannot_prove_who_it_is_is_not_reached(
    federation: World, operators: dict[str, Remote]
) -> None:
    """With another cluster's anchors as bundle; and with no bundle at all."""
    folder = operators["otto"].folder
    anchors = federation.clusters["east"].folder / "agent" / "authority" / "self-signed.pem"
    (folder / "bundle.pem").write_bytes(anchors.read_bytes())
    found = await operators["otto"]("status")
    assert (found.code, "its certificate is not the one expected" in found.err) == (3, True), found.said
    url = f"https://{federation.hub_api}"
    bare = await command("--hub", url, "status")
    assert (bare.code, f"nothing says which certificate {url} should have" in bare.err) == (2, True), (
        bare.said
    )


async def test_hub_that_is_gone_is_not_reached(federation: World, operators: dict[str, Remote]) -> None:
    await federation.hub.kill()
    found = await operators["vera"]("status")
    assert (found.code, found.err.startswith(f"error: cannot reach https://{federation.hub_api}")) == (
        3,
        True,
    )


async def test_unknown_context_names_the_known_ones(tmp_path: Path) -> None:
    contexts = tmp_path / "contexts.yaml"
    contexts.write_text(dump({"contexts": [{"name": "prod", "url": "unix:///nonexistent"}]}))
    found = await command("--hub", "test", "status", environment={"FEDERATION_CONTEXTS": str(contexts)})
    assert (found.code, "a context (prod)" in found.err) == (2, True), found.said
    contexts.write_text("contexts:\n  - name: prod\n    uri: x\n")
    typo = await command("status", environment={"FEDERATION_CONTEXTS": str(contexts)})
    assert (typo.code, f"{contexts}:3" in typo.err) == (2, True), typo.said
