"""The process of a hub: what it owns before it starts, and what it says of itself when its disk takes no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from federation.api.client import Target
from federation.api.messages import NewOperator
from federation.app import hub
from federation.clock import SystemClock
from federation.config import HubSettings
from federation.errors import FederationError, StoreHeld
from federation.settings_file import read_settings
from federation.store import SqliteStore
from pki.errors import WriteError
from tests.federation.api.world import ask
from tests.federation.cli.command import Cli
from tests.federation.store.test_sqlite import files_limited_to

TEMPORARY = ".leaf.pem.0123456789abcdef.partial"


def settings(folder: Path) -> HubSettings:
    address = f"127.{random.randint(192, 250)}.{random.randint(0, 255)}.1"
    places = {"api": f"{address}:8443", "sync": f"{address}:8444"}
    written = {
        "base": "mesh.example",
        "directory": str(folder / "state"),
        "advertise": places,
        "listen": places | {"telemetry": f"{address}:9464"},
        "keys": {"plain": True},
    }
    file = folder / "hub.yaml"
    file.write_text(yaml.safe_dump(written))
    return read_settings(file, HubSettings)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Target]:
    """A hub in this process, from when it answers at its socket."""
    task = asyncio.create_task(hub.run(settings(folder), None, SystemClock()), name="hub process")
    target = Target(f"unix://{folder / 'state' / 'api.sock'}")
    try:
        async with asyncio.timeout(60):
            while not await answers(target):
                assert not task.done(), task.result()
                await asyncio.sleep(0.02)
        yield target
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def answers(target: Target) -> bool:
    try:
        return (await ask(target, "GET", "/healthz"))[0] == 200
    except (aiohttp.ClientError, OSError):
        return False


async def readiness(target: Target, status: int) -> Any:
    async with asyncio.timeout(60):
        while True:
            found, said = await ask(target, "GET", "/readyz")
            if found == status:
                return said
            await asyncio.sleep(0.02)


async def test_a_hub_started_twice_by_mistake_leaves_the_first_one_alone(tmp_path: Path) -> None:
    """What looks like the remains of a crash may be a file that the first is just writing."""
    state = tmp_path / "state"
    async with await SqliteStore.open(state / "hub.db"):
        folders = [state, state / "keys", state / "root-keys"]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / TEMPORARY).touch()
        with pytest.raises(StoreHeld):
            await hub.run(settings(tmp_path), None, SystemClock())
        assert all((folder / TEMPORARY).exists() for folder in folders)


@pytest.mark.parametrize("also_lost", ["authority", "hub.db"])
async def test_a_hub_whose_root_is_lost_makes_no_other_one(tmp_path: Path, also_lost: str) -> None:
    """Every member has pinned the one that is gone."""
    state = tmp_path / "state"
    async with running(tmp_path) as target:
        wanted = NewOperator(name="ada", role="viewer")
        assert (await ask(target, "POST", "/v1/operators", body=wanted))[0] == 200
    (state / "root").rename(tmp_path / "root")
    for file in state.glob(f"{also_lost}*"):
        file.rename(tmp_path / file.name)
    with pytest.raises(FederationError, match=r"root/self-signed\.pem: .* is missing") as refused:
        async with asyncio.timeout(60):
            await hub.run(settings(tmp_path), None, SystemClock())
    assert "backup" in refused.value.hint
    assert not (state / "root").exists()
    for kept in (tmp_path / "root", *tmp_path.glob(f"{also_lost}*")):
        kept.rename(state / kept.name)
    async with running(tmp_path) as target:
        assert await readiness(target, 200)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tokens", {"cluster": "Not a name", "may_export": ["a/b"], "ranges": ["10.0.0.0/8"]}),
        ("/v1/tokens", {"cluster": "hub", "may_export": ["a/b"], "ranges": ["10.0.0.0/8"]}),
        ("/v1/tokens", {"cluster": "east", "may_export": ["*"], "ranges": ["10.0.0.0/8"]}),
        ("/v1/tokens", {"cluster": "east", "may_export": ["a/b"], "ranges": ["10.0.0.1/8"]}),
        ("/v1/operators", {"name": "Ada", "role": "viewer"}),
    ],
)
async def test_a_value_that_cannot_be_is_a_bad_request(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with running(tmp_path) as target:
        status, answer = await ask(target, "POST", path, body=body)
    assert (status, answer["code"]) == (400, "bad-value"), answer


async def test_a_hub_that_cannot_remove_what_a_crash_left_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / TEMPORARY).mkdir()
    with pytest.raises(WriteError, match="which a crash left, cannot be removed"):
        await hub.run(settings(tmp_path), None, SystemClock())


async def test_a_hub_whose_disk_takes_no_more_says_so_and_is_ready_again_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as target:
        assert await readiness(target, 200) == {"ready": True, "waiting_for": []}
        log = tmp_path / "state" / "hub.db-wal"
        with files_limited_to(log.stat().st_size):
            wanted = NewOperator(name="ada", role="viewer")
            status, problem = await ask(target, "POST", "/v1/operators", body=wanted)
            assert (status, problem["code"]) == (409, "refused")
            said = await readiness(target, 503)
            assert said["ready"] is False
            [reason] = said["waiting_for"]
            assert "the disk takes no more" in reason
            _, state = await ask(target, "GET", "/v1/status")
            assert state["problems"] == [reason.removeprefix("its store: ")]
            _, groups = await ask(target, "GET", "/v1/checks")
            assert "failure" in [check["result"] for check in groups[0]["checks"]]
            assert (await ask(target, "GET", "/healthz"))[0] == 200
        await readiness(target, 200)
        _, state = await ask(target, "GET", "/v1/status")
        assert state["problems"] == []
        assert (await ask(target, "POST", "/v1/operators", body=wanted))[0] == 200


async def test_an_operator_renews_its_certificate_over_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, folder = Cli(monkeypatch, capsys), tmp_path / "ada"
    async with running(tmp_path) as target:
        made = await asyncio.to_thread(
            cli, "--hub", target.url, "operator", "create", "ada", "--certificate", "--out", folder
        )
        assert made.code == 0
        before = (folder / "certificate.pem").read_bytes()
        monkeypatch.setenv("FEDERATION_CONTEXTS", str(folder / "contexts.yaml"))
        for _ in range(2):
            renewed = await asyncio.to_thread(cli, "operator", "renew")
            assert (renewed.code, renewed.err) == (0, "")
            assert "is good until" in renewed.out
            assert (folder / "certificate.pem").read_bytes() != before
            assert (await asyncio.to_thread(cli, "status")).code == 0
        (folder / "certificate.pem").write_bytes(before)
        assert (await asyncio.to_thread(cli, "operator", "renew")).code == 0
        bearer = await asyncio.to_thread(
            cli, "--hub", target.url, "operator", "create", "vi", "--out", tmp_path / "vi"
        )
        assert bearer.code == 0
        monkeypatch.setenv("FEDERATION_CONTEXTS", str(tmp_path / "vi" / "contexts.yaml"))
        refused = await asyncio.to_thread(cli, "operator", "renew")
        assert refused.code == 2
        assert "a bearer token is not renewed" in refused.err
        assert (await asyncio.to_thread(cli, "--hub", target.url, "operator", "remove", "ada")).code == 0
        monkeypatch.setenv("FEDERATION_CONTEXTS", str(folder / "contexts.yaml"))
        assert (await asyncio.to_thread(cli, "operator", "renew")).code == 1
