"""How private keys lie on disk, with real processes: encrypted in place, and opened by one passphrase only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from federation.demo.asking import answers
from federation.demo.files import PASSPHRASE, keys
from federation.demo.processes import Process
from federation.document import dump
from tests.scenarios.command import federation
from tests.scenarios.lone_hub import COMMAND, LoneHub, started

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="session")]

CANARY = "canary-7f3a-passphrase"
VARIABLE = "HUB_SECRET"


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[LoneHub]:
    made = LoneHub(tmp_path)
    yield made
    await made.process.stop()


def set_keys(hub: LoneHub, setting: Mapping[str, object]) -> None:
    hub.config.write_text(dump(hub.settings(hub.directory) | {"keys": setting}))


async def ran(hub: LoneHub, environment: dict[str, str] | None = None) -> str:
    """What a hub says that starts, answers and is stopped."""
    log = hub.folder / "run.log"
    log.unlink(missing_ok=True)
    process = Process("hub", (*COMMAND, "serve", "--config", str(hub.config)), log, environment)
    async with started(process, lambda: answers(hub.socket)):
        environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"PATH=" in environ
        assert CANARY.encode() not in environ
    return log.read_text()


def private_files(hub: LoneHub) -> dict[str, bytes]:
    found = {
        str(path.relative_to(hub.directory)): path.read_bytes()
        for pattern in ("*keys/*.key", "leaf.pem")
        for path in hub.directory.glob(pattern)
    }
    assert set(found) == {"root-keys/ca-1.key", "keys/ca-1.key", "leaf.pem"}
    return found


async def test_k1_keys_in_the_clear_are_encrypted_by_the_first_start_with_a_passphrase(hub: LoneHub) -> None:
    set_keys(hub, {"plain": True})
    for _ in range(2):
        assert "private keys lie in the clear" in await ran(hub)
    assert all(b"BEGIN PRIVATE KEY" in data for data in private_files(hub).values())
    set_keys(hub, keys(hub.folder))
    assert (await ran(hub)).count("is encrypted now") == 2
    sealed = private_files(hub)
    assert all(b"BEGIN ENCRYPTED PRIVATE KEY" in data for data in sealed.values())
    assert not any(b"BEGIN PRIVATE KEY" in data for data in sealed.values())
    said = await ran(hub)
    assert "in the clear" not in said
    assert "encrypted now" not in said
    assert private_files(hub) == sealed


async def test_k1_another_passphrase_or_none_is_refused_and_changes_nothing(hub: LoneHub) -> None:
    await ran(hub)
    sealed = private_files(hub)
    other = hub.folder / "other"
    other.touch(0o600)
    other.write_text(CANARY)
    refused: list[tuple[Mapping[str, object], str]] = [
        (
            {"passphrase": {"file": str(other)}},
            "root-keys/ca-1.key: is not opened by the passphrase that is set",
        ),
        ({"plain": True}, "root-keys/ca-1.key: is encrypted, and no passphrase is set"),
        ({"passphrase": {"file": str(hub.folder / "missing")}}, f"{hub.folder}/missing does not exist"),
        ({"passphrase": {"credential": "keys"}}, "see LoadCredential= in systemd.exec(5)"),
        ({"passphrase": {"environment": VARIABLE}}, f"{VARIABLE} is not set"),
    ]
    for setting, said in refused:
        set_keys(hub, setting)
        found = await federation("serve", "--config", hub.config)
        assert found.code == 1, found.said
        assert said in found.err
        assert "Traceback" not in found.said
        assert CANARY not in found.said
        assert private_files(hub) == sealed
    other.chmod(0o640)
    set_keys(hub, {"passphrase": {"file": str(other)}})
    assert f"chmod 0600 {other}" in (await federation("serve", "--config", hub.config)).err
    set_keys(hub, keys(hub.folder))
    await ran(hub)


async def test_without_a_word_about_keys_nothing_starts(hub: LoneHub) -> None:
    settings = hub.settings(hub.directory)
    del settings["keys"]
    hub.config.write_text(dump(settings))
    found = await federation("serve", "--config", hub.config)
    assert found.code == 2, found.said
    assert "keys: does not say how private keys lie on disk" in found.err
    assert "plain: true" in found.err
    assert not hub.directory.exists()


async def test_k5_a_passphrase_from_the_environment_is_taken_out_of_it_with_a_warning(hub: LoneHub) -> None:
    set_keys(hub, {"passphrase": {"environment": VARIABLE}})
    for _ in range(2):
        said = await ran(hub, {VARIABLE: CANARY})
        assert "comes from the environment, which leaks easily" in said
        assert CANARY not in said
    assert all(CANARY.encode() not in data for data in private_files(hub).values())
    (hub.folder / PASSPHRASE).write_text(CANARY)
    set_keys(hub, keys(hub.folder))
    await ran(hub)
