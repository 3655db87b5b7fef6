"""The start of an agent's process, before it speaks to anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from federation.app import agent
from federation.clock import SystemClock
from federation.config import AgentSettings
from federation.errors import FederationError, InputError, StoreHeld
from federation.join import join
from federation.settings_file import read_settings
from federation.store import SqliteStore
from pki.errors import WriteError
from pki.keys.file import FileKeyStore
from tests.federation.issuers import BASE, issuer


def settings(folder: Path, **more: object) -> AgentSettings:
    file = folder / "agent.yaml"
    written: dict[str, object] = {
        "cluster": "east",
        "region": "eu",
        "services": str(folder / "services"),
        "directory": str(folder / "state"),
        "advertise": {"api": "127.0.0.1:9443", "xds": "127.0.0.1:9444"},
        "keys": {"plain": True},
    }
    file.write_text(yaml.safe_dump(written | more))
    return read_settings(file, AgentSettings)


async def test_an_agent_started_twice_by_mistake_leaves_the_first_one_alone(tmp_path: Path) -> None:
    """What looks like the remains of a crash may be a file that the first is just writing."""
    state = tmp_path / "state"
    async with await SqliteStore.open(state / "agent.db"):
        (state / "keys").mkdir(mode=0o700)
        being_written = [state / TEMPORARY, state / "keys" / TEMPORARY]
        for file in being_written:
            file.touch()
        with pytest.raises(StoreHeld):
            await agent.run(settings(tmp_path), None, SystemClock())
        assert all(file.exists() for file in being_written)


async def test_what_a_crash_left_is_removed_by_the_one_who_owns_the_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / TEMPORARY).touch()
    with pytest.raises(FederationError, match="has not joined yet"):
        await agent.run(settings(tmp_path), None, SystemClock())
    assert not (state / TEMPORARY).exists()


async def test_an_agent_that_cannot_remove_what_a_crash_left_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / TEMPORARY).mkdir()
    with pytest.raises(WriteError, match="which a crash left, cannot be removed"):
        await agent.run(settings(tmp_path), None, SystemClock())


async def test_an_agent_that_is_to_fetch_bundles_of_its_own_federation_is_refused_before_it_writes_anything(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with issuer(tmp_path / "hub") as hub:
        await join("east", await hub.token(tmp_path), state, FileKeyStore(state / "keys"), SystemClock())
    wanted = {"trust_domain": f"west.{BASE}", "url": "https://a.example/", "profile": "https_web"}
    before = {path: path.stat().st_mtime_ns for path in state.rglob("*.*")}
    with pytest.raises(InputError, match="trust domain of this federation") as told:
        await agent.run(settings(tmp_path, federates=[wanted]), None, SystemClock())
    assert told.value.field == "federates[0].trust_domain"
    after = {path: path.stat().st_mtime_ns for path in state.rglob("*.*") if "agent.db" not in path.name}
    assert after == before


TEMPORARY = ".leaf.pem.0123456789abcdef.partial"
